"""Joint training: the upper reference."""

from __future__ import annotations

from clbench.phase import Phase
from clbench.strategy import Needs, Strategy
from clbench.stream import Task


class Joint(Strategy):
    """Train once, from the initial weights, on the data of all tasks together: the upper reference.

    Nothing is trained before the last task, where one phase runs over the union of all tasks' data; every evaluation
    before it is of the initial weights. With `steps` set, it takes that many for each task of the stream. Published
    "joint" numbers of one benchmark differ by points with the recipe: compare with a run of equal settings.
    """

    needs = Needs(sees_all_data=True, knows_horizon=True)

    def phases(self, task: Task) -> list[Phase]:
        if not self.is_last_task():
            return []
        steps = self.config.steps and self.config.steps * (task.index + 1)
        return [self.phase("joint", self.all_samples(), steps=steps)]
