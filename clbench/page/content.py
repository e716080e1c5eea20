"""What the page says of boards and rows: plain values for the template, and the data its figures are drawn from."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from clbench.board_filter import COST_OF
from clbench.board_filter import ONLY as FILTERS
from clbench.leaderboard import (
    COLUMNS,
    COSTS,
    TRUE_NEEDS,
    Board,
    Row,
    Value,
    lower_is_better,
    metric_keys,
    metric_value,
    plain,
)
from clbench.metrics.definitions import COUNT, DEFINITIONS, base_key
from clbench.page.details import row_details
from clbench.page.series import ROWS, group_of, mean_matrix, points_per_curve, scale_of, series
from clbench.page.text import DASH, MINUS, clean, number, seconds, short
from clbench.page.wording import CHOSEN, NEEDS, metric_name, term_key, term_of

FIGURE_COSTS = ("seconds_train", "flops_train", "stored_bytes", "peak_memory_bytes", "parameters_trained")
ONLY = {"exemplar-free": "exemplar-free", "no-task-boundaries": "no task boundaries", "no-oracle": "no oracles"}
BAR = 76  # width of an interval's picture, in its own units
FORMATS: dict[str, Callable[[float | None], str]] = {
    "seconds_train": seconds,
    "seconds_total": seconds,
    "seconds_evaluate": seconds,
    "stored_bytes": lambda value: short(value, "B"),
    "peak_memory_bytes": lambda value: short(value, "B"),
}


def board_content(board: Board, place: int, metric: str) -> dict[str, Any]:
    """A board for the template. `place` numbers it on the page; `metric` is what its rows are ranked by."""
    from clbench.ranking import rank

    records = [record for row in board.rows for _, record in row.runs]
    shown = [
        metric,
        *(key for key in COLUMNS if key != metric and any(_mean(row, key) is not None for row in board.rows)),
    ]
    costs = [key for key in COSTS if any(_mean(row, key) is not None for row in board.rows)]
    groups = [group_of([folder for folder, _ in row.runs], board.direction) for row in board.rows[:ROWS]]
    data = _figures(board, groups, metric, records)
    spread = _spread([row.value(metric) for row in board.rows])
    placings = rank(board.rows, metric).placings
    rows = []
    for i, (row, placing) in enumerate(zip(board.rows, placings, strict=True)):
        data["rows"][i]["details"] = row_details(row)
        rows.append(_row(row, i, placing.label.replace("-", DASH) if placing else DASH, shown, costs, spread))
        data["rows"][i]["rank"] = rows[-1]["rank"]
    stream = clean(board.stream, 200)
    return {
        "id": f"b{place}-{re.sub('[^a-z0-9]+', '-', stream.lower()).strip('-')[:40] or 'board'}",
        "stream": stream,
        "notes": clean(board.notes, 400),
        "content": clean(board.content, 64),
        "facts": _facts(board),
        "measure": measure(board),
        "model": clean(board.model, 200),
        "budget": budget_text(board.budget),
        "chosen_on_test": board.chosen_on_test,
        "columns": [
            {"key": key, "term": term_key(key), "name": metric_name(key), "lower": lower_is_better(key)}
            for key in shown
        ],
        "costs": [
            {"key": key, "term": term_key(key), "name": term_of(key).name, "lower": lower_is_better(key)}
            for key in costs
        ],
        "rows": rows,
        "runs": len(records),
        "remarks": _remarks(board),
        "data": data,
    }


def measure(board: Board) -> str:
    """What a score is on this board, and which way is better."""
    primary = clean(board.primary, 60)
    if board.direction == "lower":
        return f"scores are {MINUS}{primary}: closer to 0 is better"
    return f"scores are {primary}: higher is better"


def budget_text(budget: dict[str, float]) -> str:
    """`steps 60, flops 1e+12`; empty without a budget."""
    return ", ".join(f"{key} {short(limit)}" for key, limit in sorted(budget.items()))


def _facts(board: Board) -> list[str]:
    weights = f", weights {clean(board.weights[:8])}" if board.weights else ""
    facts = [f"{clean(board.objective, 60).replace('_', ' ')}, {clean(board.scenario, 60)}-incremental"]
    facts += [f"model {clean(board.model, 200)}{weights}", f"{clean(board.head, 60)} head"]
    facts += [f"tuned: {clean(board.tune, 200)}"]
    return facts + ([f"budget {budget_text(board.budget)}"] if board.budget else [])


def _row(
    row: Row, i: int, rank: str, shown: Sequence[str], costs: Sequence[str], spread: tuple[float, float]
) -> dict[str, Any]:
    settings = [(clean(key, 80), clean(plain(value), 200)) for key, value in row.settings.items()]
    name, summary = clean(row.strategy, 120), clean(row.summary, 400)
    return {
        "index": i,
        "rank": rank,
        "name": name,
        "settings": settings,
        "summary": summary,
        "search": " ".join([name, summary, *(f"{key}={value}" for key, value in settings)]).lower(),
        "cells": [{**cell(row.value(key), key, len(row.runs)), "bar": None} for key in shown],
        "bar": _bar(row.value(shown[0]), spread),
        "costs": [_cost(row.value(key), key) for key in costs],
        "needs": [{"key": key, "name": NEEDS[key].name} for key in TRUE_NEEDS if row.needs.get(key)],
        "only": [name for name in ONLY if row.needs.get(FILTERS[name][0]) is FILTERS[name][1]],
        "spent": {name: _most(row, key) for name, key in COST_OF.items()},
        "n": len(row.runs),
        "diverged": row.diverged,
        "marks": _marks(row),
        "chosen": {"key": row.chosen_on, "name": CHOSEN[row.chosen_on].name},
    }


def _marks(row: Row) -> list[dict[str, str]]:
    """What stands below the number of runs."""
    marks = [
        {"kind": "verified", "text": f"✓ {row.verified} verified", "number": row.verified},
        {"kind": "refuted", "text": f"✗ {row.refuted} refuted", "number": row.refuted},
        {"kind": "imported", "text": f"{row.imported} imported", "number": row.imported},
        {"kind": "diverged", "text": f"+{row.diverged} diverged", "number": row.diverged},
    ]
    return [{"kind": str(mark["kind"]), "text": str(mark["text"])} for mark in marks if mark["number"]]


def _most(row: Row, key: str) -> str:
    """The largest cost of a run; empty where one of them is unknown."""
    values = [metric_value(record, key) for _, record in row.runs]
    known = [value for value in values if value is not None]
    return repr(max(known)) if known and len(known) == len(values) else ""


def cell(value: Value, key: str, runs: int) -> dict[str, Any]:
    """A number of the table: `text`, `spread` (half the interval), `left_out`, `sort`."""
    estimate = value.estimate
    if estimate is None:
        return {"text": DASH, "half": "", "left_out": "", "sort": ""}
    definition = DEFINITIONS.get(base_key(key))
    digits = 1 if definition is not None and definition.sign == COUNT else 3
    half = estimate.half_width
    return {
        "text": number(estimate.mean, digits),
        "half": "" if half is None else number(half, digits),
        "left_out": f"{estimate.n} of {runs}" if value.left_out else "",
        "sort": repr(estimate.mean),
    }


def _cost(value: Value, key: str) -> dict[str, Any]:
    mean = value.estimate.mean if value.estimate else None
    return {"text": FORMATS.get(key, short)(mean), "sort": "" if mean is None else repr(mean)}


def _spread(values: Sequence[Value]) -> tuple[float, float]:
    """What the pictures of intervals span: all means, and the ends of intervals no wider than ten times that."""
    means = [value.estimate.mean for value in values if value.estimate]
    if not means:
        return 0.0, 1.0
    ends = [end for value in values if value.estimate for end in (value.estimate.low, value.estimate.high)]
    reach = max(max(means) - min(means), 1e-9)
    kept = [end for end in ends if end is not None and min(means) - reach <= end <= max(means) + reach]
    return min(means + kept), max(means + kept)


def _bar(value: Value, spread: tuple[float, float]) -> dict[str, float] | None:
    """Where mean and interval stand in a picture `BAR` wide."""
    estimate = value.estimate
    if estimate is None:
        return None
    low, width = spread[0], (spread[1] - spread[0]) or 1.0

    def at(number: float) -> float:
        return round(3 + (BAR - 6) * min(1.0, max(0.0, (number - low) / width)), 1)

    ends = (estimate.low, estimate.high) if estimate.low is not None and estimate.high is not None else (None, None)
    first, last = (at(estimate.mean if end is None else end) for end in ends)
    return {"mean": at(estimate.mean), "low": first, "high": last}


def _remarks(board: Board) -> list[str]:
    remarks = []
    for row in board.rows:
        if row.other_source:
            runs = "run" if row.other_source == 1 else "runs"
            remarks.append(
                f"{clean(row.label, 200)}: {row.other_source} {runs} made with another source of it than the newest "
                "left out"
            )
    return remarks


def _figures(board: Board, groups: Sequence[Any], metric: str, records: Sequence[Any]) -> dict[str, Any]:
    """The data of a board's figures; a row without curves or beyond the first `ROWS` has None there."""
    first = records[0] if records else None
    names: dict[str, int | None] = {}
    for group in groups:
        if group:
            for name, owner in group.owners.items():
                names.setdefault(name, owner)
    order = sorted(names, key=lambda name: (names[name] is None, names[name] or 0))
    place = {name: i for i, name in enumerate(order)}
    values = [v for g in groups if g for c in g.scores.values() for v in (min(c.mean), max(c.mean))]
    scale, most = scale_of(values), points_per_curve(groups)
    curves = [series(g, place, most, scale) if g else None for g in groups]
    keys = list(dict.fromkeys([metric, *COLUMNS, *metric_keys(records)]))
    keys = [key for key in keys if any(_mean(row, key) is not None for row in board.rows)]
    costs = [key for key in FIGURE_COSTS if any(_mean(row, key) is not None for row in board.rows)]
    rows = []
    for i, row in enumerate(board.rows):
        rows.append(
            {
                "label": clean(row.label, 160),
                "summary": clean(row.summary, 400),
                "metrics": {key: _numbers(row.value(key)) for key in keys},
                "costs": {key: _mean(row, key) for key in costs},
                "curves": curves[i] if i < len(curves) else None,
                "matrix": mean_matrix([record for _, record in row.runs], scale) if i < ROWS else None,
            }
        )
    tasks = first["stream"]["tasks"] if first else []
    return {
        "primary": clean(board.primary, 60),
        "direction": board.direction,
        "scale": scale,
        "metric": metric,
        "metrics": [
            {"key": key, "term": term_key(key), "name": metric_name(key), "lower": lower_is_better(key)} for key in keys
        ],
        "costs": [{"key": key, "term": term_key(key), "name": term_of(key).name} for key in costs],
        "tasks": [clean(task["name"], 60) for task in tasks],
        "sets": [{"name": clean(name, 60), "owner": names[name]} for name in order],
        "rows": rows,
    }


def _numbers(value: Value) -> list[float | int | None] | None:
    """[mean, low, high, n], six digits."""
    estimate = value.estimate
    if estimate is None:
        return None
    return [
        *(None if x is None else float(f"{x:.6g}") for x in (estimate.mean, estimate.low, estimate.high)),
        estimate.n,
    ]


def _mean(row: Row, key: str) -> float | None:
    estimate = row.value(key).estimate
    return float(f"{estimate.mean:.6g}") if estimate else None
