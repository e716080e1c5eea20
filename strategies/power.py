"""The power scheduler: the rate falls as a power of the tokens seen, whatever the task."""

from __future__ import annotations

from typing import Literal

from clbench.config import setting

from .scheduled import Scheduled


class Power(Scheduled):
    """Let the rate fall as a power of the tokens seen since the beginning of the run; anneal on branches.

    Shen et al. 2024 (arXiv 2408.13359): after n tokens the rate is min(lr, B a n^b), B sequences a step, so `lr` is the
    paper's eta_max (0.02); before, a linear warm-up to where the law then stands. Tasks change nothing: n goes on, no
    rate rises again. The last `anneal` of each task's steps are a branch that falls exponentially to `floor` times `lr`
    (the paper: "to 0", which no exponential reaches); the next task goes on from before it (`resume_from`).

    The paper's `a` belongs to muP and billions of tokens: the law meets `lr` at n = (lr / (B a))^(1 / b), 10^7 to 10^8
    tokens with usual settings here, and before that the rate is constant. `knee` says instead at how many tokens it
    begins to fall: min(1, (n / knee)^b) lr. Where there are no tokens, samples count.
    """

    class Config(Scheduled.Config):
        schedule: Literal["power"] = setting(
            "power", "what this method is; for another one, finetune --schedule", source="arXiv 2408.13359"
        )
        a: float = setting(4.0, "factor of the law", source="arXiv 2408.13359", gt=0)
        b: float = setting(-0.51, "exponent of the law", source="arXiv 2408.13359", le=0)
        knee: int | None = setting(
            None, "tokens at which the rate begins to fall, instead of a; none: the law's own", source="clbench", ge=1
        )
        floor: float = setting(
            0.01, "rate at the end of a branch, as a multiple of lr", source="clbench, for the paper's 0", gt=0, le=1
        )
        warmup: int | float = setting(
            0.01, "length of the warm-up: steps, or a share of task 0's", source="clbench; the paper: 1e9 tokens", ge=0
        )
        anneal: float = setting(
            0.1, "share of a task's steps spent on a branch that anneals", source="arXiv 2408.13359: 10 %", ge=0, lt=1
        )

        def written(self) -> str:
            law = f"a={self.a!r},b={self.b!r}" + ("" if self.knee is None else f",knee={self.knee}")
            return f"{self.schedule}:{law},warmup={self.warmup!r},floor={self.floor!r}"

    paper = "Shen et al. 2024 (arXiv 2408.13359)"
