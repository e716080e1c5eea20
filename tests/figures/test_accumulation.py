"""The figure of accumulation against retention: its points, ways and bars are those of the records."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from clbench.compare import Comparison
from clbench.figures import accumulation
from clbench.figures.material import Material
from clbench.figures.write import overview, render
from clbench.leaderboard import ROLE_COLUMNS, Board, Row, lower_is_better, make_boards
from clbench.metrics import compute
from clbench.table import EvaluationTable
from clbench.table import Row as TableRow
from clbench.traces import read_trace

Pair = tuple[float, float]


def table(pairs: list[Pair]) -> EvaluationTable:
    """(accumulation, retention) before training and after every task."""
    rows = []
    for t, (ka, zs) in enumerate(pairs):
        for name, role, value in (("food", "adaptation", ka), ("stl", "held-out", zs)):
            rows.append(TableRow(10 * t, t, name, value, n=50, role=role))  # type: ignore[arg-type]
            rows.append(TableRow(10 * t, t, name, value, n=50, kind="trace", role=role))  # type: ignore[arg-type]
        rows.append(TableRow(10 * t, t, "task0", ka, n=50, belongs_to=0))
    return EvaluationTable(rows)


def record(pairs: list[Pair]) -> dict[str, Any]:
    return {"metrics": compute(table(pairs)), "cost": {}}


def material(*groups: list[list[Pair]], direction: str = "higher") -> Material:
    rows = [
        Row(f"method{i}", "", {}, {}, "nothing", [(Path(f"{i}-{j}"), record(run)) for j, run in enumerate(runs)])
        for i, runs in enumerate(groups)
    ]
    stream = {"name": "s", "primary": "accuracy", "direction": direction, "content": "0", "objective": "contrastive"}
    return Material(Comparison(stream, rows, [row.label for row in rows], [], [{} for _ in rows]))


FIRST = [[(0.2, 0.4), (0.3, 0.35), (0.5, 0.3)], [(0.2, 0.4), (0.35, 0.35), (0.4, 0.2)]]
SECOND = [[(0.2, 0.4), (0.25, 0.4), (0.3, 0.4)]]


def test_points_and_ways_are_means_of_the_records() -> None:
    row = material(FIRST).comparison.groups[0]
    found = accumulation.place(row)
    assert found is not None
    assert found.points == [(0.5, 0.3), (0.4, 0.2)] and found.mean == pytest.approx((0.45, 0.25))
    assert found.path == [pytest.approx(point) for point in [(0.2, 0.4), (0.325, 0.35), (0.45, 0.25)]]
    assert found.band(0) == (0.4, 0.5)  # of two runs their range


def test_bars_of_three_runs_are_students() -> None:
    runs = [[(0.2, 0.4), (ka, 0.3)] for ka in (0.3, 0.4, 0.5)]
    found = accumulation.place(material(runs).comparison.groups[0])
    assert found is not None
    half = 4.302653 * 0.1 / math.sqrt(3)  # of t with two degrees of freedom
    assert found.band(0) == pytest.approx((0.4 - half, 0.4 + half))
    alone = accumulation.place(material(SECOND).comparison.groups[0])
    assert alone is not None and alone.band(0) is None


def test_runs_of_unequal_streams_have_straight_lines_and_untested_bases_none() -> None:
    found = accumulation.place(material([FIRST[0], [(0.2, 0.4), (0.4, 0.2)]]).comparison.groups[0])
    assert found is not None and found.path == [pytest.approx((0.2, 0.4)), pytest.approx((0.45, 0.25))]
    row = material(FIRST).comparison.groups[0]
    row.runs[0][1]["metrics"]["over_stream"].pop(0)
    found = accumulation.place(row)
    assert found is not None and found.path == [] and len(found.points) == 2


def test_it_is_drawn_where_sets_have_roles() -> None:
    drawn = material(FIRST, SECOND)
    svg = ElementTree.fromstring(render(drawn, ["accumulation"], "svg"))
    texts = ["".join(e.itertext()) for e in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"before training", "method0", "method1"} <= set(texts)
    assert "Dotted: equal geometric mean." in " ".join(texts)
    assert "0.35" in {text.strip() for text in texts}, "a level of the geometric mean"
    assert accumulation.drawable(drawn) and "accumulation" in overview_without_tables(drawn)
    for run in (run for row in drawn.comparison.groups for _, run in row.runs):
        run["metrics"]["knowledge_accumulation"] = None
    assert not accumulation.drawable(drawn)
    assert not accumulation.drawable(material(FIRST, direction="lower"))


def overview_without_tables(drawn: Material) -> list[str]:
    drawn.__dict__["curves"] = []
    return overview(drawn)


def test_held_out_curves_leave_the_sets_adapted_to_out(tmp_path: Path) -> None:
    table([(0.2, 0.4), (0.5, 0.3)]).write(tmp_path / "evaluations.parquet")
    trace = read_trace(tmp_path, "higher")
    assert trace.roles == {"food": "adaptation", "stl": "held-out"}
    assert trace.owners == {"task0": 0, "food": None, "stl": None}
    rows = [*table([(0.2, 0.4), (0.5, 0.3)]).rows]
    rows += [
        TableRow(5, 0, name, value, kind="trace", role=role)  # type: ignore[arg-type]
        for name, value, role in (("food", 0.9, "adaptation"), ("stl", 0.1, "held-out"))
    ]
    EvaluationTable(rows).write(tmp_path / "evaluations.parquet")
    (line,) = read_trace(tmp_path, "higher").held_out_changes.values()
    assert line.values.tolist() == pytest.approx([0.0, -0.3])


def test_boards_of_sets_with_roles_show_them_first(make_record: Callable[..., dict[str, Any]]) -> None:
    (board,) = make_boards(boarded(make_record))
    assert board.columns == ROLE_COLUMNS and board.rows[0].strategy == "second"
    assert board.rows[0].value("geometric_mean").estimate is not None
    assert make_boards(boarded(make_record), metric="zero_shot_retention")[0].rows[0].strategy == "first"
    assert not any(lower_is_better(key) for key in (*ROLE_COLUMNS[:3], "zero_shot_retention_ratio"))
    (plain,) = make_boards(boarded(make_record, roles=False))
    assert isinstance(plain, Board) and plain.columns[0] == "average"


def boarded(make_record: Callable[..., dict[str, Any]], roles: bool = True) -> list[tuple[Path, dict[str, Any]]]:
    found = []
    for name, pairs in (("first", [(0.2, 0.4), (0.4, 0.2)]), ("second", [(0.2, 0.4), (0.9, 0.15)])):
        metrics = compute(table(pairs))
        if not roles:
            metrics = {"versions": {"average": 1}, "average": metrics["average"]}
        changes = {"strategy.name": name, "spec.strategy": name, "metrics": metrics, "run": name}
        found.append((Path(name), make_record(**changes)))
    return found
