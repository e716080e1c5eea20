"""Runs of a strategy written down, so that a plain loop can go through the same batches from the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from clbench.engine.session import Session
from clbench.strategy import Strategy

Weights = dict[str, Tensor]


@dataclass
class Recorded:
    """A task: its classes, the weights it started from, and of each step images, labels and noise in order."""

    classes: tuple[int, ...]
    start: Weights
    steps: list[tuple[Tensor, Tensor, list[Tensor]]] = field(default_factory=list)


def record(
    monkeypatch: pytest.MonkeyPatch, kind: type[Strategy], drive: Callable[..., Session], *arguments: Any, **more: Any
) -> tuple[Session, list[Recorded]]:
    """The session of `drive(...)`, a run of `kind`, and what its tasks were given."""
    tasks: list[Recorded] = []
    begin, loss, gaussian = kind.begin_task, kind.loss, torch.randn_like

    def begun(self: Strategy, task: Any) -> None:
        start = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        tasks.append(Recorded(tuple(task.classes), start))
        begin(self, task)

    def noted(self: Strategy, batch: Any) -> Tensor:
        tasks[-1].steps.append((batch.x.flatten(1).clone(), batch.y.clone(), []))
        return loss(self, batch)

    def drawn(like: Tensor, **options: Any) -> Tensor:
        found = gaussian(like, **options)
        tasks[-1].steps[-1][2].append(found.detach().clone())
        return found

    with monkeypatch.context() as patch:
        patch.setattr(kind, "begin_task", begun)
        patch.setattr(kind, "loss", noted)
        patch.setattr(torch, "randn_like", drawn)
        session = drive(*arguments, **more)
    return session, tasks


def grown(weights: Weights, start: Weights) -> Weights:
    """`weights` with the rows that `start` has beyond them; all of them leaves of the graph."""
    found = {}
    for name, p in start.items():
        old = weights.get(name, p[:0]).detach()
        found[name] = torch.cat([old, p[len(old) :]]).requires_grad_()
    return found
