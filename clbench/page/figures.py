"""The data that a board's figures are drawn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clbench.leaderboard import Board, Row, Value, lower_is_better, metric_keys, metric_value
from clbench.metrics.definitions import COUNT, DEFINITIONS, base_key
from clbench.page.series import ROWS, mean_matrix, points_per_curve, scale_of, series
from clbench.page.text import clean
from clbench.page.wording import COSTS, metric_name, term_key, term_of

if TYPE_CHECKING:
    from clbench.curves import GroupCurves

FIGURE_COSTS = ("seconds_train", "flops_train", "stored_bytes", "peak_memory_bytes", "parameters_trained")


def figures(board: Board, groups: Sequence[GroupCurves | None], metric: str) -> dict[str, Any]:
    """For JSON. groups: curves of the board's first rows, None where a row has none; rows beyond them have none."""
    sets, places = _sets(groups)
    scale = scale_of([v for g in groups if g for c in g.scores.values() for v in (min(c.mean), max(c.mean))])
    most = points_per_curve(groups)
    curves = [series(group, place, most, scale) if group else None for group, place in zip(groups, places, strict=True)]
    known = metric_keys(record for row in board.rows for _, record in row.runs)
    keys = [key for key in dict.fromkeys([metric, *board.columns, *known]) if any_value(board, key)]
    costs = [key for key in FIGURE_COSTS if any_value(board, key)]
    return {
        "primary": clean(board.primary, 60),
        "direction": board.direction,
        "scale": scale,
        "metric": metric,
        "metrics": [column(key) | {"digits": 1 if is_count(key) else 4} for key in keys],
        "costs": [column(key) for key in costs],
        "sets": sets,
        "rows": [
            {
                "oracle": row.needs.get("sees_all_data") is True,
                "label": clean(row.label, 160),
                "summary": clean(row.summary, 400),
                "metrics": {key: _numbers(row.value(key)) for key in keys},
                "costs": {key: mean_of(row, key) for key in costs},
                "curves": curves[i] if i < len(curves) else None,
                "matrix": mean_matrix([record for _, record in row.runs], scale) if i < ROWS else None,
            }
            for i, row in enumerate(board.rows)
        ],
    }


def _sets(groups: Sequence[GroupCurves | None]) -> tuple[list[dict[str, Any]], list[dict[str, int]]]:
    """The board's sets, by task, held-out ones last; and for each group where its sets are among them.

    Sets of tasks are matched by when they were learned; one that is not the same in all runs has an empty name.
    """
    names: dict[tuple[bool, int, int | str], set[str]] = {}
    places = []
    for group in groups:
        keys: dict[str, tuple[bool, int, int | str]] = {}
        for name, owner in group.owners.items() if group else ():
            number = sum(key[:2] == (False, owner) for key in keys.values())
            keys[name] = (True, 0, name) if owner is None else (False, owner, number)
            names.setdefault(keys[name], set()).update(
                [name, ""] if group and group.by_place and owner is not None else [name]
            )
        places.append(keys)
    order = sorted(names, key=lambda key: key[:2])
    index = {key: i for i, key in enumerate(order)}
    adapted = {name for group in groups if group for name, role in group.roles.items() if role == "adaptation"}
    sets: list[dict[str, Any]] = [
        {"name": clean(next(iter(names[key])), 60) if len(names[key]) == 1 else "", "owner": None if key[0] else key[1]}
        for key in order
    ]
    for of_set, key in zip(sets, order, strict=True):
        if names[key] & adapted:
            of_set["adapted"] = True
    return sets, [{name: index[key] for name, key in keys.items()} for keys in places]


def column(key: str) -> dict[str, Any]:
    """A metric or a cost: its key, under which key it is explained, its name, and which way is better."""
    name = term_of(key).name if key in COSTS else metric_name(key)
    return {"key": key, "term": term_key(key), "name": name, "lower": lower_is_better(key)}


def is_count(key: str) -> bool:
    """Whether a metric counts something."""
    definition = DEFINITIONS.get(base_key(key))
    return definition is not None and definition.sign == COUNT


def mean_of(row: Row, key: str) -> float | None:
    """The mean of a metric or a cost, six digits; None where no run has a value. Cheaper than its interval."""
    found = [value for _, record in row.runs if (value := metric_value(record, key)) is not None]
    return float(f"{math.fsum(found) / len(found):.6g}") if found else None


def any_value(board: Board, key: str) -> bool:
    """Whether any run has a value."""
    return any(metric_value(record, key) is not None for row in board.rows for _, record in row.runs)


def _numbers(value: Value) -> list[float | int | None] | None:
    """[mean, low, high, n], six digits."""
    estimate = value.estimate
    if estimate is None:
        return None
    ends = (estimate.mean, estimate.low, estimate.high)
    return [*(None if end is None else float(f"{end:.6g}") for end in ends), estimate.n]
