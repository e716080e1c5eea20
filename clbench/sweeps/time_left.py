"""How long a sweep will still take: from estimates at first, from what was measured as soon as there is something."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from clbench.sweeps.job import Ended, Event, Job, Progress, Started

ENOUGH = 0.05


class TimeLeft:
    """Follows the events of a sweep. seconds: estimates by job number, where there are any.

    A job is expected to take as long as those of the same strategy, stream and settings have taken; else as estimated,
    corrected by how far estimates have been off so far; else as long as its own progress suggests; else as the mean of
    what has ended, or of what the others' progress suggests.
    """

    def __init__(self, jobs: Sequence[Job], lanes: int, seconds: Mapping[int, float] | None = None) -> None:
        self.lanes = max(1, lanes)
        self._cells = {job.number: _cell(job) for job in jobs}
        self._estimates = dict(seconds or {})
        self._left = dict.fromkeys(self._cells, 0.0)
        self._begun: dict[int, float] = {}
        self._taken: dict[int, float] = {}

    def event(self, event: Event) -> None:
        if isinstance(event, Started):
            self._begun[event.job] = time.perf_counter()
        elif isinstance(event, Progress):
            self._left[event.job] = event.fraction
        elif isinstance(event, Ended) and event.job in self._left:
            del self._left[event.job]
            self._begun.pop(event.job, None)
            if event.status == "completed":
                self._taken[event.job] = event.seconds

    def seconds(self) -> float | None:
        """None where nothing is known of what is left."""
        now = time.perf_counter()
        remaining = []
        for number, fraction in self._left.items():
            expected = self._expected(number, now)
            if expected is None:
                return None
            remaining.append(expected * (1 - fraction))
        return max(sum(remaining) / min(self.lanes, len(remaining)), max(remaining)) if remaining else 0.0

    def _expected(self, number: int, now: float) -> float | None:
        cell = [taken for other, taken in self._taken.items() if self._cells[other] == self._cells[number]]
        if cell:
            return sum(cell) / len(cell)
        if number in self._estimates:
            return self._estimates[number] * self._correction()
        own = self._projected(number, now)
        if own is not None:
            return own
        known = list(self._taken.values())
        known = known or [value for other in self._begun if (value := self._projected(other, now)) is not None]
        return sum(known) / len(known) if known else None

    def _projected(self, number: int, now: float) -> float | None:
        """What a job's own progress suggests."""
        begun = self._begun.get(number)
        return (now - begun) / self._left[number] if begun is not None and self._left[number] >= ENOUGH else None

    def _correction(self) -> float:
        known = [number for number in self._taken if self._estimates.get(number)]
        estimated = sum(self._estimates[number] for number in known)
        return sum(self._taken[number] for number in known) / estimated if estimated else 1.0


def _cell(job: Job) -> str:
    """What runs that differ in seeds only have in common."""
    return job.spec.model_copy(update={"seed": 0, "order_seed": 0}).hash()
