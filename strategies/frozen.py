"""The frozen upstream model: the reference for what later tasks lose, and win, by training at all."""

from __future__ import annotations

from clbench.phase import Phase
from clbench.strategy import Needs, Strategy
from clbench.stream import Task


class Frozen(Strategy):
    """Train on the first task, and never again: the reference that forgets nothing and learns nothing new.

    Its scores of later tasks are those of the upstream model: what a method must beat to have adapted, and to have
    transferred anything forward. Outputs that later tasks add stay as they were added.
    """

    needs = Needs()

    def phases(self, task: Task) -> list[Phase]:
        return [self.phase("upstream", task.train)] if task.index == 0 else []
