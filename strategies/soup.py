"""Uniform soup: the mean of all checkpoints."""

from __future__ import annotations

from clbench.config import setting
from clbench.merging import Weights, averaged

from .merging import Init, Merging


class Soup(Merging):
    """Train every task from the initial weights, and deploy the mean of all results (uniform soup).

    Wortsman et al. 2022 (arXiv 2203.05482): (1/K) sum_k theta_k over models finetuned from the same theta0, here on
    different tasks; theta0 itself is no member. With `init=last` it is the mean of the trajectory's checkpoints. A row
    of a head is averaged over the tasks since its class arrived; from theta0, old classes' rows are trained once and
    then only against. Kept are a running mean and a count for each row.
    """

    paper = "Wortsman et al. 2022 (arXiv 2203.05482)"

    class Config(Merging.Config):
        init: Init = setting("theta0", "weights a task is trained from", source="arXiv 2203.05482")

    def setup(self) -> None:
        super().setup()
        self.state.mean, self.state.counts = {}, {}

    def merged(self, trained: Weights) -> Weights:
        return averaged(self.state.mean, self.state.counts, trained)[0]

    def fold(self, trained: Weights) -> None:
        self.state.mean, self.state.counts = averaged(self.state.mean, self.state.counts, trained)
