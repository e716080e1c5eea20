"""Riemannian walk."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from clbench.config import setting
from clbench.growing import known_part, padded
from clbench.samples import Batch
from clbench.strategy import Strategy
from clbench.stream import Task


class RWalk(Strategy):
    """Hold weights near their values by a running Fisher and by what moving them has gained (Riemannian walk).

    Chaudhry et al. 2018 (arXiv 1801.10112). With g the gradient of a step's data loss: the Fisher is a moving average,
    F <- alpha g^2 + (1 - alpha) F (EWC++), carried over all tasks. Every `delta_t` steps each weight scores the drop
    of the loss on its path per distance walked, s += -sum g (change of theta) / (1/2 F (distance)^2 + epsilon). At a
    task's end its score is averaged with that of the tasks before, and the penalty is
    lambda sum_i (F_i / max F + max(0, s_i) / max s) (theta_i - theta*_i)^2. Its gradient is added after the backward
    pass, so that g is free of it. A last stretch shorter than `delta_t` is scored as well.

    As in Avalanche, g is the mean gradient of the batch and alpha weighs what is new (FACIL: what is old). Avalanche
    takes a second forward and backward pass in eval mode for g; here it is that of the step itself. FACIL normalises
    neither term. Class-incremental results of the paper are with stored samples, which this strategy does not keep.
    The study of code models (Weyssow et al. 2023, arXiv 2305.04106) uses lambda 0.1, alpha 0.9 and delta_t 2.

    `form=official` is what the authors released later (facebookresearch/agem, there with lambda 1): the Fisher takes
    up the mean of g^2 over each stretch, after the stretch is scored; stretches that raised the loss score nothing;
    what is left of a stretch at a task's end is dropped. Its damping, 1e-3 without the 1/2, is epsilon=5e-4 here. It
    also adds the average of old and new scores to the old ones instead of replacing them, which is not followed.
    """

    paper = "Chaudhry et al. 2018, ECCV (arXiv 1801.10112)"

    class Config(Strategy.Config):
        rwalk_lambda: float = setting(
            0.1,
            "strength of the penalty",
            source="Avalanche, whose author took it from the paper's appendix; arXiv 2305.04106; official code: 1",
            ge=0,
        )
        alpha: float = setting(0.9, "weight of a step's squared gradient", source="arXiv 1801.10112", gt=0, le=1)
        delta_t: int = setting(
            10, "steps between two scores", source="Avalanche RWalkPlugin; arXiv 2305.04106: 2", ge=1
        )
        epsilon: float = setting(1e-7, "damping of the scores", source="Avalanche: float32's precision, 1.2e-7", gt=0)
        form: Literal["paper", "official"] = setting(
            "paper",
            "Fisher and scores as in the paper, or as in the authors' later code",
            source="arXiv 1801.10112; official code: facebookresearch/agem",
        )

    def setup(self) -> None:
        state = self.state
        state.fisher, state.scores, state.importance, state.anchor = {}, {}, {}, {}
        state.score, state.gain, state.start, state.squares = {}, {}, {}, {}
        state.steps = 0
        self._before: dict[str, tuple[Tensor, Tensor]] = {}

    def begin_task(self, task: Task) -> None:
        self.state.steps = 0
        for name, p in self.trainable().items():
            self.state.score[name] = torch.zeros_like(p)
            self._start_stretch(name, p)

    @torch.no_grad()
    def after_backward(self, batch: Batch) -> None:
        """Take up the data's gradient, then add the penalty's."""
        self._before = {}
        for name, p in self.trainable().items():
            if p.grad is None:
                continue
            self._before[name] = (p.grad.clone(), p.clone())
            self._see(name, p.grad.square())
            if name in self.state.importance:
                importance, anchor = self.state.importance[name].to(p.device), self.state.anchor[name].to(p.device)
                pull = importance * (known_part(p, anchor) - anchor)
                known_part(p.grad, importance).add_(2 * self.config.rwalk_lambda * pull)

    def _see(self, name: str, squared: Tensor) -> None:
        """Take up a step's squared gradient: into the Fisher, or into the mean over its stretch."""
        if self.config.form == "paper":
            self._average_in(name, squared)
        else:
            self.state.squares[name] = self.state.squares[name].to(squared.device) + squared / self.config.delta_t

    def _average_in(self, name: str, new: Tensor) -> None:
        old, alpha = self.state.fisher.get(name), self.config.alpha
        if old is None and self.config.form == "official":
            old = torch.zeros_like(new)
        self.state.fisher[name] = new if old is None else alpha * new + (1 - alpha) * padded(old, new)

    def after_step(self, batch: Batch) -> None:
        for name, p in self.trainable().items():
            if name in self._before:
                gradient, before = self._before[name]
                gain = self.state.gain[name]
                gain -= (gradient * (p - before)).to(gain.device)
        self.state.steps += 1
        if self.state.steps % self.config.delta_t == 0:
            self._score_stretch()

    def _score_stretch(self) -> None:
        """Add what each weight gained since the last score, and start anew from here."""
        official = self.config.form == "official"
        for name, p in self.trainable().items():
            gain, start, score = (t[name].to(p.device) for t in (self.state.gain, self.state.start, self.state.score))
            fisher = self.state.fisher.get(name)
            distance = 0.0 if fisher is None else padded(fisher, p) * (p.detach() - start).square() / 2
            gained = gain / (distance + self.config.epsilon)
            self.state.score[name] = score + (gained.relu() if official else gained)
            if official:
                self._average_in(name, self.state.squares[name])
            self._start_stretch(name, p)

    def _start_stretch(self, name: str, p: Tensor) -> None:
        self.state.start[name] = p.detach().clone()
        self.state.gain[name] = torch.zeros_like(p)
        if self.config.form == "official":
            self.state.squares[name] = torch.zeros_like(p)

    def end_task(self, task: Task) -> None:
        if self.config.form == "paper":
            self._score_stretch()
        fisher, scores = self.state.fisher, self.state.scores
        for name, p in self.trainable().items():
            old, new = scores.get(name), self.state.score[name].to(p.device)
            scores[name] = new if old is None else (padded(old, p) + new) / 2
            self.state.anchor[name] = p.detach().clone()
        highest_fisher, highest_score = _highest(fisher), _highest(scores)
        for name in fisher:
            positive = scores[name].relu()
            self.state.importance[name] = padded(fisher[name], positive) / highest_fisher + positive / highest_score


def _highest(values: dict[str, Tensor]) -> float:
    """The largest of all entries; 1 where none is positive."""
    highest = max((float(value.max()) for value in values.values() if value.numel()), default=0.0)
    return highest if highest > 0 else 1.0
