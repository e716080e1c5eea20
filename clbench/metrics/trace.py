"""Worst-case and windowed metrics of the continual trace (De Lange et al. 2023), windows in steps."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Sequence

from clbench.metrics.view import Undefined, View, mean

WINDOWS = (10, 100)

Point = tuple[int, float]  # (step, score)


def min_acc(view: View) -> float:
    """mean_{j<T-1} of the lowest score after task j ended, up to the end of the last task."""
    T = view.need_tasks(2)
    _need_trace(view)
    end = view.structure.ends[-1]
    return mean(
        mean(_lowest(view, name, view.structure.ends[j], end) for name in view.sets_of(j)) for j in range(T - 1)
    )


def wc_acc(view: View) -> float:
    """(1/T) * score on the last task at the end + (1 - 1/T) * min_acc."""
    T = view.need_tasks(2)
    lowest = min_acc(view)
    return mean(_at_the_end(view, name) for name in view.sets_of(T - 1)) / T + (1 - 1 / T) * lowest


def window_extremes(view: View, window: int) -> tuple[float, float]:
    """(wf_w, wp_w): largest drop and largest rise between two evaluations less than `window` steps apart.

    Of each set over its whole trace; mean over the sets of a task, then over the tasks begun.
    """
    _need_trace(view)
    tasks = [[_set_extremes(view, name, window) for name in names] for names in tasks_with_sets(view)]
    drop = mean(mean(d for d, _ in sets) for sets in tasks)
    rise = mean(mean(r for _, r in sets) for sets in tasks)
    return drop, rise


def auc(view: View) -> float:
    """Mean over tasks of the score averaged over the steps from the task's beginning to the end of the run."""
    T = view.need_tasks(1)
    return mean(task_auc(view, j) for j in range(T))


def auc_own(view: View) -> float:
    """The same over the steps of the task itself."""
    T = view.need_tasks(1)
    return mean(task_auc_own(view, j) for j in range(T))


def task_auc(view: View, j: int) -> float:
    """Of one task: the mean over its sets."""
    return mean(time_average(learning_curve(view, j, name, view.structure.last_step)) for name in view.sets_of(j))


def task_auc_own(view: View, j: int) -> float:
    """Of one task, until it ends."""
    return mean(time_average(learning_curve(view, j, name, view.structure.end(j))) for name in view.sets_of(j))


AREAS = {"auc": auc, "auc_own": auc_own}


def learning_curve(view: View, j: int, name: str, until: int) -> list[Point]:
    """Scored evaluations of a set from the beginning of task j to step `until`; the first is the one at the switch
    (the whole set, where the subset was not traced there)."""
    _need_trace(view)
    start = view.structure.end(j - 1)
    before = view.at_switch.get((j, name))
    first = [(start, view.score(before))] if before is not None and before.value is not None else []
    return first + [(step, a) for step, a in scored(view, name) if start < step <= until]


def time_average(points: Sequence[tuple[float, float]]) -> float:
    """Trapezoids under (time, score), in order, over the time from the first to the last. Raises Undefined where that
    is 0."""
    if len(points) < 2 or points[-1][0] == points[0][0]:
        raise Undefined("a set was scored at one step only")
    try:
        area = math.fsum((t1 - t0) * (a0 + a1) / 2 for (t0, a0), (t1, a1) in itertools.pairwise(points))
    except (OverflowError, ValueError):  # ValueError: infinities of both signs
        raise Undefined("its scores are too large to be added up") from None
    return area / (points[-1][0] - points[0][0])


def largest_changes(points: Sequence[Point], window: int) -> tuple[float, float] | None:
    """Largest drop and rise (each floored at 0) over all pairs m < n with step_n - step_m < window.

    `points` are in order; two at one step (before and after `end_task`) are a pair at distance 0. None if
    there is no pair. Two monotone queues hold the window's highest and lowest score: linear time.
    """
    highest: deque[Point] = deque()
    lowest: deque[Point] = deque()
    drop = rise = 0.0
    found = False
    for step, score in points:
        for queue in (highest, lowest):
            while queue and step - queue[0][0] >= window:
                queue.popleft()
        if highest:
            found = True
            drop = max(drop, highest[0][1] - score)
            rise = max(rise, score - lowest[0][1])
        while highest and highest[-1][1] <= score:
            highest.pop()
        while lowest and lowest[-1][1] >= score:
            lowest.pop()
        highest.append((step, score))
        lowest.append((step, score))
    return (drop, rise) if found else None


def tasks_with_sets(view: View) -> list[list[str]]:
    """Sets of every task begun, tasks without a set left out. Raises Undefined if there are none."""
    begun = view.tasks + (view.structure.current is not None)
    tasks = [names for j, names in view.structure.by_task.items() if j < begun]
    if not tasks:
        raise Undefined("no evaluation set belongs to a task that was begun")
    return tasks


def scored(view: View, name: str) -> list[Point]:
    """The set's trace without its null rows. Raises Undefined at a diverged value."""
    return [(row.step, view.score(row)) for row in view.trace.get(name, ()) if row.value is not None]


def _need_trace(view: View) -> None:
    if not view.trace:
        raise Undefined("no trace rows: the run was not evaluated between boundaries")


def _set_extremes(view: View, name: str, window: int) -> tuple[float, float]:
    changes = largest_changes(scored(view, name), window)
    if changes is None:
        raise Undefined(f"set {name!r} has no two trace rows less than {window} steps apart")
    return changes


def _lowest(view: View, name: str, after: int, end: int) -> float:
    scores = [a for step, a in scored(view, name) if after < step <= end]
    if not scores:
        raise Undefined(f"set {name!r} has no scored trace row after step {after}")
    return min(scores)


def _at_the_end(view: View, name: str) -> float:
    """Score on the fixed subset after the last task."""
    row = view.at_switch.get((view.tasks, name))
    if row is None:
        raise Undefined(f"set {name!r} was not measured at the end of the last task")
    return view.score(row)
