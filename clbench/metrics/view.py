"""What the formulas read: task ends, the boundary matrix R[t][j] and the traces, more being better."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from clbench.errors import UserError
from clbench.table import Row


class Undefined(Exception):
    """A metric has no value; the message is the reason that stands in `undefined`."""


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean, independent of the order of the values; infinite where their sum is too large."""
    numbers = list(values)
    try:
        return math.fsum(numbers) / len(numbers)
    except (OverflowError, ValueError):
        return math.inf


@dataclass(frozen=True)
class Structure:
    """Tasks and sets of a table, the same for every metric in it.

    start: step before training. ends[t]: step at which task t ended. sets: set -> task index or None
    (held out). current: index of the unfinished task the trace reaches into, None if there is none. roles: set ->
    role, of the sets that have one.
    """

    start: int
    ends: tuple[int, ...]
    sets: dict[str, int | None]
    last_step: int
    current: int | None
    roles: dict[str, str] = field(default_factory=dict)

    @property
    def tasks(self) -> int:
        return len(self.ends)

    def end(self, task: int) -> int:
        """Step at which `task` ended; task -1 is the time before training."""
        return self.start if task < 0 else self.ends[task]

    @cached_property
    def by_task(self) -> dict[int, list[str]]:
        """Task index -> its sets."""
        groups: dict[int, list[str]] = {}
        for name, owner in self.sets.items():
            if owner is not None:
                groups.setdefault(owner, []).append(name)
        return groups

    @property
    def held_out(self) -> list[str]:
        """Sets of no task, those left out that the stream as a whole adapts to."""
        return [name for name, owner in self.sets.items() if owner is None and self.roles.get(name) != "adaptation"]

    def in_role(self, role: str) -> list[str]:
        return [name for name, of_set in self.roles.items() if of_set == role]


@dataclass
class View:
    """The rows of one metric and one kind of weights. `sign` is +1 where higher is better, else -1.

    trunk: boundary rows of what training goes on from, where those of the view are of an annealed branch.
    """

    structure: Structure
    sign: float
    boundary: dict[tuple[int, str], Row] = field(default_factory=dict)
    trace: dict[str, list[Row]] = field(default_factory=dict)
    trunk: dict[tuple[int, str], Row] = field(default_factory=dict)

    @property
    def tasks(self) -> int:
        return self.structure.tasks

    def score(self, row: Row) -> float:
        """s * value. Raises Undefined for null (not scorable) and for NaN or infinity (diverged)."""
        where = f"of set {row.eval_set!r} at step {row.step} (tasks_seen {row.tasks_seen})"
        if row.value is None:
            raise Undefined(f"the value {where} is null: the set could not be scored")
        if not math.isfinite(row.value):
            raise Undefined(f"the value {where} is {row.value}: training diverged")
        return self.sign * row.value

    def at(self, tasks_seen: int, eval_set: str) -> float:
        """Score of a set at the boundary after `tasks_seen` tasks."""
        row = self.boundary.get((tasks_seen, eval_set))
        if row is None:
            when = f"after task {tasks_seen - 1}" if tasks_seen else "before training"
            raise Undefined(f"no boundary row of set {eval_set!r} {when}")
        return self.score(row)

    def R(self, t: int, j: int) -> float:
        """R[t][j]: mean over the sets of task j at the boundary after task t (t = -1: before training)."""
        return mean(self.at(t + 1, name) for name in self.sets_of(j))

    @cached_property
    def inside(self) -> dict[tuple[int, str], list[Row]]:
        """(task k, set) -> its trace rows after the first update on task k, by step."""
        groups: dict[tuple[int, str], list[Row]] = {}
        for name, trace in self.trace.items():
            for row in trace:
                if row.tasks_seen <= self.tasks and row.step > self.structure.end(row.tasks_seen - 1):
                    groups.setdefault((row.tasks_seen, name), []).append(row)
        return groups

    @cached_property
    def at_switch(self) -> dict[tuple[int, str], Row]:
        """(tasks seen, set) -> its row at that boundary on the fixed subset.

        The trace row after `end_task`; the boundary row where a foreign log has no such trace row, of a task with an
        annealed branch that of the trunk.
        """
        rows = self.boundary | self.trunk
        for name, trace in self.trace.items():
            for row in trace:
                if row.tasks_seen <= self.tasks and row.step == self.structure.end(row.tasks_seen - 1):
                    rows[(row.tasks_seen, name)] = row
        return rows

    def sets_of(self, task: int) -> list[str]:
        names = self.structure.by_task.get(task)
        if not names:
            raise Undefined(f"no evaluation set belongs to task {task}")
        return names

    def need_tasks(self, least: int) -> int:
        """The number of finished tasks. Raises Undefined if there are fewer than `least`."""
        if self.tasks < least:
            raise Undefined(f"needs {least} finished tasks; there are {self.tasks}")
        return self.tasks


def weight_groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of one metric by weights; the first group is that of the plain keys.

    It is `deploy`, or `train` where there is no `deploy` row. At the end of a task that forks there are an annealed
    branch and the trunk that was trained up to it (`anneal` and `train` rows, and none of `deploy`): what such a task
    leaves is the annealed model. The first group is then called `anneal`, with the other tasks' rows as before, and
    `train` is the view without any branch.
    """
    found: dict[str, list[Row]] = {weights: [] for weights in ("deploy", "train", "anneal")}
    ends: dict[str, set[int]] = {weights: set() for weights in found}
    for row in rows:
        found[row.weights].append(row)
        if row.kind == "boundary":
            ends[row.weights].add(row.tasks_seen)
    plain = "deploy" if found["deploy"] else "train"
    forks = ends["anneal"] & ends["train"] - ends["deploy"]
    if forks:
        inside = [row for row in found["anneal"] if row.kind == "boundary" and row.tasks_seen in forks]
        others = [row for row in found[plain] if row.kind == "trace" or row.tasks_seen not in forks]
        whole = [row for row in found["deploy"] if row.kind == "boundary" and row.tasks_seen not in ends["train"]]
        return {"anneal": others + inside, "train": found["train"] + whole}
    order = [plain, *(weights for weights in found if weights != plain)]
    return {weights: found[weights] for weights in order if found[weights] or weights == plain}


def build_view(structure: Structure, rows: Iterable[Row], sign: float, trunk: Iterable[Row] = ()) -> View:
    """trunk: rows of the same metric to take boundaries from that training goes on from (`View.trunk`)."""
    view = View(structure, sign)
    view.trunk = {(row.tasks_seen, row.eval_set): row for row in trunk if row.kind == "boundary"}
    for row in rows:
        if row.kind == "boundary":
            view.boundary[(row.tasks_seen, row.eval_set)] = row
        else:
            view.trace.setdefault(row.eval_set, []).append(row)
    for trace in view.trace.values():
        trace.sort(key=lambda row: (row.step, row.tasks_seen))
    return view


def read_structure(rows: Sequence[Row]) -> Structure:
    """Task ends and sets of a table. Raises UserError where rows contradict each other.

    The boundary rows say when tasks end. A log without any (trace only) is understood from `tasks_seen`: a
    task ends where `tasks_seen` first exceeds its index. Rows of `anneal` weights belong to side branches.
    """
    main = [row for row in rows if row.weights != "anneal"]
    levels: dict[int, int] = {}
    for row in main:
        if row.kind == "boundary" and levels.setdefault(row.tasks_seen, row.step) != row.step:
            raise UserError(
                f"boundary rows with tasks_seen {row.tasks_seen} stand at steps {levels[row.tasks_seen]} and "
                f"{row.step}; a task ends once: mark evaluations inside a task as kind trace"
            )
    start = levels.pop(0, 0)
    trace = [row for row in main if row.kind == "trace"]
    reached = max((row.tasks_seen for row in trace), default=0)
    if levels:
        ends = _ends_from_boundaries(levels, reached)
    else:
        ends = [min(row.step for row in trace if row.tasks_seen > task) for task in range(reached)]
    _check_order(start, ends, trace)
    last_step = max((row.step for row in main), default=0)
    unfinished = any(row.tasks_seen == len(ends) and row.step > (ends or [start])[-1] for row in trace)
    sets = _ordered_sets(rows)
    given: dict[str, str] = {row.eval_set: row.role for row in rows if row.role}
    roles = {name: given[name] for name in sets if name in given}
    return Structure(start, tuple(ends), sets, last_step, len(ends) if unfinished else None, roles)


def check_complete(view: View) -> None:
    """Raise UserError if a boundary row of a learned set is missing (a table without any is allowed)."""
    if not any(tasks_seen > 0 for tasks_seen, _ in view.boundary):
        return
    for task in range(view.tasks):
        for name, owner in view.structure.sets.items():
            if owner is not None and owner <= task and (task + 1, name) not in view.boundary:
                raise UserError(
                    f"no boundary row of set {name!r} after task {task} (tasks_seen {task + 1}); add it, "
                    "with an empty value if the set could not be scored"
                )


def _ends_from_boundaries(levels: dict[int, int], reached: int) -> list[int]:
    missing = sorted(set(range(1, max(max(levels), reached) + 1)) - set(levels))
    if missing:
        raise UserError(
            f"no boundary rows with tasks_seen {missing[0]} (the end of task {missing[0] - 1}); "
            "add one for each evaluation set"
        )
    return [levels[tasks_seen] for tasks_seen in sorted(levels)]


def _check_order(start: int, ends: Sequence[int], trace: Iterable[Row]) -> None:
    steps = [start, *ends]
    for tasks_seen in range(1, len(steps)):
        if steps[tasks_seen] < steps[tasks_seen - 1]:
            raise UserError(
                f"tasks_seen {tasks_seen} is reached at step {steps[tasks_seen]}, before tasks_seen "
                f"{tasks_seen - 1} at step {steps[tasks_seen - 1]}; count steps over the whole run"
            )
    for row in trace:
        early = row.step < steps[row.tasks_seen]
        late = row.tasks_seen < len(ends) and row.step > ends[row.tasks_seen]
        if early or late:
            limit = row.tasks_seen if early else row.tasks_seen + 1
            raise UserError(
                f"trace row of set {row.eval_set!r} at step {row.step} has tasks_seen {row.tasks_seen}, but "
                f"tasks_seen {limit} begins at step {steps[limit]}; tasks_seen counts completed tasks only"
            )


def _ordered_sets(rows: Iterable[Row]) -> dict[str, int | None]:
    """Sets by task, held-out ones last, in order of appearance within each."""
    owners: dict[str, int | None] = {}
    for row in rows:
        owners.setdefault(row.eval_set, row.belongs_to)
    return dict(sorted(owners.items(), key=lambda item: (item[1] is None, item[1] or 0)))
