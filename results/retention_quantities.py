"""What claims may ask of runs on image-text streams: accumulation and retention, from a run's record alone.

In percent points. KA, ZS and GM are those of docs/metrics.md; `over_stream` has them at every task end, entry 0 before
training.
"""

from __future__ import annotations

import math
from typing import Protocol

from clbench.record import Record


class Recorded(Protocol):
    """A run that is done."""

    @property
    def record(self) -> Record: ...


def accumulation(run: Recorded) -> float:
    """KA after the last task."""
    return _metric(run, "knowledge_accumulation")


def retention(run: Recorded) -> float:
    """ZS after the last task."""
    return _metric(run, "zero_shot_retention")


def balance(run: Recorded) -> float:
    """GM, the geometric mean of KA and ZS, after the last task."""
    return _metric(run, "geometric_mean")


def accumulation_on_the_way(run: Recorded) -> float:
    """KA, the mean over the task ends."""
    return _metric(run, "knowledge_accumulation_over_stream")


def retention_on_the_way(run: Recorded) -> float:
    """ZS, the mean over the task ends."""
    return _metric(run, "zero_shot_retention_over_stream")


def balance_on_the_way(run: Recorded) -> float:
    """GM, the mean over the task ends."""
    return _metric(run, "geometric_mean_over_stream")


def accumulation_gain(run: Recorded) -> float:
    """KA after the last task minus KA before training."""
    return _metric(run, "knowledge_accumulation_change")


def retention_gain(run: Recorded) -> float:
    """ZS after the last task minus ZS before training."""
    return _metric(run, "zero_shot_retention_change")


def best_retention_gain(run: Recorded) -> float:
    """The highest ZS at a task end minus ZS before training."""
    before, *later = (entry["zero_shot_retention"] for entry in run.record["metrics"]["over_stream"])
    return 100 * (max(later) - before)


def forgotten(run: Recorded) -> float:
    """Score on a task's own set when just learned minus the last one, the mean over all tasks but the last."""
    return _metric(run, "forgetting_signed")


def learned_when_new(run: Recorded) -> float:
    """Mean score of each task's own set just after it was learned."""
    return _metric(run, "learning")


def effective_rank(run: Recorded) -> float:
    """Components that stay, the mean over layers and tasks."""
    told = [entry["values"].get("effective_rank") for entry in run.record.get("diagnostics") or ()]
    ranks = [rank for layers in told if layers for rank in layers.values()]
    return math.fsum(ranks) / len(ranks) if ranks else math.nan


POINTS = (
    accumulation,
    retention,
    balance,
    accumulation_on_the_way,
    retention_on_the_way,
    balance_on_the_way,
    accumulation_gain,
    retention_gain,
    best_retention_gain,
    forgotten,
    learned_when_new,
)
"""Quantities in percent points."""


def _metric(run: Recorded, name: str) -> float:
    value = run.record["metrics"].get(name)
    return math.nan if value is None else 100 * float(value)
