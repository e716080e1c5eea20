"""Time left, on a clock of our own."""

from __future__ import annotations

import pytest

from clbench.sweeps import time_left
from clbench.sweeps.job import Ended, Progress, Started
from clbench.sweeps.time_left import TimeLeft

from .small_jobs import small_job


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(time_left.time, "perf_counter", lambda: now[0])
    return now


def done(number: int, seconds: float) -> Ended:
    return Ended(number, "completed", None, None, seconds)


def test_nothing_is_known_at_first_then_progress_tells(clock: list[float]) -> None:
    left = TimeLeft([small_job(1), small_job(2, "replay")], 1)
    assert left.seconds() is None
    left.event(Started(1, "here"))
    clock[0] = 4.0
    left.event(Progress(1, 0.25, "task 1"))
    assert left.seconds() == pytest.approx(12 + 16), "16 s for the first, and as much for the other"


def test_what_was_measured_of_the_same_kind_counts_most(clock: list[float]) -> None:
    jobs = [small_job(1), small_job(2, seed=1), small_job(3, "replay"), small_job(4, "replay", seed=1)]
    left = TimeLeft(jobs, 2, {1: 10.0, 2: 10.0, 3: 30.0, 4: 30.0})
    assert left.seconds() == pytest.approx(80 / 2)
    left.event(done(1, 20.0))
    assert left.seconds() == pytest.approx((20 + 60 + 60) / 2), "estimates were half of what it takes"
    left.event(done(3, 9.0))
    assert left.seconds() == pytest.approx(20), "two at a time: no quicker than the longer one"
    left.event(Ended(2, "failed", None, "why", 0.1))
    assert left.seconds() == pytest.approx(9)
    left.event(done(4, 9.0))
    assert left.seconds() == 0.0
