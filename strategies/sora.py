"""SoRA: LoRA with gates that a proximal step closes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from clbench.config import setting
from clbench.models.rank_one import Operator, components, soft_threshold
from clbench.phase import Phase
from clbench.samples import Batch
from clbench.schedules import factor
from clbench.stream import Task

from .rank_lora import RankLoRA

SCRIPT = "official code (TsinghuaC3I/SoRA), run_glue_sora_no_schedule.sh"


class SoRA(RankLoRA):
    """Gate every rank of LoRA, and close gates by a soft threshold after each step; merge what stays open (SoRA).

    Ding et al. 2023 (arXiv 2311.11696): y = W x + alpha / r * B (g * (A x)), g from N(0, 1), B zero; each update of g
    is followed by the proximal step of an L1 norm, g <- sign(g) max(|g| - xi_t, 0), xi_t = eta_t lambda for the
    learning rate eta_t. `xi` is its value at the peak rate.

    The paper is about one task. Along a stream each task has components of its own that are merged into the backbone
    after it, so that nothing is stored and the full rank is free again. The released code differs
    (`operator=released`): xi does not follow the learning rate, and gates with |g| < 2 xi are closed, since it tests
    shrunken values again. It also adds l1 * mean |g| to the loss (10 in its script, here `l1`, 0 as in the paper), and
    warms the learning rate up over 6 % of the steps. Its optimiser of the gates has an epsilon of 1e-6.

    How many gates close depends on the number of steps: without a gradient, those with |g| below the sum of the
    thresholds, xi * steps / 2 (released: xi * steps). The script's smallest task has some 6,000 steps; with few, all
    ranks stay unless `xi` grows by as much as the steps are fewer.
    """

    class Config(RankLoRA.Config):
        rank: int = setting(8, "ranks of each layer at a task's start", source=SCRIPT, ge=1)
        alpha: float = setting(16.0, "the update is scaled by alpha / rank", source="official code, src/lora.py", gt=0)
        xi: float = setting(3e-4, "threshold at the peak learning rate", source=SCRIPT, ge=0)
        operator: Operator = setting(
            "paper",
            "soft threshold that follows the rate, or (released) constant and of double width",
            source="arXiv 2311.11696",
        )
        l1: float = setting(0.0, "weight of mean |g| in the loss", source="arXiv 2311.11696; official script: 10", ge=0)
        optimizer: str | None = setting("adamw", "sgd, adam or adamw", source=SCRIPT)
        lr: float | None = setting(8e-4, "peak learning rate", source=SCRIPT, ge=0)
        weight_decay: float | None = setting(
            0.1, "weight decay of A, B and the head's weights for the task's classes", source=SCRIPT, ge=0
        )
        schedule: str | None = setting("linear", "learning-rate schedule within a task", source="transformers' default")
        clip: float | None = setting(0.1, "largest gradient norm", source=SCRIPT, gt=0)

    paper = "Ding et al. 2023, EMNLP (arXiv 2311.11696)"

    def scaling(self) -> float:
        return self.config.alpha / self.config.rank

    def first_weights(self) -> Tensor:
        return torch.randn(self.config.rank)

    def phases(self, task: Task) -> list[Phase]:
        (phase,) = super().phases(task)
        phase.parameter_groups = gates_apart
        return [phase]

    def task_loss(self, classes: Any, batch: Batch) -> Tensor:
        loss = super().task_loss(classes, batch)
        if not self.config.l1:
            return loss
        gates = torch.cat([part.w for part in components(self.model).values()])
        return loss + self.config.l1 * gates.abs().mean()

    def reweigh(self, step: int, steps: int) -> None:
        paper = self.config.operator == "paper"
        xi = self.config.xi * (factor(self.config.schedule, step, steps) if paper else 1.0)
        for part in components(self.model).values():
            part.w.copy_(soft_threshold(part.w, xi, self.config.operator))


def gates_apart(parameters: dict[str, Parameter]) -> list[dict[str, Any]]:
    """Weight decay for matrices alone: gates are shrunk by the proximal step, and biases by nothing."""
    matrices = [p for p in parameters.values() if p.dim() > 1]
    others = [p for p in parameters.values() if p.dim() < 2]
    return [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
