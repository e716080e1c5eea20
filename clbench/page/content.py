"""What the page says of boards and rows: plain values for the template, and the data its figures are drawn from."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from clbench.board_filter import COST_OF
from clbench.board_filter import ONLY as FILTERS
from clbench.board_terms import CHOSEN, NEEDS, uses
from clbench.budgets import budget_text
from clbench.leaderboard import COSTS, Board, Row, Value, metric_value, plain
from clbench.page.details import row_details
from clbench.page.figures import any_value, column, figures, is_count, mean_of
from clbench.page.series import ROWS, group_of
from clbench.page.text import DASH, MINUS, clean, number, seconds, short

ONLY = {"exemplar-free": "exemplar-free", "no-task-boundaries": "no task boundaries", "no-oracle": "no oracles"}
BAR = 76  # width of an interval's picture, in its own units
FORMATS: dict[str, Callable[[float | None], str]] = {
    "seconds_train": seconds,
    "seconds_total": seconds,
    "seconds_evaluate": seconds,
    "stored_bytes": lambda value: short(value, "B"),
    "peak_memory_bytes": lambda value: short(value, "B"),
    "memory_deterministic_bytes": lambda value: short(value, "B"),
}


def drawn_rows(boards: Sequence[Board]) -> int:
    """Rows of a page that have curves."""
    return sum(len(board.rows[:ROWS]) for board in boards)


def board_content(board: Board, place: int, metric: str, runs: int) -> dict[str, Any]:
    """A board for the template. `place` numbers it on the page; `metric` is what its rows are ranked by; curves are
    those of the first `runs` runs of a row."""
    from clbench.ranking import rank

    records = [record for row in board.rows for _, record in row.runs]
    shown = [
        metric,
        *(key for key in board.columns if key != metric and any_value(board, key)),
    ]
    costs = [key for key in COSTS if key != metric and any_value(board, key)]
    groups = [group_of([f for f, _ in row.runs], board.direction, runs) for row in board.rows[:ROWS]]
    data = figures(board, groups, metric)
    spread = _spread([row.value(metric) for row in board.rows])
    placings = rank(board.rows, metric).placings
    rows = []
    for i, (row, placing) in enumerate(zip(board.rows, placings, strict=True)):
        data["rows"][i]["details"] = row_details(row)
        rows.append(_row(row, i, placing.label.replace("-", DASH) if placing else DASH, shown, costs, spread))
        data["rows"][i]["rank"] = rows[-1]["rank"]
    stream = clean(board.stream_label, 200)
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
        "columns": [column(key) for key in shown],
        "costs": [column(key) for key in costs],
        "rows": rows,
        "chosen": rows[0]["chosen"] if len({row.chosen_on for row in board.rows}) == 1 else None,
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


def _facts(board: Board) -> list[str]:
    weights = f", weights {clean(board.weights[:8])}" if board.weights else ""
    facts = [f"{clean(board.objective, 60).replace('_', ' ')}, {clean(board.scenario, 60)}-incremental"]
    facts += [f"model {clean(board.model, 200)}{weights}", f"{clean(board.head, 60)} head"]
    facts += [f"tuned: {clean(board.tune, 200)}"]
    facts += ["invalid base: nothing to retain"] if board.invalid_base else []
    facts += [f"task 0 from an upstream: {clean(board.upstream, 400)}"] if board.upstream else []
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
        "cells": _cells(row, shown),
        "bar": _bar(row.value(shown[0]), spread),
        "costs": [_cost(row, key) for key in costs],
        "needs": [{"key": key, "name": NEEDS[key].name} for key in NEEDS if uses(row.needs, key)],
        "only": [name for name in ONLY if row.needs.get(FILTERS[name][0]) is FILTERS[name][1]],
        "spent": {name: _most(row, key) for name, key in COST_OF.items()},
        "n": len(row.runs),
        "diverged": row.diverged,
        "marks": _marks(row),
        "chosen": {"key": row.chosen_on, "name": CHOSEN[row.chosen_on]},
    }


def _cells(row: Row, shown: Sequence[str]) -> list[dict[str, Any]]:
    """The metrics; of a row of which every run diverged, that it did."""
    cells = [cell(row.value(key), key, len(row.runs)) for key in shown]
    if not row.runs:
        cells[0]["text"] = "diverged"
    return cells


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
    digits = 1 if is_count(key) else 3
    half = estimate.half_width
    return {
        "text": number(estimate.mean, digits),
        "half": "" if half is None else number(half, digits),
        "left_out": f"{estimate.n} of {runs}" if value.left_out else "",
        "sort": repr(estimate.mean),
    }


def _cost(row: Row, key: str) -> dict[str, Any]:
    mean = mean_of(row, key)
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
    hidden = f"{board.hidden} row{'s' if board.hidden != 1 else ''} left out by the filter"
    remarks = [hidden] if board.hidden else []
    for row in board.rows:
        if row.other_source:
            runs = "run" if row.other_source == 1 else "runs"
            remarks.append(
                f"{clean(row.label, 200)}: {row.other_source} {runs} made with another source of it than the newest "
                "left out"
            )
    return remarks
