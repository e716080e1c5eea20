"""The rank-selective strategies, telling the tests what they held before and after a task's end."""

from __future__ import annotations

from typing import Any

import torch

from clbench.models.rank_one import components
from clbench.strategies.adalora import AdaLoRA, layers
from clbench.strategies.codyra import CoDyRA
from clbench.strategies.sora import SoRA
from clbench.strategy import Task


class Watched:
    """Keeps, for each task: weights at its start and end, outputs before and after merging, the head."""

    def begin_task(self: Any, task: Task) -> None:
        super().begin_task(task)  # type: ignore[misc]
        self.state.starts = [*getattr_or(self.state, "starts"), weights(self.model)]

    def end_task(self: Any, task: Task) -> None:
        self.state.ends = [*getattr_or(self.state, "ends"), weights(self.model)]
        batch = next(self.batches(task.train))
        with torch.no_grad():
            before = self.model(batch.x)
            super().end_task(task)  # type: ignore[misc]
            after = self.model(batch.x)
        self.state.outputs = [*getattr_or(self.state, "outputs"), [before, after]]
        self.state.heads = [*getattr_or(self.state, "heads"), self.model.head.weight.detach().clone()]


def getattr_or(state: Any, name: str) -> list[Any]:
    return list(getattr(state, name)) if name in state else []


def weights(model: Any) -> dict[str, torch.Tensor]:
    """The weights of all components, by layer."""
    found = {name: part.w for name, part in components(model).items()} or {
        name: layer.lora_E["default"][:, 0] for name, layer in layers(model).items()
    }
    return {name: w.detach().clone() for name, w in found.items()}


class WatchedCoDyRA(Watched, CoDyRA):
    """CoDyRA."""


class WatchedSoRA(Watched, SoRA):
    """SoRA."""


class WatchedAdaLoRA(Watched, AdaLoRA):
    """AdaLoRA."""
