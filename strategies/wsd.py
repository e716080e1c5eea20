"""Warm-up, stable, decay, with the decay on a branch."""

from __future__ import annotations

from typing import Literal

from clbench.config import setting

from .scheduled import Scheduled


class WSD(Scheduled):
    """Train all tasks at the peak rate after one warm-up; decay on branches (warm-up, stable, decay).

    Hu et al. 2024 (MiniCPM, arXiv 2404.06395); Hägele et al. 2024 (arXiv 2405.18392). Task 0 begins with a linear
    warm-up to `lr`; from there on the rate is constant, in all tasks. The last `anneal` of each task's steps are a
    branch on which it falls to `floor` times `lr` by 1 - sqrt(x) (or a straight line; `half_life` halves it every
    `half_life` of the branch instead, MiniCPM's form). The next task goes on from the weights before the decay
    (`resume_from`). The schedule `wsd` of finetune decays in place instead.
    """

    class Config(Scheduled.Config):
        schedule: Literal["wsd"] = setting(
            "wsd", "what this method is; for another one, finetune --schedule", source="arXiv 2404.06395"
        )
        shape: Literal["one_minus_sqrt", "linear", "half_life"] = setting(
            "one_minus_sqrt", "of the decay", source="arXiv 2405.18392; MiniCPM: half_life"
        )
        floor: float = setting(
            0.1, "rate at the end of a branch, as a multiple of lr", source="Llama-3-SynE's code: 0.1", ge=0, le=1
        )
        half_life: float = setting(
            0.25, "share of the branch that halves the rate", source="MATES' code: 200 of 800 steps", gt=0, le=1
        )
        warmup: int | float = setting(
            0.01, "length of the warm-up: steps, or a share of task 0's", source="clbench", ge=0
        )
        anneal: float = setting(
            0.1,
            "share of a task's steps spent on a branch that decays",
            source="arXiv 2404.06395: about 10 %",
            ge=0,
            lt=1,
        )

        def written(self) -> str:
            decay = f"decay=0,shape={self.shape},floor={self.floor!r},half_life={self.half_life!r}"
            return f"{self.schedule}:{decay},warmup={self.warmup!r},rewarm=no"

    paper = "Hu et al. 2024 (arXiv 2404.06395); Hägele et al. 2024 (arXiv 2405.18392)"
