"""What claims may ask of a run, from its record and its evaluation table alone. Here of language models, losses in
nats, lower is better; of images and texts see `retention_quantities`.

A set is named as in the record. Without one, the mean over the sets of the tasks in question. M[k][d] is the loss of
set d on the whole set at the end of task k; d is learned in task e.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from retention_quantities import POINTS, effective_rank

from clbench.errors import UserError
from clbench.metrics.gap import TOLERANCE, Gap, measure_gap, measure_gaps, measure_new_gaps
from clbench.metrics.report import main_view
from clbench.metrics.view import Undefined, View, mean
from clbench.record import Record
from clbench.table import EvaluationTable, Row

TABLE = "evaluations.parquet"
ROUNDING = 1e-12  # of shares of a task


class NoValue(Exception):
    """A run has no such quantity; the message says why."""


@dataclass
class Run:
    """A run that is done. notes: what the values that were asked for leave open."""

    folder: Path
    record: Record

    def __post_init__(self) -> None:
        self.notes: list[str] = []

    @cached_property
    def view(self) -> View:
        """Its table, as the metrics read it: at a task that ends in an anneal, the annealed model."""
        return main_view(EvaluationTable.read(self.folder / TABLE), self.record["stream"]["direction"])

    @cached_property
    def gaps(self) -> list[Gap]:
        return measure_gaps(self.view)

    @cached_property
    def new_gaps(self) -> list[Gap]:
        return measure_new_gaps(self.view)

    @property
    def tasks(self) -> int:
        return self.view.tasks

    def loss(self, after: int, name: str) -> float:
        """M[after][name]. Raises NoValue where it was not measured, or diverged."""
        self.owner(name)
        try:
            return self.view.sign * self.view.at(after + 1, name)
        except Undefined as reason:
            raise NoValue(str(reason)) from None

    def owner(self, name: str) -> int | None:
        """The task that learns a set; None: none does. Raises NoValue for a set the run does not have."""
        sets = self.view.structure.sets
        if name not in sets:
            raise NoValue(f"no evaluation set {name!r}; there are {', '.join(sets)}")
        return sets[name]

    def learned_in(self, name: str) -> int:
        """The same of a set that is learned."""
        owner = self.owner(name)
        if owner is None:
            raise NoValue(f"set {name!r} is held out")
        return owner

    def sets(self, first: int = 0, last: int | None = None) -> list[str]:
        """Sets of the tasks first <= e < last (all)."""
        last = self.tasks if last is None else last
        return [d for d, e in self.view.structure.sets.items() if e is not None and first <= e < last]

    def inside(self, task: int, name: str) -> list[tuple[int, float]]:
        """(steps since the switch, loss) on the fixed subset, after the first update of a task to its last."""
        self.owner(name)
        start = self.view.structure.end(task - 1)
        rows = self.view.inside.get((task, name), [])
        return [(row.step - start, row.value) for row in rows if row.value is not None]

    def length(self, task: int) -> int:
        """Steps of a task."""
        return self.view.structure.end(task) - self.view.structure.end(task - 1)


# -- losses at the ends of tasks ---------------------------------------------------------------------------------------


def final(run: Run, name: str | None = None) -> float:
    """M[last][d]; without a set, the mean over all that are learned."""
    return _mean(lambda d: run.loss(run.tasks - 1, d), [name] if name else run.sets())


def after(run: Run, task: float, name: str) -> float:
    """M[task][d]."""
    return run.loss(int(task), name)


def learned(run: Run, name: str | None = None) -> float:
    """M[e][d], just after its own task."""
    return _mean(lambda d: run.loss(run.learned_in(d), d), [name] if name else run.sets())


def forgetting(run: Run, name: str | None = None) -> float:
    """M[last][d] - M[e][d], signed: positive is worse; without a set, the mean over all but the last task's."""
    return _mean(
        lambda d: run.loss(run.tasks - 1, d) - run.loss(run.learned_in(d), d),
        [name] if name else run.sets(0, run.tasks - 1),
    )


def adaptation(run: Run, name: str | None = None) -> float:
    """M[e-1][d] - M[e][d]: what its own task won; without a set, the mean over all but the first task's."""
    return _mean(
        lambda d: run.loss(run.learned_in(d) - 1, d) - run.loss(run.learned_in(d), d),
        [name] if name else run.sets(1),
    )


def backward(run: Run) -> float:
    """Mean of M[k][d] over k > e (TiC-LM)."""
    return _mean(
        lambda pair: run.loss(*pair), [(k, d) for d in run.sets() for k in range(run.learned_in(d) + 1, run.tasks)]
    )


def diagonal_share(run: Run) -> float:
    """Share of the learned sets d whose smallest M[k][d] over k is that at k = e."""
    sets = run.sets()
    best = [min(range(run.tasks), key=lambda k, d=d: run.loss(k, d)) for d in sets]  # type: ignore[misc]
    return sum(k == run.learned_in(d) for k, d in zip(best, sets, strict=True)) / len(sets)


# -- the gap after a switch --------------------------------------------------------------------------------------------


def depth(run: Run, name: str | None = None, switch: float | None = None) -> float:
    """Largest loss above that at the switch."""
    return _gap(run, "depth", name, switch)


def area(run: Run, name: str | None = None, switch: float | None = None) -> float:
    """Area of the loss above that at the switch."""
    return _gap(run, "area", name, switch)


def transient(run: Run, name: str | None = None, switch: float | None = None) -> float:
    """The part of the depth that came back by the task's end."""
    return _gap(run, "transient", name, switch)


def tolerance(run: Run, name: str | None = None, switch: float | None = None) -> float:
    """What a depth must exceed to be one: max(0.01, 2 standard errors of the paired difference at the trough)."""
    return _gap(run, "tolerance", name, switch)


def recovery(run: Run, name: str | None = None, switch: float | None = None) -> float:
    """Steps to recovery; of what did not recover, those it was watched for."""
    return _gap(run, "recovery_steps", name, switch)


def new_depth(run: Run, name: str) -> float:
    """The depth of the set whose own task begins: does it get worse before it gets better?"""
    found = [gap for gap in run.new_gaps if gap["eval_set"] == name]
    if not found:
        raise NoValue(f"set {name!r} was not followed in its own task")
    return _field(run, found[0], "depth")


def sampled_depth(run: Run, name: str, every: float, switch: float = 1) -> float:
    """The depth seen by evaluations at every so many steps after the switch alone, and at the task's last step."""
    interval, length = int(every), run.length(int(switch))
    return seen_depth(run, name, [*range(interval, length, interval), length], int(switch))


def seen_depth(run: Run, name: str, steps: Sequence[int], switch: int = 1) -> float:
    """The depth seen by those evaluations of the log that are at these steps after the switch."""
    view, start = run.view, run.view.structure.end(switch - 1)
    wanted = set(steps)
    rows = [row for row in view.inside.get((switch, name), []) if row.step - start in wanted]
    found = _only(view, switch, name, rows)
    return _field(run, measure_gap(found, switch, name, run.length(switch)), "depth")


# -- curves within a task ----------------------------------------------------------------------------------------------


def lead(run: Run, other: Run, name: str, share: float = 0.1) -> float:
    """The largest loss of the run above the other's at one step, within the first `share` of the set's own task."""
    task = run.learned_in(name)
    mine, theirs = dict(run.inside(task, name)), dict(other.inside(task, name))
    last = share * run.length(task) + ROUNDING
    both = [mine[step] - theirs[step] for step in mine.keys() & theirs.keys() if step <= last]
    if not both:
        raise NoValue(f"both runs were never evaluated on {name!r} in the first {share:g} of its task")
    return max(both)


def rise(run: Run, name: str, share: float = 0.0) -> float:
    """The largest loss above an earlier one in the set's own task, its first `share` left out."""
    task = run.learned_in(name)
    first = share * run.length(task) - ROUNDING
    return largest_rise([value for step, value in run.inside(task, name) if step >= first])


def largest_rise(values: Sequence[float]) -> float:
    """The largest v[j] - v[i] with i <= j: 0 where nothing rises. Raises NoValue without values."""
    if not values:
        raise NoValue("it was never evaluated there")
    lowest, found = values[0], 0.0
    for value in values:
        lowest = min(lowest, value)
        found = max(found, value - lowest)
    return found


def block_error(run: Run, other: Run, name: str) -> float:
    """Standard error of the difference between two runs' last losses, over the set's blocks."""
    from clbench.block_losses import paired_difference

    try:
        return paired_difference(run.folder, other.folder, name).se
    except UserError as error:
        raise NoValue(str(error)) from None


class Quantity(NamedTuple):
    """runs: how many of the first arguments are runs."""

    of: Callable[..., float]
    unit: str
    runs: int = 1


QUANTITIES: dict[str, Quantity] = {
    **{f.__name__: Quantity(f, "nats") for f in (final, after, learned, forgetting, adaptation, backward)},
    **{f.__name__: Quantity(f, "nats") for f in (depth, transient, tolerance, new_depth, sampled_depth, rise)},
    "area": Quantity(area, "nats x steps"),
    "recovery": Quantity(recovery, "steps"),
    "diagonal_share": Quantity(diagonal_share, "of the columns"),
    **{f.__name__: Quantity(f, "nats", runs=2) for f in (lead, block_error)},
    **{f.__name__: Quantity(f, "points") for f in POINTS},
    "effective_rank": Quantity(effective_rank, "components"),
}


def _mean(value: Callable[[Any], float], keys: Sequence[Any]) -> float:
    if not keys:
        raise NoValue("no set is in this mean: too few tasks")
    return mean(value(key) for key in keys)


def _gap(run: Run, field: str, name: str | None, switch: float | None) -> float:
    """A field of the gap of old sets; of several switches and sets the mean over the sets of a switch, then over
    switches."""
    if name is not None:
        run.owner(name)
    chosen = [
        gap
        for gap in run.gaps
        if ((name is None and not gap["held_out"]) or gap["eval_set"] == name)
        and (gap["switch"] > 0 if switch is None else gap["switch"] == switch)
    ]
    if not chosen:
        raise NoValue(f"no gap of {name or 'old sets'}" + ("" if switch is None else f" after switch {switch:g}"))
    by_switch: dict[int, list[float]] = {}
    for gap in chosen:
        by_switch.setdefault(gap["switch"], []).append(_field(run, gap, field))
    return mean(mean(values) for values in by_switch.values())


def _field(run: Run, gap: Gap, field: str) -> float:
    if gap["status"] == "diverged":
        return math.inf
    if gap["reason"]:
        raise NoValue(gap["reason"])
    if field == "recovery_steps" and gap[field] is None:
        run.notes.append(f"{gap['eval_set']} not recovered within {gap['horizon']} steps")
        return float(gap["horizon"])
    value = gap[field]
    return float(TOLERANCE if value is None and field == "tolerance" else value)


def _only(view: View, switch: int, name: str, rows: list[Row]) -> View:
    """The view with these trace rows of one set after one switch, and those at the switches."""
    kept = [row for row in view.trace.get(name, []) if row.step <= view.structure.end(switch - 1)]
    return replace(view, trace={name: [*kept, *rows]})
