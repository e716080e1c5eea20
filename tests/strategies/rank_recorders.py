"""The rank-selective strategies, keeping what an independent loop needs to repeat them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch

from clbench.models.rank_one import components
from clbench.strategies.adalora import AdaLoRA, layers
from clbench.strategies.codyra import CoDyRA
from clbench.strategies.sora import SoRA
from clbench.strategy import Task


class Recorded:
    """`original`: the backbone before anything was attached. `tasks`: for each its classes, the new rows of the head,
    the factors that were drawn, and the batches and losses of its steps."""

    def setup(self: Any) -> None:
        self.original = deepcopy(self.model.backbone)
        self.tasks: list[dict[str, Any]] = []
        super().setup()  # type: ignore[misc]

    def begin_task(self: Any, task: Task) -> None:
        super().begin_task(task)  # type: ignore[misc]
        head = self.model.head
        rows = [head.weight[list(task.classes)], head.bias[list(task.classes)]]
        self.tasks.append(
            {
                "classes": list(task.classes),
                "rows": [r.detach().clone() for r in rows],
                "drawn": drawn(self.model),
                "batches": [],
                "losses": [],
            }
        )

    def task_loss(self: Any, classes: Any, batch: Any) -> torch.Tensor:
        loss: torch.Tensor = super().task_loss(classes, batch)  # type: ignore[misc]
        self.tasks[-1]["batches"].append((batch.x.clone(), batch.y.clone()))
        self.tasks[-1]["losses"].append(float(loss.detach()))
        return loss


def drawn(model: Any) -> dict[str, list[torch.Tensor]]:
    """Of each layer: A and w, or Q and P."""
    found = {name: [part.a, part.w] for name, part in components(model).items()} or {
        name: [layer.lora_A["default"], layer.lora_B["default"]] for name, layer in layers(model).items()
    }
    return {name: [t.detach().clone() for t in tensors] for name, tensors in found.items()}


class RecordedCoDyRA(Recorded, CoDyRA):
    """CoDyRA."""


class RecordedSoRA(Recorded, SoRA):
    """SoRA."""


class RecordedAdaLoRA(Recorded, AdaLoRA):
    """AdaLoRA."""
