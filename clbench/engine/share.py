"""How much of a run is done, in the units of its training data."""

from __future__ import annotations

from collections.abc import Sequence


class RunShare:
    """The share of a run's training that is done, 0 to 1, and never less than before.

    sizes: training samples of each task. A task counts for its share of them, a phase's steps for their share of it.
    """

    def __init__(self, sizes: Sequence[float] = (1.0,)) -> None:
        total = sum(sizes) or 1.0
        self.weights = [size / total for size in sizes] or [1.0]
        self.reached = 0.0

    @property
    def tasks(self) -> int:
        return len(self.weights)

    def enter(self, task: int) -> None:
        """A task begins: all before it is done."""
        self._reach(sum(self.weights[: max(0, task)]))

    def step(self, task: int, step: int, length: int) -> None:
        """`step` of a phase's `length` steps are done."""
        here = self.weights[min(task, self.tasks - 1)] * step / max(1, length)
        self._reach(sum(self.weights[:task]) + here)

    def _reach(self, share: float) -> None:
        self.reached = min(1.0, max(self.reached, share))
