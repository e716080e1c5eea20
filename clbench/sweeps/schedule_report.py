"""How well a sweep kept its workers busy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Busy:
    """A run's time in a worker: seconds since the engine was started."""

    start: float
    end: float


@dataclass(frozen=True)
class Occupation:
    """Of `lanes` workers over `wall` seconds: what runs took, what waited for no reason, what had nothing left to do.

    lanes * wall = busy + overhead + tail, all in seconds.
    """

    lanes: int
    wall: float
    busy: float
    overhead: float
    tail: float

    @property
    def overhead_share(self) -> float | None:
        """Overhead as a share of the runs' time; None where there was none."""
        return self.overhead / self.busy if self.busy > 0 else None

    def as_dict(self) -> dict[str, float | int | None]:
        values = {key: round(getattr(self, key), 4) for key in ("wall", "busy", "overhead", "tail")}
        share = self.overhead_share
        return {"lanes": self.lanes, **values, "overhead_share": None if share is None else round(share, 5)}


def occupation(runs: list[Busy], lanes: int, wall: float) -> Occupation:
    """lanes: jobs at a time; wall: seconds from the engine's start to its end.

    Once the last run has begun, a lane without work waits for the others: that is the tail. Idle time before it is
    overhead: starting workers, handing over jobs and results, ending workers. Fewer runs than lanes leave lanes empty.
    """
    lanes = max(1, min(lanes, len(runs)))
    busy = sum(run.end - run.start for run in runs)
    last = max((run.start for run in runs), default=0.0)
    after = sum(max(0.0, run.end - max(run.start, last)) for run in runs)
    tail = max(0.0, lanes * (max((run.end for run in runs), default=wall) - last) - after)
    return Occupation(lanes, wall, busy, max(0.0, lanes * wall - busy - tail), tail)
