"""The infinite schedule: one cool-down to a constant rate, and branches that anneal."""

from __future__ import annotations

from typing import Literal

from clbench.config import setting

from .scheduled import Scheduled


class Infinite(Scheduled):
    """Train all tasks at one constant rate after a single warm-up and cool-down; anneal on branches.

    "Beyond Cosine Decay" (arXiv 2503.02844). Task 0: a warm-up to `lr`, a cool-down to `constant` times `lr` (half a
    cosine, a straight line, or 1 / sqrt(1 + 10 x) scaled to end there), then constant. Later tasks: constant. The last
    `anneal` of each task's steps are a branch: from the constant rate c by c (floor / c)^x to `floor` times `lr`; it is
    what is evaluated. The next task goes on from the weights before it (`resume_from`), so that the rate never has to
    rise again. The published ratios for images are .05 warm-up, .10 cool-down, .65 constant, .20 anneal.
    """

    class Config(Scheduled.Config):
        schedule: Literal["infinite"] = setting(
            "infinite", "what this method is; for another one, finetune --schedule", source="arXiv 2503.02844"
        )
        cooldown: Literal["cosine", "inv_sqrt", "linear"] = setting(
            "cosine", "shape of the cool-down", source="arXiv 2503.02844: the first of three"
        )
        constant: float = setting(
            0.55, "the constant rate, as a multiple of lr", source="arXiv 2403.08763: 1.65e-4 of 3e-4", gt=0, le=1
        )
        floor: float = setting(
            0.1, "rate at the end of a branch, as a multiple of lr", source="arXiv 2403.08763: 3e-5 of 3e-4", gt=0, le=1
        )
        warmup: int | float = setting(
            0.01, "length of the warm-up: steps, or a share of task 0's", source="arXiv 2403.08763: 1 %", ge=0
        )
        cooldown_share: int | float = setting(
            0.6, "length of the cool-down: steps, or a share of task 0's", source="arXiv 2403.08763: 60 %", ge=0
        )
        shape: Literal["expo", "linear", "one_minus_sqrt", "cosine"] = setting(
            "expo", "of the anneal", source="arXiv 2503.02844"
        )
        anneal: float = setting(
            0.2,
            "share of a task's steps spent on a branch that anneals",
            source="arXiv 2503.02844: its code",
            ge=0,
            lt=1,
        )

        def written(self) -> str:
            lengths = f"warmup={self.warmup!r},cooldown_share={self.cooldown_share!r}"
            rates = f"constant={self.constant!r},floor={self.floor!r}"
            return f"{self.schedule}:cooldown={self.cooldown},{rates},{lengths},shape={self.shape}"

    paper = "Singh et al. 2025, Beyond Cosine Decay (arXiv 2503.02844)"
