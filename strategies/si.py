"""Synaptic intelligence."""

from __future__ import annotations

import torch
from torch import Tensor

from clbench.config import setting
from clbench.growing import known_part, padded
from clbench.samples import Batch
from clbench.strategy import Strategy
from clbench.stream import Task


class SI(Strategy):
    """Hold weights near their values by how much of the loss's decrease they accounted for (synaptic intelligence).

    Zenke et al. 2017 (arXiv 1703.04200), eqs. 3-5. During a task omega_i -= g_i * (change of theta_i), g the gradient
    of the data's loss before the step; at its end Omega_i += max(0, omega_i) / ((total change of theta_i)^2 + xi).
    Penalty c sum_i Omega_i (theta_i - theta*_i)^2, its gradient added after the backward pass, so that g is free of
    it. Avalanche's g includes the penalty; Mammoth and FACIL leave out the max.
    """

    class Config(Strategy.Config):
        c: float = setting(0.1, "strength of the penalty", source="Mammoth: perm-mnist; arXiv 1703.04200, 4.2", ge=0)
        xi: float = setting(0.1, "damping of the importances", source="Mammoth: perm-mnist; arXiv 1703.04200", gt=0)

    paper = "Zenke et al. 2017, ICML (arXiv 1703.04200)"

    def setup(self) -> None:
        self.state.importance = {}
        self.state.anchor = {}
        self.state.path = {}
        self._before: dict[str, tuple[Tensor, Tensor]] = {}

    def begin_task(self, task: Task) -> None:
        for name, p in self.trainable().items():
            self.state.anchor[name] = p.detach().clone()
            self.state.path[name] = torch.zeros_like(p)

    @torch.no_grad()
    def after_backward(self, batch: Batch) -> None:
        """Keep gradients and weights until `after_step`, then add the penalty's gradient."""
        self._before = {}
        for name, p in self.trainable().items():
            if p.grad is None:
                continue
            self._before[name] = (p.grad.clone(), p.clone())
            if name in self.state.importance:
                importance, anchor = self.state.importance[name].to(p.device), self.state.anchor[name].to(p.device)
                known_part(p.grad, importance).add_(2 * self.config.c * importance * known_part(p - anchor, importance))

    def after_step(self, batch: Batch) -> None:
        for name, p in self.trainable().items():
            if name in self._before:
                gradient, before = self._before[name]
                path = self.state.path[name]
                path -= (gradient * (p - before)).to(path.device)

    def end_task(self, task: Task) -> None:
        for name, p in self.trainable().items():
            change = p.detach() - self.state.anchor[name].to(p.device)
            new = self.state.path[name].to(p.device).relu() / (change.square() + self.config.xi)
            old = self.state.importance.get(name)
            self.state.importance[name] = new if old is None else new + padded(old, p)
