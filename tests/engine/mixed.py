"""Strategies that draw batches from several sources, and keep what they saw."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clbench.config import setting
from clbench.mixtures import FixedReplay, Policy
from clbench.mixtures.policy import Reading
from clbench.samples import Pool
from clbench.strategy import Batch, Needs, Phase, Samples, Strategy, Task


class Mixed(Strategy):
    """A share of every batch from earlier tasks; each step's numbers of samples are kept."""

    needs = Needs(stores_samples=True)

    class Config(Strategy.Config):
        share: float = setting(0.25, "share of earlier tasks", source="tests")
        order: Any = setting("shuffled", "of earlier tasks", source="tests")
        budget: Any = setting("compute_equivalent", "of the phase", source="tests")

    def setup(self) -> None:
        self.state.seen = []

    def phases(self, task: Task) -> list[Phase]:
        sources = {task.name: task.train, **self.earlier_samples()}
        policy = FixedReplay(self.config.share, self.config.order, self.config.budget)
        return [self.phase("mixed", task.train, sources=sources, mixture=policy)]

    def after_step(self, batch: Batch) -> None:
        assert batch.part is not None
        self.state.seen = [*self.state.seen, [batch.part.tolist(), batch.index.tolist()]]

    def diagnostics(self) -> dict[str, Any]:
        return self.draw_counts()


class Noisy(Policy):
    """Shares that depend on what was observed, on the step and on a draw at the phase's start."""

    def reset(self, domains: Any, current: str, generator: torch.Generator | None = None) -> None:
        super().reset(domains, current, generator)
        self.start = float(torch.rand((), generator=generator))
        self.total = 0.0

    def observe(self, step: int, losses: Any, tokens: int = 0) -> None:
        self.total += sum(losses.values())

    def weights(self, step: int) -> dict[str, float]:
        share = (self.start + 0.1 * self.total + 0.01 * step) % 1 if self.others else 0.0
        return {self.current: 1 - share, **{name: share / len(self.others) for name in self.others}}

    def reading(self, domain: str) -> Reading:
        return Reading(take=7) if domain == self.current else Reading("in_order")

    def state_dict(self) -> dict[str, Any]:
        return {"start": self.start, "total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start, self.total = state["start"], state["total"]


class Guided(Mixed):
    """The same with a policy that has a state, told the loss of every step."""

    checked_on = {"validation": 0.2}

    def phases(self, task: Task) -> list[Phase]:
        sources = {task.name: task.train, **self.earlier_samples()}
        return [self.phase("mixed", task.train, sources=sources, mixture=Noisy())]

    def after_step(self, batch: Batch) -> None:
        super().after_step(batch)
        assert self.mixture is not None
        losses = {name: float(self.sample_losses(s).mean()) for name, s in self.selection_samples().items()}
        self.mixture.observe(len(self.state.seen), losses)


class LeftOut(Mixed):
    """One source is left to the strategy."""

    def phases(self, task: Task) -> list[Phase]:
        sources = {"current": task.train, "mine": None}
        return [self.phase("mixed", task.train, sources=sources, mixture=FixedReplay(self.config.share))]

    def loss(self, batch: Batch) -> Tensor:
        assert len(batch.whole) + batch.whole.left_out in (8, 4)
        return super().loss(batch)


class OwnPool(Mixed):
    """The second source has rows of its own: copies of the task's."""

    def phases(self, task: Task) -> list[Phase]:
        rows = task.train.index
        copies = Samples(Pool(task.train.pool.inputs[rows].clone(), task.train.labels.clone()))
        sources = {"current": task.train, "copies": copies}
        return [self.phase("mixed", task.train, sources=sources, mixture=FixedReplay(self.config.share))]

    def loss(self, batch: Batch) -> Tensor:
        assert batch.part is not None and len(batch.part) == len(batch.x) == len(batch.raw)
        assert set(batch.index[batch.part == 1].tolist()) <= set(range(60))
        return super().loss(batch)


class Undeclared(Mixed):
    """Reads earlier data without saying so."""

    needs = Needs()
