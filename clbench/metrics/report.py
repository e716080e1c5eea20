"""The metrics object of a table: every metric, every version, every reason why a metric is undefined."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from clbench.errors import UserError
from clbench.metrics import boundary, roles, trace
from clbench.metrics.columns import by_column
from clbench.metrics.definitions import DEFINITIONS, base_key
from clbench.metrics.gap import (
    COUNTS,
    MEANS,
    SHARES,
    Gap,
    measure_gaps,
    measure_new_gaps,
    no_gap_reason,
    summarise,
    with_units,
)
from clbench.metrics.held_out import heldout_forgetting, measure_stream_gaps
from clbench.metrics.noise import gap_grid, noise_floor
from clbench.metrics.view import (
    Structure,
    Undefined,
    View,
    build_view,
    check_complete,
    read_structure,
    weight_groups,
)
from clbench.table import EvaluationTable, Row

SIGNS = {"higher": 1.0, "lower": -1.0}
HIGHER = {"accuracy", "acc", "top1", "top5", "recall", "precision", "f1", "auc"}
LOWER = {"loss", "nll", "nats", "entropy", "perplexity", "ppl", "bits", "bpb", "error"}
NATS = {"nats", "loss", "nll", "entropy"}
OF_HELD_OUT = ("gap_heldout_", "gap_stream_")
CANNOT_PREDICT = "the strategy declares that it cannot predict between task boundaries"

BY_TASK: dict[str, Callable[[View, int], float]] = {
    "learning": lambda view, j: view.R(j, j),
    "final": lambda view, j: view.R(view.need_tasks(j + 1) - 1, j),
    "adaptation": boundary.task_adaptation,
    "forgetting_signed": boundary.task_forgetting,
    "forgetting_max": boundary.task_forgetting_max,
    "auc": trace.task_auc,
    "auc_own": trace.task_auc_own,
}

Scalars = dict[str, float | str]  # a string is the reason why there is no number


def compute(
    table: EvaluationTable,
    direction: str = "higher",
    *,
    predicts_between_boundaries: bool = True,
    references: Mapping[str, EvaluationTable] | None = None,
    horizon: int | None = None,
) -> dict[str, Any]:
    """Every metric of a table, ready for JSON (no NaN, no infinity).

    direction: whether more is better (`higher`: accuracy) or worse (`lower`: nats, perplexity) for the
    primary metric, the first one named in the table. Other metrics whose names say it (loss, accuracy, ...)
    keep their own direction; the rest share the primary's. references: tables of other runs by role; `joint`
    is used. horizon: steps after a switch the gap looks at; default: the whole new task.

    Keys: every metric (number or None), `versions`, `undefined` (key -> reason), `matrix`, `by_task`, `by_column`,
    `over_stream`, `gap`, `gap_new`, `gap_stream`, `grid`, `noise_floor` and `table`, as docs/metrics.md lays out.
    Raises UserError for rows that contradict each other or for missing boundary rows.
    """
    if direction not in SIGNS:
        raise UserError(f"direction is {direction!r}; it must be higher or lower")
    rows = table.rows
    if not rows:
        raise UserError("the evaluation table has no rows; evaluate at least once")
    structure = read_structure(rows)
    primary = rows[0].metric
    by_weights = {metric: weight_groups(found) for metric, found in _by_metric(rows).items()}
    plain = {metric: next(iter(groups)) for metric, groups in by_weights.items()}
    signs = {metric: _sign(metric, primary, direction) for metric in by_weights}
    main = (primary, plain[primary])
    groups = {
        (metric, weights): found
        for metric, groups in by_weights.items()
        for weights, found in groups.items()
        if found or metric == primary
    }
    scalars: Scalars = {}
    described: dict[str, Any] = {}
    for group in sorted(groups, key=lambda g: (g != main, g[0] != primary)):
        metric, weights = group
        trunk = by_weights[metric].get("train", ()) if weights == plain[metric] == "anneal" else ()
        view = build_view(structure, groups[group], signs[metric], trunk)
        if group == main:
            check_complete(view)
        gaps = measure_gaps(view, horizon) if predicts_between_boundaries else []
        new_gaps = measure_new_gaps(view, horizon) if predicts_between_boundaries else []
        stream_gaps = measure_stream_gaps(view) if predicts_between_boundaries else []
        joint = _joint_view(references, metric, signs[metric])
        measured = {"gap_new_": new_gaps, "gap_stream_": stream_gaps}
        found = _scalars(view, gaps, measured, joint, None if predicts_between_boundaries else CANNOT_PREDICT)
        prefix = "" if metric == primary else f"{metric}:"
        suffix = "" if weights == plain[metric] else f"[{weights}]"
        scalars |= {f"{prefix}{key}{suffix}": value for key, value in found.items()}
        if group == main:
            described = {
                "matrix": _matrix(view),
                "by_task": _by_task(view),
                "by_column": by_column(view),
                "over_stream": roles.series(view),
                "gap": [_plain(gap) for gap in _in_units(gaps, metric, signs[metric])],
                "gap_new": [_plain(gap) for gap in _in_units(new_gaps, metric, signs[metric])],
                "gap_stream": [_plain(gap) for gap in _in_units(stream_gaps, metric, signs[metric])],
                "grid": _grid(view, gaps),
                "noise_floor": noise_floor(view, gaps),
                "table": _summary(structure, rows, main, signs),
            }
        elif weights == plain[metric]:
            for task, values in zip(described["by_task"], _by_task(view), strict=True):
                task["further"][metric] = {key: values[key] for key in BY_TASK}
    return {
        **{key: None if isinstance(value, str) else value for key, value in scalars.items()},
        "versions": {key: DEFINITIONS[base_key(key)].version for key in scalars},
        "undefined": {key: value for key, value in scalars.items() if isinstance(value, str)},
        **described,
    }


def _scalars(
    view: View, gaps: Sequence[Gap], further: Mapping[str, Sequence[Gap]], joint: View | None, no_gaps: str | None
) -> Scalars:
    """further: other gaps than those of old and of held-out sets after each switch, by the prefix of their keys."""
    scalars: Scalars = {}
    formulas = {**boundary.FORMULAS, **roles.FORMULAS, "heldout_forgetting": heldout_forgetting}
    for key, formula in formulas.items():
        scalars[key] = value_of(partial(formula, view))
    for key, with_reference in boundary.REFERENCE_FORMULAS.items():
        scalars[key] = value_of(partial(with_reference, view, joint))
    scalars["min_acc"] = value_of(partial(trace.min_acc, view))
    scalars["wc_acc"] = value_of(partial(trace.wc_acc, view))
    for window in trace.WINDOWS:
        try:
            drop, rise = trace.window_extremes(view, window)
            scalars |= {f"wf_{window}": drop, f"wp_{window}": rise}
        except Undefined as reason:
            scalars |= dict.fromkeys((f"wf_{window}", f"wp_{window}"), str(reason))
    scalars |= {key: value_of(partial(formula, view)) for key, formula in trace.AREAS.items()}
    old, held_out = ([gap for gap in gaps if gap["held_out"] == flag] for flag in (False, True))
    for prefix, chosen in {"gap_": old, "gap_heldout_": held_out, **further}.items():
        if no_gaps:
            scalars |= {prefix + key: no_gaps for key in (*MEANS, *SHARES, *COUNTS)}
        else:
            scalars |= summarise(chosen, prefix, no_gap_reason(view, prefix in OF_HELD_OUT))
    return {key: representable(value) for key, value in scalars.items()}


def representable(value: float | str) -> float | str:
    """The value, or why it is none: JSON has no infinity."""
    if isinstance(value, str) or math.isfinite(value):
        return value
    return "the values are too large for a finite result"


def value_of(formula: Callable[[], float]) -> float | str:
    """What a formula gives, or the reason why it is undefined."""
    try:
        return formula()
    except Undefined as reason:
        return str(reason)


def _sign(metric: str, primary: str, direction: str) -> float:
    if metric != primary:
        if _words(metric) & LOWER:
            return -1.0
        if _words(metric) & HIGHER:
            return 1.0
    return SIGNS[direction]


def _words(metric: str) -> set[str]:
    return set(re.split("[^a-z0-9]+", metric.lower()))


def _by_metric(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.metric, []).append(row)
    return found


def main_view(table: EvaluationTable, direction: str) -> View:
    """The rows that plain keys are computed from: the primary metric, the weights that are deployed.

    Raises UserError for a table without rows.
    """
    rows = table.rows
    if not rows:
        raise UserError("the evaluation table has no rows; evaluate at least once")
    found = _view_of(table, rows[0].metric, SIGNS[direction])
    assert found is not None
    return found


def _joint_view(references: Mapping[str, EvaluationTable] | None, metric: str, sign: float) -> View | None:
    joint = (references or {}).get("joint")
    return None if joint is None else _view_of(joint, metric, sign)


def _view_of(table: EvaluationTable, metric: str, sign: float) -> View | None:
    """The rows of one metric of its main weights; None where there are none."""
    found = _by_metric(table.rows).get(metric)
    if not found:
        return None
    groups = weight_groups(found)
    weights = next(iter(groups))
    trunk = groups.get("train", ()) if weights == "anneal" else ()
    return build_view(read_structure(table.rows), groups[weights], sign, trunk)


def _matrix(view: View) -> dict[str, Any]:
    """Raw values: a column for each set (the tasks' first, held-out ones last), a row for each boundary."""
    names = list(view.structure.sets)

    def values(tasks_seen: int) -> list[float | None]:
        cells = [view.boundary.get((tasks_seen, name)) for name in names]
        return [None if cell is None else _finite(cell.value) for cell in cells]

    diverged = [
        {"tasks_seen": tasks_seen, "eval_set": name}
        for (tasks_seen, name), row in sorted(view.boundary.items())
        if row.value is not None and not math.isfinite(row.value)
    ]
    given = view.structure.roles
    return {
        "eval_sets": names,
        "belongs_to": [view.structure.sets[name] for name in names],
        **({"roles": [given.get(name, "") for name in names]} if given else {}),
        "initial": values(0) if any(tasks_seen == 0 for tasks_seen, _ in view.boundary) else None,
        "rows": [values(task + 1) for task in range(view.tasks)],
        "steps": list(view.structure.ends),
        "diverged": diverged,
    }


def _by_task(view: View) -> list[dict[str, Any]]:
    """BY_TASK of every finished task, more being better; null where it is undefined. further: the same of the metrics
    that are not the primary one."""
    found: list[dict[str, Any]] = []
    for j in range(view.tasks):
        values = {key: representable(value_of(partial(formula, view, j))) for key, formula in BY_TASK.items()}
        numbers = {key: None if isinstance(value, str) else value for key, value in values.items()}
        found.append({"task": j, "eval_sets": view.structure.by_task.get(j, []), **numbers, "further": {}})
    return found


def _grid(view: View, gaps: Sequence[Gap]) -> list[dict[str, Any]]:
    """At which steps after each switch any old set was scored."""
    steps: dict[int, set[int]] = {}
    about: dict[int, dict[str, Any]] = {}
    for gap in gaps:
        switch = gap["switch"]
        about[switch] = {"switch": switch, "step": gap["step"], "horizon": gap["horizon"]}
        steps.setdefault(switch, set()).update(gap_grid(view, gap))
    return [about[switch] | {"evaluations": sorted(steps[switch])} for switch in sorted(about)]


def _summary(
    structure: Structure, rows: Sequence[Row], main: tuple[str, str], signs: Mapping[str, float]
) -> dict[str, Any]:
    return {
        "rows": len(rows),
        "tasks": structure.tasks,
        "unfinished_task": structure.current,
        "last_step": structure.last_step,
        "metric": main[0],
        "weights": main[1],
        "directions": {metric: "higher" if sign > 0 else "lower" for metric, sign in signs.items()},
    }


def _in_units(gaps: Sequence[Gap], metric: str, sign: float) -> Sequence[Gap]:
    """With what a gap of a loss in nats is in other units; a metric's name says whether it is one."""
    nats = sign < 0 and _words(metric) & NATS
    return [with_units(gap) for gap in gaps] if nats else gaps


def _plain(gap: Gap) -> Gap:
    return {key: _finite(value) if isinstance(value, float) else value for key, value in gap.items()}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
