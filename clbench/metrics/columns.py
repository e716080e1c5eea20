"""The columns of the matrix: what happened to each task's sets before, during and after its own task (MTIL, Zheng et
al. 2023, arXiv 2303.06628). The row before training is in none of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from clbench.metrics.view import Undefined, View, mean


def task_transfer(view: View, j: int) -> float:
    """Transfer of column j: mean_{t<j} R[t][j]."""
    if j == 0:
        raise Undefined("no task comes before the first one")
    return mean(view.R(t, j) for t in range(j))


def task_average_over_time(view: View, j: int) -> float:
    """Average of column j: mean_t R[t][j]."""
    return mean(view.R(t, j) for t in range(view.need_tasks(1)))


def task_last(view: View, j: int) -> float:
    """Last of column j: R[T-1][j]."""
    return view.R(view.need_tasks(1) - 1, j)


COLUMNS: dict[str, Callable[[View, int], float]] = {
    "transfer": task_transfer,
    "average_over_time": task_average_over_time,
    "average": task_last,
}
"""By the key whose mean over columns it is (`transfer` leaves the first column out)."""


def by_column(view: View) -> list[dict[str, Any]]:
    """COLUMNS of every finished task, with `undefined` (key -> reason) where it has no value."""
    found: list[dict[str, Any]] = []
    for j in range(view.tasks):
        values: dict[str, float | None] = {}
        reasons: dict[str, str] = {}
        for key, formula in COLUMNS.items():
            try:
                value = formula(view, j)
                values[key] = value if math.isfinite(value) else None
            except Undefined as reason:
                values[key], reasons[key] = None, str(reason)
            else:
                if values[key] is None:
                    reasons[key] = "the values are too large for a finite result"
        found.append({"task": j, "eval_sets": view.structure.by_task.get(j, []), **values, "undefined": reasons})
    return found
