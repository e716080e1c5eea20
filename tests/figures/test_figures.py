"""Figures: their numbers are those of records and tables, every format is what it says, equal runs give equal bytes."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from clbench.compare import Comparison, compare
from clbench.errors import UserError
from clbench.figures import curves, differences, gap, matrix
from clbench.figures.material import Material
from clbench.figures.style import look, short_labels
from clbench.figures.write import Files, figure_files, overview, render, write_figures
from clbench.leaderboard import Row
from clbench.table import EvaluationTable
from clbench.table import Row as TableRow

Runs = dict[tuple[str, int], Path]


@pytest.fixture(scope="module")
def comparison(finished_runs: Runs) -> Comparison:
    return compare([finished_runs[name, seed] for name in ("finetune", "replay") for seed in (0, 1)])


@pytest.fixture(scope="module")
def material(comparison: Comparison) -> Material:
    return Material(comparison)


def texts(svg: bytes) -> list[str]:
    """Every piece of text in an SVG."""
    root = ElementTree.fromstring(svg)
    return ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]


def records_of(finished_runs: Runs, name: str) -> list[dict[str, Any]]:
    return [json.loads((finished_runs[name, seed] / "record.json").read_text()) for seed in (0, 1)]


def test_the_matrix_is_the_mean_of_the_records(comparison: Comparison, finished_runs: Runs) -> None:
    found = matrix.mean_matrix(comparison.groups[0])
    assert found is not None and found.runs == 2
    first, second = (record["metrics"]["matrix"]["rows"] for record in records_of(finished_runs, "finetune"))
    for t, line in enumerate(found.values):
        for j, value in enumerate(line):
            if first[t][j] is None:
                assert value is None
            else:
                assert value == pytest.approx((first[t][j] + second[t][j]) / 2)
    assert found.states == [str(t) for t in range(len(first))]
    assert found.sets == found.states


def test_the_numbers_of_the_matrix_are_written_in_it(comparison: Comparison, material: Material) -> None:
    found = [matrix.mean_matrix(row) for row in comparison.groups]
    expected = [matrix.cell_text(v, True) for m in found if m for line in m.values for v in line if v is not None]
    written = [text for text in texts(render(material, ["matrix"], "svg")) if re.fullmatch(r"\.\d\d", text)]
    assert sorted(written) == sorted(text for text in expected if text != "1.0")
    assert len(written) > 10


@pytest.mark.parametrize(
    ("value", "fraction", "text"),
    [
        (0.934, True, ".93"),
        (0.0, True, ".00"),
        (0.999, True, "1.0"),
        (None, True, ""),
        (2.314, False, "2.31"),
        (9.999, False, "10.0"),
        (123.4, False, "123"),
        (123456.0, False, "1e+05"),
        (-1.5, False, "-1.50"),
    ],
)
def test_cells(value: float | None, fraction: bool, text: str) -> None:
    assert matrix.cell_text(value, fraction) == text


def test_depths_are_those_of_the_records(comparison: Comparison, finished_runs: Runs) -> None:
    found = gap.depths(comparison.groups[1])
    for switch, values in found.items():
        for record, value in zip(records_of(finished_runs, "replay"), values, strict=True):
            parts = [g["depth"] for g in record["metrics"]["gap"] if g["switch"] == switch]
            assert value == pytest.approx(statistics.fmean(parts))
    overall = statistics.fmean(statistics.fmean(values) for values in found.values())
    estimate = comparison.groups[1].value("gap_depth").estimate
    assert estimate is not None and overall == pytest.approx(estimate.mean)


def test_median_and_quartiles_by_hand() -> None:
    assert gap.median_quartiles([4.0, 1.0, 3.0, 2.0, 10.0]) == (3.0, 2.0, 4.0)
    assert gap.median_quartiles([1.0, 2.0]) == (1.5, 1.25, 1.75)
    assert gap.median_quartiles([7.0]) == (7.0, 7.0, 7.0)


def test_diverged_and_unscored_gaps_are_left_out() -> None:
    pairs = [(1, False, 0.4), (1, False, None), (2, False, 0.1), (2, False, 0.3), (2, True, 0.9)]
    gaps = [{"switch": switch, "held_out": held_out, "depth": depth} for switch, held_out, depth in pairs]
    row = Row("x", "", {}, {}, "nothing", [(Path("a"), {"metrics": {"gap": gaps}}), (Path("b"), {"metrics": {}})])
    assert gap.depths(row) == {1: [0.4], 2: [pytest.approx(0.2)]}
    assert gap.depths(row, held_out=True) == {2: [0.9]}


def test_the_differences_are_those_of_the_comparison(comparison: Comparison, material: Material) -> None:
    shown = differences.shown_metrics(comparison)
    assert shown[:2] == ["average", "average_incremental"] and "gap_depth" in shown
    written = texts(render(material, ["differences"], "svg"))
    for key in shown:
        assert key in written
    assert any("Mean difference to finetune over 2 pairs" in text for text in written)
    assert written.count("← better") == sum(key in ("forgetting", "gap_depth") for key in shown)


def test_p_values_are_corrected_for_the_comparisons(finished_runs: Runs) -> None:
    found = compare([*(finished_runs[name, seed] for name in ("finetune", "replay") for seed in (0, 1))])
    alone = found.differences[1]["average"]
    assert alone is not None and alone.p is not None and alone.p_holm == pytest.approx(alone.p)
    three = compare([finished_runs[key] for key in finished_runs])
    replay, nmc = three.differences[1]["average"], three.differences[2]["average"]
    assert replay is not None and nmc is not None
    assert nmc.p is None and replay.p_holm == pytest.approx(replay.p), "one pair cannot be tested, nor does it count"


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ([1], "one run"),
        ([1, 1], "one run each"),
        ([2, 2], "Lines: mean of 2 runs; bands: range"),
        ([3], "Lines: mean of 3 runs; bands: 95 % interval of the mean at each step (Student's t)"),
    ],
)
def test_the_figure_says_what_its_bands_are(counts: list[int], text: str) -> None:
    assert curves.band_text(counts) == text


def test_mixed_numbers_of_runs_are_told() -> None:
    text = curves.band_text([5, 2, 1])
    assert "1 to 5 runs" in text and "95 %" in text and "range where there are two runs" in text and "no band" in text


@pytest.mark.parametrize(
    ("form", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), pytest.param("pdf", b"%PDF-", marks=pytest.mark.slow)]
)
def test_formats_are_what_they_say_and_the_same_every_time(material: Material, form: str, magic: bytes) -> None:
    names = ["gap", "matrix"]
    content = render(material, names, form)
    assert content.startswith(magic)
    assert len(content) > 5000
    addresses = []
    for size in (1, 1000, 30_000):  # the layout's solver goes by addresses in memory
        addresses.append([object() for _ in range(size)])
        assert render(Material(material.comparison), names, form) == content


def test_text_stays_text(material: Material) -> None:
    svg = render(material, ["curves"], "svg")
    assert "optimiser steps" in texts(svg) and "finetune" in texts(svg)
    assert b"2026" not in svg and b"dc:date" not in svg, "the time of drawing is in it"
    pdf = render(material, ["curves"], "pdf")
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf and b"CreationDate" not in pdf


@pytest.mark.parametrize(("width", "points"), [("page", 489.6), ("column", 237.6)])
def test_widths_are_those_of_papers(comparison: Comparison, width: str, points: float) -> None:
    root = ElementTree.fromstring(render(Material(comparison, width), ["matrix"], "svg"))
    assert root.attrib["width"] == f"{points:g}pt"


def test_names_that_look_like_markup_are_drawn_as_they_are(comparison: Comparison) -> None:
    names = ["_hidden $x^2$ <b>&", "\\frac{ 日本\n\x1b[31m"]
    odd = Comparison(comparison.stream, comparison.groups, names, comparison.metrics, comparison.differences)
    written = texts(render(Material(odd), overview(Material(odd)), "svg"))
    assert "_hidden $x^2$ <b>&" in written
    assert any(text.startswith("\\frac{ 日本") and "\x1b" not in text for text in written)


def test_long_labels_stay_different() -> None:
    labels = ["a strategy with a long name lr=0.1", "a strategy with a long name lr=0.2", "c"]
    short = short_labels(labels, 20)
    assert len(set(short)) == 3 and all(len(label) <= 24 for label in short)
    assert short_labels(["a", "b"], 20) == ["a", "b"]


def test_thirty_two_groups_look_different() -> None:
    looks = {(style.color, str(style.dashes), style.marker) for style in map(look, range(32))}
    assert len(looks) == 32


def test_files_that_are_asked_for(tmp_path: Path) -> None:
    assert figure_files(Path("x.PDF"), None, None) == Files(None, {Path("x.PDF"): []})
    assert figure_files(Path("g.svg"), "gap", None).parts == {Path("g.svg"): ["gap"]}
    found = figure_files(tmp_path, "gap,curves", "svg,pdf")
    assert sorted(path.name for path in found.parts) == ["curves.pdf", "curves.svg", "gap.pdf", "gap.svg"]
    assert len(figure_files(tmp_path / "new", "all", "all").parts) == 18
    assert list(figure_files(tmp_path, None, None).parts) == [tmp_path / "compare.png"]


@pytest.mark.parametrize(
    ("out", "figures", "form", "width", "words"),
    [
        ("x.gif", None, None, "page", "ends in .png, .svg or .pdf"),
        ("x.png", "gap,curves", None, "page", "one file for 2 figures"),
        ("x.png", None, "svg", "page", "differ"),
        ("x", "cruves", None, "page", "did you mean curves"),
        ("x", "", None, "page", "no figure is named"),
        ("x", "gap", "jpg", "page", "unknown format"),
        ("x.png", None, None, "wide", "unknown width"),
    ],
)
def test_wrong_wishes_are_one_line(out: str, figures: str | None, form: str | None, width: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        figure_files(Path(out), figures, form, width)
    assert "\n" not in str(caught.value)


def test_figures_go_into_a_folder_and_impossible_ones_are_told(finished_runs: Runs, tmp_path: Path) -> None:
    found = compare([finished_runs["finetune", 0], finished_runs["replay", 1]])
    told: list[str] = []
    files = figure_files(tmp_path / "figures", "matrix,differences", "svg")
    assert write_figures(found, files, "column", told.append) == [tmp_path / "figures" / "matrix.svg"]
    assert len(told) == 1 and "'differences'" in told[0]
    with pytest.raises(UserError, match="'differences' cannot be drawn"):
        write_figures(found, figure_files(tmp_path / "d.svg", "differences", None), "page", told.append)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        write_figures(found, Files(tmp_path / "file", {tmp_path / "file" / "m.svg": ["matrix"]}), "page", told.append)


def test_runs_that_were_not_scored_inside_tasks_have_no_gap(tmp_path: Path, comparison: Comparison) -> None:
    rows = [TableRow(2 * seen, seen, f"t{task}", 0.5, belongs_to=task) for seen in (0, 1, 2) for task in range(2)]
    EvaluationTable(rows).write(tmp_path / "evaluations.parquet")
    record = json.loads(json.dumps(comparison.groups[0].runs[0][1]))
    record["metrics"]["gap"] = []
    row = Row("x", "", {}, {}, "nothing", [(tmp_path, record)])
    bare = Material(Comparison(comparison.stream, [row], ["x"], ["average"], [{}]))
    assert overview(bare) == ["curves", "matrix"]
    assert len(render(bare, overview(bare), "png")) > 5000


@pytest.mark.slow
@pytest.mark.parametrize(("tasks", "groups", "direction"), [(1, 1, "higher"), (20, 2, "lower"), (50, 9, "higher")])
def test_few_and_many_tasks_and_groups(
    tmp_path: Path, comparison: Comparison, tasks: int, groups: int, direction: str
) -> None:
    """Whatever the number of tasks, groups and held-out sets, every figure is drawn; above 20 tasks without numbers."""
    rows = []
    for step in range(0, 4 * tasks + 1):
        seen, at_end = step // 4, step % 4 == 0
        for now in {seen, seen - 1} - {-1} if at_end else {seen}:
            for task in [*range(min(seen + 1, tasks)), None]:
                value = 1 - abs(step / (4 * tasks) - (task or 0) / tasks)
                name = "probe" if task is None else f"t{task}"
                kinds = ["trace", "boundary"] if at_end and now == seen else ["trace"]
                rows += [TableRow(step, now, name, value, kind=k, belongs_to=task) for k in kinds]  # type: ignore[arg-type]
    EvaluationTable(rows).write(tmp_path / "evaluations.parquet")
    record = json.loads(json.dumps(comparison.groups[0].runs[0][1]))
    sets = [*(f"t{t}" for t in range(tasks)), "probe"]
    record["metrics"]["matrix"] = {
        "eval_sets": sets,
        "belongs_to": [*range(tasks), None],
        "initial": [None] * len(sets),
        "rows": [[0.5] * len(sets) for _ in range(tasks)],
    }
    row = Row("x", "", {}, {}, "nothing", [(tmp_path, record)])
    stream = {**comparison.stream, "direction": direction}
    many = Material(Comparison(stream, [row] * groups, ["x"] * groups, ["average"], [{}] * groups))
    written = texts(render(many, overview(many), "svg"))
    numbers = [text for text in written if text in (".50", "0.50")]
    assert len(numbers) >= groups * tasks * len(sets) if len(sets) <= 20 else ".50" not in written
    assert any("task" in text for text in written)
