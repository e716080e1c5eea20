"""What the methods share that mix tasks by the losses they see on validation data."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch

from clbench.config import setting
from clbench.mixtures import Policy
from clbench.phase import Phase
from clbench.samples import Batch, Samples
from clbench.strategy import Needs, Strategy
from clbench.stream import Task


class GuidedMixture(Strategy):
    """From the second task on, batches hold samples of the current task and of all earlier ones, by a policy.

    Every `observe_every` steps of such a phase the mean loss on validation data of every task seen is measured (in
    eval mode; counted as training), and the policy is told. The data of a stream's evaluation sets are never read. What
    was observed and decided is in the record: `diagnostics`.
    """

    class Config(Strategy.Config):
        observe_every: int = setting(100, "steps between observations of the losses", source="clbench", ge=1)
        blocks: int = setting(
            64, "validation samples of each task an observation reads, at most", source="clbench", ge=1
        )

    needs = Needs(stores_samples=True)
    plans_ahead = True
    checked_on: ClassVar[dict[str, Any]] = {"validation": 0.2}
    looks_first: ClassVar[bool] = False
    """Whether the losses before a phase's first step are an observation, too."""

    @abstractmethod
    def policy(self, task: Task, earlier: dict[str, Samples]) -> Policy:
        """A new policy for a task's phase, whose domains are the task and those before it, in this order."""

    def current(self, task: Task) -> Samples:
        """The current task's samples, in the order in which they may be read."""
        return task.train

    def setup(self) -> None:
        self.selection_samples()  # refuses a stream that keeps none
        self.state.steps = 0
        self.state.history = []

    def phases(self, task: Task) -> list[Phase]:
        earlier = self.earlier_samples()
        if not earlier:
            return [self.phase("train", task.train)]
        sources = {task.name: self.current(task), **earlier}
        mixture = self.policy(task, earlier)
        return [self.phase("mixture", task.train, sources=sources, mixture=mixture, begin=self.begin)]

    def begin(self) -> None:
        self.state.steps = 0
        self.state.history = []
        if self.looks_first:
            self.look()

    def after_step(self, batch: Batch) -> None:
        if self.mixture is None:
            return
        self.state.steps += 1
        if self.state.steps % self.config.observe_every == 0:
            self.look()

    def look(self) -> None:
        """Measure the losses, tell the policy, and keep both."""
        assert self.mixture is not None
        losses = {name: self.selection_loss(samples) for name, samples in self.selection_samples().items()}
        self.mixture.observe(self.state.steps, losses)
        weights = self.mixture.weights(self.state.steps)
        self.state.history = [*self.state.history, {"step": self.state.steps, "losses": losses, "weights": weights}]

    def selection_loss(self, samples: Samples) -> float:
        """Mean loss on at most `blocks` samples, evenly spaced."""
        n = min(self.config.blocks, len(samples))
        return float(self.sample_losses(samples.subset(torch.arange(n) * len(samples) // n)).mean())

    def diagnostics(self) -> dict[str, Any] | None:
        """The observations of the task's phase with the shares they led to, and how much was read of each task."""
        return {"mixture": self.state.history, "drawn": self.draw_counts()} if self.draw_counts() else None
