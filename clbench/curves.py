"""What a comparison draws: each set's score over the steps, and what old sets lose after every switch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clbench.errors import UserError
from clbench.metrics.view import View, build_view, read_structure
from clbench.table import EvaluationTable, Row

Points = list[tuple[int, float]]


@dataclass
class Curve:
    """Mean, smallest and largest value over several runs, at `steps`."""

    steps: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]


@dataclass
class GroupCurves:
    """The curves of runs with one strategy and its settings.

    owners: set -> index of its task, None where it is held out. scores: set -> raw value over all steps.
    changes: switch -> mean change of the old tasks' sets since it (0 at the switch, negative: worse), over the steps
    since it. held_out_changes: the same for held-out sets. ends: steps at which the tasks of the first run end.
    """

    owners: dict[str, int | None]
    scores: dict[str, Curve]
    changes: dict[int, Curve]
    held_out_changes: dict[int, Curve]
    ends: tuple[int, ...]
    start: int


def group_curves(folders: Sequence[Path], direction: str) -> GroupCurves:
    """Curves over the runs in these folders, of the primary metric and the weights that the metrics use.

    Each run is put onto the steps of the first one, by linear interpolation where it was not scored there.
    Raises UserError where a table is missing.
    """
    sign = 1.0 if direction == "higher" else -1.0
    views = [_view(folder, sign) for folder in folders]
    first = views[0]
    names = list(first.structure.sets)
    scores = {name: [_finite((row.step, row.value) for row in _line(view, name)) for view in views] for name in names}
    switches = range(first.tasks)
    return GroupCurves(
        owners=dict(first.structure.sets),
        scores={name: curve for name, runs in scores.items() if (curve := _over_runs(runs))},
        changes=_changes(views, switches, held_out=False),
        held_out_changes=_changes(views, switches, held_out=True),
        ends=first.structure.ends,
        start=first.structure.start,
    )


def _view(folder: Path, sign: float) -> View:
    path = folder / "evaluations.parquet"
    if not path.is_file():
        raise UserError(f"{path} is missing: the run cannot be drawn; repeat it with its config.yaml")
    rows = EvaluationTable.read(path).rows
    primary = rows[0].metric
    weights = "deploy" if any(row.metric == primary and row.weights == "deploy" for row in rows) else "train"
    return build_view(
        read_structure(rows), [row for row in rows if row.metric == primary and row.weights == weights], sign
    )


def _line(view: View, name: str) -> list[Row]:
    """The set's trace, or its boundary rows where it was not traced, by step."""
    trace = view.trace.get(name)
    if trace and any(row.value is not None for row in trace):
        return trace
    return sorted((row for (_, key), row in view.boundary.items() if key == name), key=lambda row: row.step)


def _changes(views: Sequence[View], switches: Iterable[int], held_out: bool) -> dict[int, Curve]:
    curves = {switch: _over_runs([_change(view, switch, held_out) for view in views]) for switch in switches}
    return {switch: curve for switch, curve in curves.items() if curve}


def _change(view: View, switch: int, held_out: bool) -> Points:
    """Mean over the old sets of s * (value - value at the switch), at each step since it."""
    changes: dict[int, list[float]] = {}
    start = view.structure.end(switch - 1)
    for name, owner in view.structure.sets.items():
        if (owner is None) != held_out or (owner is not None and owner >= switch):
            continue
        reference = view.at_switch.get((switch, name))
        if reference is None or reference.value is None:
            continue
        for row in view.inside.get((switch, name), ()):
            if row.value is not None:
                changes.setdefault(row.step - start, []).append(view.sign * (row.value - reference.value))
    points = _finite((steps, math.fsum(values) / len(values)) for steps, values in sorted(changes.items()))
    return [(0, 0.0), *points] if points else []


def _over_runs(runs: Sequence[Points]) -> Curve | None:
    runs = [points for points in runs if points]
    if not runs:
        return None
    first, last = max(points[0][0] for points in runs), min(points[-1][0] for points in runs)
    steps = sorted({step for step, _ in runs[0] if first <= step <= last})
    if not steps:
        return None
    values = [_interpolated(points, steps) for points in runs]
    columns = list(zip(*values, strict=True))
    return Curve(steps, [math.fsum(c) / len(c) for c in columns], [min(c) for c in columns], [max(c) for c in columns])


def _interpolated(points: Points, steps: Sequence[int]) -> list[float]:
    """Values at `steps`; of several points at one step, the last."""
    at = dict(points)
    known = sorted(at)
    values, i = [], 0
    for step in steps:
        while known[i] < step:
            i += 1
        right = known[i]
        left = right if right == step else known[i - 1]
        share = 0.0 if right == left else (step - left) / (right - left)
        values.append(at[left] + share * (at[right] - at[left]))
    return values


def _finite(points: Iterable[tuple[int, float | None]]) -> Points:
    return [(step, value) for step, value in points if value is not None and math.isfinite(value)]
