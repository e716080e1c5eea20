"""DARE along a stream: drop entries of task vectors, and rescale the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from clbench.config import setting
from clbench.merging import Weights, dropped, elected_mean, summed

from .task_arithmetic import TaskArithmetic


class DARE(TaskArithmetic):
    """Drop entries of each task vector at random and rescale the others before merging (DARE).

    Yu et al. 2024 (arXiv 2311.03099): an entry is zero with probability `drop`, otherwise divided by 1 - drop; then
    task arithmetic (`combine=sum`), or signs are elected and values averaged as in TIES, without its trimming. At drop
    0 it is task arithmetic. `exact` drops a fixed number of entries of each tensor, as the code of Roth et al. 2024
    (arXiv 2408.14471) does. A task's entries are drawn once. peft's `dare_linear` draws from torch's global generator,
    which evaluations inside a task must not touch, so it is not used. Besides theta0, one sum is kept; with
    `combine=elect` all vectors.
    """

    paper = "Yu et al. 2024, ICML (arXiv 2311.03099)"

    class Config(TaskArithmetic.Config):
        drop: float = setting(0.5, "probability that an entry is dropped", source="clbench", ge=0, lt=1)
        exact: bool = setting(
            False, "drop exactly that share of each tensor", source="arXiv 2311.03099: each by itself"
        )
        combine: Literal["sum", "elect"] = setting("sum", "how vectors are merged", source="arXiv 2311.03099")

    def setup(self) -> None:
        super().setup()
        self.state.seed = 0

    def begun(self, start: Weights, current: Weights) -> None:
        super().begun(start, current)
        self.state.seed = int(torch.randint(2**62, (1,), generator=self.generator("dare")))

    def prepared(self, vector: Weights) -> Weights:
        generator = torch.Generator().manual_seed(self.state.seed)
        return dropped(vector, self.config.drop, generator, self.config.exact)

    def combined(self, vectors: Sequence[Weights]) -> Weights:
        return summed(vectors) if self.config.combine == "sum" else elected_mean(vectors)

    def kept(self, vectors: list[Weights]) -> list[Weights]:
        return [summed(vectors)] if self.config.combine == "sum" else vectors
