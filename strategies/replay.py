"""Experience replay: the current batch and a batch from memory, under one loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from clbench.config import setting
from clbench.memory import Policy
from clbench.phase import Phase
from clbench.samples import Batch
from clbench.strategy import Needs, Strategy
from clbench.stream import Task


class Replay(Strategy):
    """Train on the current batch together with remembered samples (experience replay).

    Chaudhry et al. 2019 (arXiv 1902.10486), with reservoir sampling as in Mammoth's `er`: one loss over the union of
    the current batch and a batch drawn from memory; samples enter the memory after the step, un-augmented, and are
    augmented anew whenever they are replayed. The memory learns of no task boundary.
    """

    class Config(Strategy.Config):
        memory_size: int = setting(200, "samples kept", source="Mammoth: seq-cifar10, its smallest buffer", ge=1)
        policy: Policy = setting("reservoir", "which samples are kept", source="Mammoth er")
        mixing: Literal["add", "share"] = setting(
            "add",
            "add: replayed samples on top of batch_size; share: batch_size in all, `share` of it replayed",
            source="Mammoth er: add",
        )
        replay_batch_size: int | None = setting(
            None, "replayed samples per step with mixing=add; none: batch_size", source="Mammoth er: 32 and 32", ge=0
        )
        share: float = setting(0.5, "replayed part of a batch with mixing=share", source="clbench", ge=0, lt=1)

    paper = "Chaudhry et al. 2019 (arXiv 1902.10486)"
    needs = Needs(task_boundaries=False, stores_samples=True)

    def setup(self) -> None:
        self.state.memory = self.memory(self.config.memory_size, self.config.policy)

    def phases(self, task: Task) -> list[Phase]:
        current, _ = self.batch_sizes()
        return [self.phase("train", task.train, batch_size=current)]

    def loss(self, batch: Batch) -> Tensor:
        _, replayed = self.batch_sizes()
        return super().loss(self.join(batch, self.replay(self.state.memory, replayed)))

    def after_step(self, batch: Batch) -> None:
        self.state.memory.add(batch, self.generator("memory"))

    def adopt(self, task: Task) -> None:
        """Offer the task's samples to the memory once, in a random order."""
        if "memory" in self.state:
            order = torch.randperm(len(task.train), generator=self.generator("adopt"))
            for batch in self.batches(task.train.subset(order)):
                self.state.memory.add(batch, self.generator("memory"))

    def batch_sizes(self) -> tuple[int, int]:
        """Samples of a step: of the current task (at least one), from the memory."""
        c = self.config
        if c.mixing == "add":
            return c.batch_size, c.batch_size if c.replay_batch_size is None else c.replay_batch_size
        replayed = min(c.batch_size - 1, round(c.share * c.batch_size))
        return c.batch_size - replayed, replayed
