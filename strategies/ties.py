"""TIES-merging along a stream."""

from __future__ import annotations

from collections.abc import Sequence

from clbench.config import setting
from clbench.merging import Weights, elected_mean, trimmed

from .task_arithmetic import TaskArithmetic


class TIES(TaskArithmetic):
    """Merge task vectors entry by entry after trimming them and electing signs (TIES-merging).

    Yadav et al. 2023 (arXiv 2306.01708): of each vector keep the `density` share of entries that are largest in
    magnitude, over all tensors together; elect for each entry the sign of the sum; average the values that have it;
    deploy theta0 + scale * that. The official code keeps one entry more, gives an entry whose sum is zero the sign that
    most entries have (done here, too), and chooses the scale on validation data among 0.8 to 2.5; without those the
    paper takes 1. In Roth et al. 2024 a pruning rate of 0.7 drops 70 %; here `density` is the share that stays. peft's
    `ties` trims so, too, but breaks zero sums towards plus, so it is not used. The trimmed vectors of all tasks are
    kept, dense, and theta0.
    """

    paper = "Yadav et al. 2023, NeurIPS (arXiv 2306.01708)"

    class Config(TaskArithmetic.Config):
        scale: float = setting(1.0, "lambda: of the merged vector", source="arXiv 2306.01708, no validation data")
        density: float = setting(0.2, "share of a vector's entries that stays", source="arXiv 2306.01708", gt=0, le=1)

    def prepared(self, vector: Weights) -> Weights:
        return trimmed(vector, self.config.density)

    def combined(self, vectors: Sequence[Weights]) -> Weights:
        return elected_mean(vectors)

    def kept(self, vectors: list[Weights]) -> list[Weights]:
        return vectors
