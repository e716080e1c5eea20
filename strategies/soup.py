"""Uniform soup: the mean of all checkpoints."""

from __future__ import annotations

from clbench.config import setting
from clbench.merging import Weights, averaged

from .merging import Init, Merging


class Soup(Merging):
    """Train every task from the initial weights, and deploy the mean of all results (uniform soup).

    Wortsman et al. 2022 (arXiv 2203.05482): (1/K) sum_k theta_k over models finetuned from the same theta0, here on
    different tasks; theta0 itself is no member. With `init=last` it is the mean of the trajectory's checkpoints. A row
    of the head is averaged over the tasks in whose loss its class was. Kept are a running mean and a count for each
    row. The paper's other form, the greedy soup, is the strategy `greedy-soup`: it keeps held-out samples and all
    checkpoints, which this one does not.
    """

    paper = "Wortsman et al. 2022, ICML (arXiv 2203.05482)"

    class Config(Merging.Config):
        init: Init = setting("theta0", "weights a task is trained from", source="arXiv 2203.05482")

    def setup(self) -> None:
        super().setup()
        self.state.mean, self.state.counts = {}, {}

    def merged(self, trained: Weights) -> Weights:
        return self._with(trained)[0]

    def fold(self, trained: Weights) -> None:
        self.state.mean, self.state.counts = self._with(trained)

    def _with(self, trained: Weights) -> tuple[Weights, Weights]:
        return averaged(self.state.mean, self.state.counts, trained, self.votes(trained))
