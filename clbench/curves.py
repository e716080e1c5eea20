"""Curves over several runs, for figures and pages: each set's score over the steps, and the change after every switch.

A curve keeps the runs' values at common steps; mean, interval, median and quartiles are computed when asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clbench.statistics import student_quantile
from clbench.traces import Line, Trace, read_trace

Array = NDArray[Any]

FEWEST = 3  # runs for an interval: of two, Student's t is 9 times as wide as their range


@dataclass(eq=False)
class Curve:
    """Values of several runs at common steps. values: [runs, steps], float64; the properties: a float for each step."""

    steps: list[int]
    values: Array

    @cached_property
    def mean(self) -> list[float]:
        """Mean over the runs."""
        return self._list(self.values.mean(axis=0))

    @property
    def low(self) -> list[float]:
        """Lower end of the band: of the 95 % interval of the mean (Student's t, each step for itself) from three runs
        on; the smaller value of two runs; the value of one."""
        return self._list(self._band[0])

    @property
    def high(self) -> list[float]:
        """Upper end of the band."""
        return self._list(self._band[1])

    @cached_property
    def median(self) -> list[float]:
        """Median over the runs."""
        return self._list(np.median(self.values, axis=0))

    @cached_property
    def quartiles(self) -> tuple[list[float], list[float]]:
        """Lower and upper quartile over the runs (linear interpolation)."""
        low, high = np.quantile(self.values, (0.25, 0.75), axis=0)
        return self._list(low), self._list(high)

    @property
    def smallest(self) -> list[float]:
        """Smallest value of the runs."""
        return self._list(self.values.min(axis=0))

    @property
    def largest(self) -> list[float]:
        """Largest value of the runs."""
        return self._list(self.values.max(axis=0))

    @cached_property
    def _band(self) -> tuple[Array, Array]:
        runs = len(self.values)
        if runs < FEWEST:
            return self.values.min(axis=0), self.values.max(axis=0)
        center = self.values.mean(axis=0)
        reach = student_quantile(runs - 1) * self.values.std(axis=0, ddof=1) / math.sqrt(runs)
        return center - reach, center + reach

    @staticmethod
    def _list(values: Array) -> list[float]:
        return list(values.tolist())


@dataclass
class GroupCurves:
    """The curves of runs with one strategy and its settings.

    owners: set -> index of its task, None where it is held out. scores: set -> raw value over all steps.
    changes: switch -> mean change of the old tasks' sets since it (0 at the switch, negative: worse), over the steps
    since it. held_out_changes: the same for held-out sets. start, ends: steps at which training begins and the tasks
    of the first run end. by_place: sets bear the names of the first run, since others learned them in another order.
    roles: set -> role, of the sets that have one.
    """

    owners: dict[str, int | None]
    scores: dict[str, Curve]
    changes: dict[int, Curve]
    held_out_changes: dict[int, Curve]
    ends: tuple[int, ...]
    start: int
    runs: int = 1
    by_place: bool = False
    roles: dict[str, str] = field(default_factory=dict)

    @cached_property
    def average(self) -> Curve | None:
        """Mean score over the tasks begun so far (over the sets of each task first), at the steps where all of these
        are scored; None where nothing is."""
        by_task = [
            [self.scores[name] for name, owner in self.owners.items() if owner == task and name in self.scores]
            for task in range(len(self.ends))
        ]
        pieces = []
        for task, (begin, end) in enumerate(zip((self.start, *self.ends), self.ends, strict=False)):
            groups = [curves for curves in by_task[: task + 1] if curves]
            if piece := _average(groups, begin, end):
                pieces.append(piece)
        if not pieces or len({len(values) for _, values in pieces}) > 1:
            return None
        steps = np.concatenate([steps for steps, _ in pieces])
        return Curve(steps.tolist(), np.concatenate([values for _, values in pieces], axis=1))


def group_curves(folders: Sequence[Path], direction: str) -> GroupCurves:
    """Curves over the runs in these folders, of the primary metric and the weights that the metrics use.

    Each run is put onto the sets and steps of the first one: sets by when they were learned; steps task by task where
    tasks have other lengths, and by linear interpolation where it was not scored there.
    Raises UserError where a table is missing or damaged.
    """
    return over_runs([read_trace(folder, direction) for folder in folders])


def over_runs(traces: Sequence[Trace]) -> GroupCurves:
    """The curves of one run or more, on the sets and steps of the first."""
    first = traces[0]
    by_place = any(trace.owners != first.owners for trace in traces)
    traces = [_like(trace, first) for trace in traces]
    switches = range(len(first.ends))
    return GroupCurves(
        owners=dict(first.owners),
        scores=_curves(first.owners, [trace.scores for trace in traces]),
        changes=_curves(switches, [trace.changes for trace in traces]),
        held_out_changes=_curves(switches, [trace.held_out_changes for trace in traces]),
        ends=first.ends,
        start=first.start,
        runs=len(traces),
        by_place=by_place,
        roles=dict(first.roles),
    )


def _like(trace: Trace, first: Trace) -> Trace:
    """A run of another task order under the names and on the steps of the first run; changes since a switch stay."""
    knots = _knots(trace, first)
    if knots is None and trace.owners == first.owners:
        return trace
    names = _names(trace.owners, first.owners)
    scores = {names[name]: line for name, line in trace.scores.items() if name in names}
    if knots is not None:
        scores = {name: Line(np.interp(line.steps, *knots), line.values) for name, line in scores.items()}
    return replace(trace, scores=scores)


def _names(owners: dict[str, int | None], wanted: dict[str, int | None]) -> dict[str, str]:
    """For each set the set in the same place of `wanted`: the same held-out one, or the next one of the same task."""
    found = {name: name for name, owner in owners.items() if owner is None and wanted.get(name, 0) is None}
    for task in {owner for owner in owners.values() if owner is not None}:
        here, there = ([name for name, owner in of.items() if owner == task] for of in (owners, wanted))
        found |= dict(zip(here, there, strict=False))
    return found


def _knots(trace: Trace, first: Trace) -> tuple[list[float], list[float]] | None:
    """Steps of a run and the steps of the first run to put them on: the beginning of each task (half of the shorter
    one) step by step, so that what follows a switch keeps its pace, and the rest stretched to the task's end.

    None where tasks end at equal steps, or where they cannot be matched.
    """
    places, wanted = (trace.start, *trace.ends), (first.start, *first.ends)
    lengths = [np.diff(places), np.diff(wanted)]
    if places == wanted or len(places) != len(wanted) or any((length <= 0).any() for length in lengths):
        return None
    half = np.minimum(*lengths) / 2
    knots = [np.sort(np.concatenate([steps, np.asarray(steps[:-1]) + half])) for steps in (places, wanted)]
    return knots[0].tolist(), knots[1].tolist()


def _curves(keys: Any, runs: Sequence[dict[Any, Line]]) -> dict[Any, Curve]:
    found = {key: _curve([lines[key] for lines in runs if key in lines]) for key in keys}
    return {key: curve for key, curve in found.items() if curve}


def _curve(lines: Sequence[Line]) -> Curve | None:
    """On the steps of the first line that all cover, and the last step that they do."""
    if not lines:
        return None
    first, last = max(line.steps[0] for line in lines), min(line.steps[-1] for line in lines)
    steps = lines[0].steps
    steps = steps[(steps >= first) & (steps <= last)]
    if first <= math.floor(last):
        steps = np.union1d(steps, [math.floor(last)])
    if not len(steps):
        return None
    return Curve(steps.tolist(), np.stack([np.interp(steps, line.steps, line.values) for line in lines]))


def _average(tasks: Sequence[Sequence[Curve]], begin: int, end: int) -> tuple[Array, Array] | None:
    """Steps in (begin, end] at which every set is scored, and the values [runs, steps] averaged over sets and tasks."""
    curves = [curve for sets in tasks for curve in sets]
    if not curves or len({len(curve.values) for curve in curves}) > 1:
        return None
    first = max(begin + 1, *(curve.steps[0] for curve in curves))
    last = min(end, *(curve.steps[-1] for curve in curves))
    steps = np.array(sorted({step for curve in curves for step in curve.steps if first <= step <= last}))
    if not len(steps):
        return None
    means = [np.mean([_at(curve, steps) for curve in sets], axis=0) for sets in tasks]
    return steps, np.mean(means, axis=0)


def _at(curve: Curve, steps: Array) -> Array:
    known = np.asarray(curve.steps)
    places = np.searchsorted(known, steps)
    if np.array_equal(known[np.minimum(places, len(known) - 1)], steps):
        return curve.values[:, places]
    return np.stack([np.interp(steps, curve.steps, values) for values in curve.values])
