"""Re-warming: every task raises the learning rate again and lets it decay."""

from __future__ import annotations

from typing import Literal

from clbench.config import setting

from .scheduled import Scheduled


class Rewarm(Scheduled):
    """Train on each task under its own warm-up and cosine decay (re-warming and re-decaying).

    Gupta et al. 2023 (arXiv 2308.04014); Ibrahim et al. 2024 (arXiv 2403.08763): in every task the rate rises to
    `lr` over `warmup` of the task's steps and falls by half a cosine to `floor` times `lr`:
    floor + (1 - floor) (1 + cos(pi x)) / 2. A model whose rate has decayed learns new data better so, at the price of a
    rise of all losses after the switch. With `later_peak` tasks after the first rise to that multiple of `lr` only.
    Replay is the other half of the paper: `replay --schedule rewarm-cosine`.
    """

    class Config(Scheduled.Config):
        schedule: Literal["rewarm-cosine"] = setting(
            "rewarm-cosine", "what this method is; for another one, finetune --schedule", source="arXiv 2308.04014"
        )
        warmup: int | float = setting(
            0.01, "length of the warm-up: steps, or a share of the task's", source="arXiv 2403.08763: 1 %", ge=0
        )
        floor: float = setting(
            0.1, "lowest rate, as a multiple of lr", source="arXiv 2403.08763: 3e-5 of 3e-4", ge=0, le=1
        )
        later_peak: float | None = setting(
            None, "peak of later tasks, as a multiple of lr; none: 1", source="arXiv 2308.04014: 0.5, 1 and 2", gt=0
        )

        def written(self) -> str:
            later = "" if self.later_peak is None else f",later_peak={self.later_peak!r}"
            return f"{self.schedule}:warmup={self.warmup!r},floor={self.floor!r}{later}"

    paper = "Gupta et al. 2023 (arXiv 2308.04014); Ibrahim et al. 2024 (arXiv 2403.08763)"
