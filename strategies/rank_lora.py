"""What methods with weighted rank-one components share: training them for a task, then merging them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from clbench.config import setting
from clbench.engine.sampling import phase_length
from clbench.models.rank_one import attach, components, merge
from clbench.phase import Phase
from clbench.samples import Batch
from clbench.strategy import Strategy
from clbench.stream import Task

FUSED = "clbench: the papers' models have these layers apart"


class RankLoRA(Strategy):
    """For each task new rank-one components on all linear layers; the survivors are merged into the backbone after it.

    The backbone is frozen but for that; a classifier's head trains along. The loss is taken over the classes of the
    task alone. Subclasses give the components' first weights and say what each step does to them.
    """

    class Config(Strategy.Config):
        rank: int = setting(16, "components of each layer at a task's start", source="arXiv 2106.09685", ge=1)
        separate: bool = setting(True, "fused query, key and value layers get factors of their own", source=FUSED)

    def setup(self) -> None:
        attach(self.model, self.config.rank, self.scaling(), self.config.separate, type(self).__name__)
        self.state.step = 0
        self.state.told = {}

    def scaling(self) -> float:
        """The factor of every layer's sum."""
        return 1.0

    def begin_task(self, task: Task) -> None:
        self.state.step = 0
        for part in components(self.model).values():
            part.start(self.first_weights())

    def first_weights(self) -> Tensor:
        """The weights [rank] that a layer's components begin a task with."""
        raise NotImplementedError

    def phases(self, task: Task) -> list[Phase]:
        phase = self.phase(
            "train", task.train, loss=partial(self.task_loss, task.classes), trainable=is_trained, mode="frozen_norms"
        )
        steps = phase_length(phase, len(task.train))
        return [replace(phase, after_step=partial(self.after_update, steps))]

    def task_loss(self, classes: Sequence[int], batch: Batch) -> Tensor:
        return self.objective.mean_loss(only(classes, self.model(batch.x)), batch.y)

    def after_update(self, steps: int, batch: Batch) -> None:
        """After each update of a phase of this many steps: apply `reweigh`, count."""
        self.reweigh(self.state.step, steps)
        self.state.step += 1

    def reweigh(self, step: int, steps: int) -> None:
        """Change the components' weights after the 0-based update `step` of `steps`."""
        raise NotImplementedError

    def end_task(self, task: Task) -> None:
        parts = components(self.model)
        squares = sum(float(part.change().double().square().sum()) for part in parts.values())
        self.state.told = {
            "effective_rank": {name: int(part.w.count_nonzero()) for name, part in parts.items()},
            "update_norm": squares**0.5,
        }
        merge(self.model)

    def diagnostics(self) -> dict[str, Any]:
        return dict(self.state.told)


def is_trained(name: str) -> bool:
    """Components, and a classifier's head."""
    return ".rank_one." in name or name.startswith("head.")


def only(classes: Sequence[int], outputs: Tensor) -> Tensor:
    """Outputs [B, n] with -inf for all other classes; as they are where the task has no classes (text)."""
    if not classes:
        return outputs
    others = torch.ones(outputs.shape[-1], dtype=torch.bool, device=outputs.device)
    others[list(classes)] = False
    return outputs.masked_fill(others, float("-inf"))
