"""The curves and matrices of a row, thinned to the points that matter and rounded, as small integers for the page.

A curve keeps about `MOST` points: the first and last, and the lowest and highest of each stretch between, so that no
trough is lost; of the average, these of every task. A board's single sets and switches share a budget of `POINTS`
points; where they would need more, they keep fewer each. Only the first `ROWS` rows of a board are drawn, and the first
`RUNS` runs of a row; where a page would need more than `TABLES` tables for that, fewer, but not fewer than `FEWEST`.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench.errors import UserError
from clbench.record import Record

if TYPE_CHECKING:
    from clbench.curves import Curve, GroupCurves

MOST = 90
LEAST = 8
POINTS = 40_000
ROWS = 200
RUNS = 10
FEWEST = 3
TABLES = 800


def runs_per_row(rows: int) -> int:
    """Of how many runs the tables of a row are read, on a page that draws so many rows."""
    return max(FEWEST, min(RUNS, TABLES // max(1, rows)))


def group_of(folders: Sequence[Path], direction: str, most: int = RUNS) -> GroupCurves | None:
    """Curves over a row's first `most` runs; those whose table is missing or damaged are passed over, None where none
    is left."""
    from clbench.curves import over_runs
    from clbench.traces import read_trace

    traces = []
    for folder in folders[:most]:
        try:
            traces.append(read_trace(folder, direction))
        except UserError:
            continue
    return over_runs(traces) if traces else None


def points_per_curve(groups: Sequence[GroupCurves | None]) -> int:
    """How many points each set's and each switch's curve may keep."""
    curves = sum(len(g.scores) + len(g.changes) + len(g.held_out_changes) for g in groups if g)
    return max(LEAST, min(MOST, POINTS // max(1, curves)))


def series(group: GroupCurves, sets: Mapping[str, int], most: int, scale: int) -> dict[str, Any]:
    """A row's curves. Values are multiples of 1 / `scale`; sets by their place in `sets`.

    average: score on the tasks seen so far. held_out: mean of the held-out sets.
    changes, held_out_changes: by switch, since it.
    """
    average = group.average
    return {
        "runs": group.runs,
        "start": group.start,
        "ends": list(group.ends),
        "average": None if average is None else _packed(average, MOST, scale, group.runs > 1, group.ends),
        "sets": {sets[name]: _packed(c, most, scale) for name, c in group.scores.items() if name in sets},
        "changes": {k: _packed(c, most, scale, band=group.runs > 1) for k, c in group.changes.items()},
        "held_out_changes": {k: _packed(c, most, scale) for k, c in group.held_out_changes.items()},
    }


def mean_matrix(records: Sequence[Record], scale: int) -> dict[str, Any] | None:
    """Mean over runs of the boundary matrix: `initial`, then a row for each task's end, a column for each set.

    Columns are matched by position: in runs of another order, by the order in which sets were learned. A cell is None
    where a run has no value.
    """
    found = [matrix for record in records if (matrix := record["metrics"].get("matrix")) and matrix.get("rows")]
    if not found:
        return None
    first = found[0]
    shape = (len(first["rows"]), len(first["eval_sets"]))
    same = [m for m in found if (len(m["rows"]), len(m["eval_sets"])) == shape]
    rows = [_mean_rows([m["rows"][t] for m in same], scale) for t in range(shape[0])]
    initial = [m["initial"] for m in same if m.get("initial") is not None]
    names = {tuple(m["eval_sets"]) for m in same}
    return {
        "initial": _mean_rows(initial, scale) if initial else None,
        "rows": rows,
        "runs": len(same),
        "orders": len(names),
    }


def scale_of(values: Sequence[float]) -> int:
    """Steps per unit that show values of this size to about four digits."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=1.0)
    return int(10 ** max(0, 3 - max(0, int(math.log10(largest)) if largest > 0 else 0)))


def _mean_rows(rows: Sequence[Sequence[float | None]], scale: int) -> list[int | None]:
    means: list[int | None] = []
    for cells in zip(*rows, strict=False):
        known = [cell for cell in cells if cell is not None and math.isfinite(cell)]
        means.append(round(sum(known) / len(known) * scale) if len(known) == len(cells) and known else None)
    return means


def _packed(curve: Curve, most: int, scale: int, band: bool = False, cuts: Sequence[int] = ()) -> list[list[int]]:
    """[steps, mean] or [steps, mean, low, high]. cuts: steps at which tasks end; every task keeps some points."""
    kept = _kept(curve.steps, curve.mean, most, cuts)
    columns = [curve.mean, curve.low, curve.high] if band else [curve.mean]
    return [[int(curve.steps[i]) for i in kept], *([round(column[i] * scale) for i in kept] for column in columns)]


def _kept(steps: Sequence[int], values: Sequence[float], most: int, cuts: Sequence[int] = ()) -> Sequence[int]:
    """Indices of the points that stay."""
    if len(values) <= most:
        return range(len(values))
    edges = sorted({0, *(bisect_right(steps, cut) for cut in cuts), len(values)})
    pieces = list(itertools.pairwise(edges))
    kept: set[int] = set()
    for first, end in pieces:
        kept |= {first, end - 1}
        stretches = max(1, (most // len(pieces) - 2) // 2)
        bounds = [first + i * (end - first) // stretches for i in range(stretches + 1)]
        for stretch in (range(low, high) for low, high in itertools.pairwise(bounds) if low < high):
            kept |= {min(stretch, key=values.__getitem__), max(stretch, key=values.__getitem__)}
    return sorted(kept)
