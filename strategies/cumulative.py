"""Cumulative training: an oracle that keeps all data."""

from __future__ import annotations

from clbench.phase import Phase
from clbench.strategy import Needs, Strategy
from clbench.stream import Task


class Cumulative(Strategy):
    """At each task, continue training on the data of all tasks so far: replay of everything.

    Weights are carried on, unlike in `joint`. Epochs count passes over the union, so later tasks take more steps;
    with `steps` set, each task takes that many.
    """

    needs = Needs(sees_all_data=True)

    def phases(self, task: Task) -> list[Phase]:
        return [self.phase("cumulative", self.seen_samples())]
