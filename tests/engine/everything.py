"""A strategy that uses every service and draws randomness in every hook: what resuming must survive."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clbench.strategy import Batch, Needs, Optimizer, Phase, Samples, Strategy, Task


class Everything(Strategy):
    """Adapters per task, two phases with carried moments, a memory, a teacher, averaged weights, noise everywhere."""

    needs = Needs(stores_samples=True, sees_all_data=True, knows_horizon=True)

    def setup(self) -> None:
        self.state.buffer = self.memory(40, "reservoir")
        self.state.noise = torch.rand(3)
        self.state.history = []
        self.state.average = {}

    def build(self, task: Task) -> None:
        self.model.register_parameter(f"shift{task.index}", nn.Parameter(torch.randn(3) * 0.01))

    def begin_task(self, task: Task) -> None:
        self.state.history.append([task.index, random.random(), float(np.random.rand())])
        self.state.noise += torch.rand(3)

    def phases(self, task: Task) -> list[Phase]:
        adam = Optimizer("adam", lr=0.003)
        return [
            self.phase("first", task.train, optimizer=adam, optimizer_state="keep-moments", begin=self.perturb),
            self.phase(
                "rest", self.drawn, steps=3, optimizer=adam, optimizer_state="keep", schedule="cosine", clip=1.0
            ),
            self.phase("read", task.train, optimizer=None, steps=4, after_step=self.insert),
        ]

    def drawn(self) -> Samples:
        seen = self.seen_samples()
        return seen.subset(torch.randperm(len(seen), generator=self.generator("drawn"))[:50])

    def perturb(self) -> None:
        with torch.no_grad():
            for p in self.trainable().values():
                p += 1e-4 * torch.randn_like(p)

    def loss(self, batch: Batch) -> Tensor:
        joined = self.join(batch, self.replay(self.state.buffer, 8))
        outputs = self.model(joined.x + 0.01 * torch.randn_like(joined.x))
        loss = self.objective.losses(outputs, joined.y).mean()
        loss = loss + sum(p.square().sum() for n, p in self.model.named_parameters() if n.startswith("shift"))
        teacher = self.teacher("before")
        if teacher is not None:
            loss = loss + self.objective.distillation(outputs, teacher(joined.x), 2.0).mean()
        return loss

    def after_step(self, batch: Batch) -> None:
        for name, value in self.model.state_dict().items():
            old = self.state.average.get(name)
            fits = old is not None and old.shape == value.shape
            self.state.average[name] = 0.9 * old + 0.1 * value if fits else value.clone()

    def insert(self, batch: Batch) -> None:
        self.state.buffer.add(batch, self.generator("insert"))

    def end_task(self, task: Task) -> None:
        total = sum(float(b.x.double().sum()) for b in self.batches(task.train))
        self.state.history.append([total, self.is_last_task(), float(torch.rand(()))])
        self.snapshot("before")

    def diagnostics(self) -> dict[str, Any]:
        noise = float(torch.rand(()))
        return {"noise": noise, "effective_rank": {"first": len(self.state.history), "second": 0.5}, "none": math.inf}

    def deploy(self) -> dict[str, Tensor] | None:
        return self.state.average or None
