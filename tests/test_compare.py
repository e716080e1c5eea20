"""Comparing runs: groups, pairs, curves by hand, the picture, and refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clbench.cli.compare import Pictures, compare_command
from clbench.compare import compare
from clbench.curves import Curve, group_curves
from clbench.errors import UserError
from clbench.record import read_record, write_record
from clbench.selection import select_runs
from clbench.table import EvaluationTable, Row

Runs = dict[tuple[str, int], Path]
COPY = Callable[[str, int], Path]


def test_runs_are_grouped_and_paired(finished_runs: Runs) -> None:
    order = [("replay", 0), ("finetune", 0), ("replay", 1), ("finetune", 1), ("nmc", 0)]
    found = compare([finished_runs[key] for key in order])
    assert found.labels == ["replay", "finetune", "nmc"]
    assert [len(group.runs) for group in found.groups] == [2, 2, 1]
    values = {key: read_record(folder)["metrics"]["average"] for key, folder in finished_runs.items()}
    difference = found.differences[1]["average"]
    assert difference is not None and difference.n == 2
    expected = sum(values["finetune", seed] - values["replay", seed] for seed in (0, 1)) / 2
    assert difference.mean == pytest.approx(expected)
    assert difference.low is not None and difference.high is not None and difference.high < 0
    alone = found.differences[2]["average"]
    assert alone is not None and (alone.n, alone.low) == (1, None)
    assert found.differences[0] == {}


def test_runs_with_different_seeds_do_not_pair(finished_runs: Runs) -> None:
    found = compare([finished_runs["replay", 0], finished_runs["finetune", 1]])
    assert found.differences[1]["average"] is None


def test_a_repeated_seed_stands_apart(finished_runs: Runs, run_copy: COPY) -> None:
    found = compare([finished_runs["replay", 0], run_copy("replay", 0)])
    assert [len(group.runs) for group in found.groups] == [1, 1]
    difference = found.differences[1]["average"]
    assert difference is not None and difference.mean == 0


def test_another_source_is_another_group(finished_runs: Runs, run_copy: COPY) -> None:
    folder = run_copy("replay", 1)
    record = read_record(folder)
    record["strategy"]["source_hash"] = "c" * 64
    write_record(folder, record)
    found = compare([finished_runs["replay", 0], folder])
    assert "source=cccccccc" in found.labels[1]


def test_refusals_are_one_line(finished_runs: Runs, run_copy: COPY, tmp_path: Path) -> None:
    one = finished_runs["replay", 0]
    with pytest.raises(UserError, match="two runs or more"):
        compare([one, one])
    other = run_copy("finetune", 0)
    record = read_record(other)
    record["stream"]["content"] = "d" * 64
    write_record(other, record)
    with pytest.raises(UserError, match=r"another data.*not comparable"):
        compare([one, other])
    write_record(other, {**record, "environment": {}})
    with pytest.raises(UserError, match="lacks a part"):
        compare([one, other])
    (other / "record.json").write_text(json.dumps(read_record(other) | {"error": "by hand"}))
    with pytest.raises(UserError, match=r"not compared: .* was edited after the run"):
        compare([one, other])
    record["status"] = "interrupted"
    write_record(other, record)
    with pytest.raises(UserError, match="is interrupted"):
        compare([one, other])
    (other / "evaluations.parquet").unlink()
    with pytest.raises(UserError, match=r"evaluations\.parquet is missing"):
        group_curves([other], "higher")
    with pytest.raises(UserError, match=r"ends in \.png"):
        compare_command([one, other], Pictures(tmp_path / "picture.jpeg"))


def test_curves_by_hand(tmp_path: Path) -> None:
    """Two runs, losses: set a rises from 1.0 by 0.5 and 0.3 one step after the switch, and comes back half-way."""

    def write(folder: Path, peak: float) -> Path:
        rows = [
            Row(2, 1, "a", 1.0, kind="boundary", belongs_to=0),
            Row(2, 1, "a", 1.0, kind="trace", belongs_to=0),
            Row(3, 1, "a", 1.0 + peak, kind="trace", belongs_to=0),
            Row(6, 1, "a", 1.0 + peak / 2, kind="trace", belongs_to=0),
            Row(6, 1, "b", 2.0, kind="trace", belongs_to=1),
            Row(6, 2, "a", 1.0 + peak / 2, kind="boundary", belongs_to=0),
            Row(6, 2, "b", 2.0, kind="boundary", belongs_to=1),
        ]
        folder.mkdir()
        EvaluationTable(rows).write(folder / "evaluations.parquet")
        return folder

    found = group_curves([write(tmp_path / "x", 0.5), write(tmp_path / "y", 0.3)], "lower")
    assert found.ends == (2, 6)
    assert found.owners == {"a": 0, "b": 1}
    curve = found.scores["a"]
    assert curve.steps == [2, 3, 6]
    assert curve.mean == pytest.approx([1.0, 1.4, 1.2])
    assert (curve.low, curve.high) == ([1.0, 1.3, 1.15], [1.0, 1.5, 1.25]), "two runs: their range"
    change = found.changes[1]
    assert change.steps == [0, 1, 4]
    assert change.mean == pytest.approx([0, -0.4, -0.2])
    assert change.low == pytest.approx([0, -0.5, -0.25])
    assert found.held_out_changes == {}


def test_runs_scored_at_other_steps_are_interpolated(tmp_path: Path) -> None:
    for name, steps in (("x", (0, 2, 4)), ("y", (0, 4))):
        (tmp_path / name).mkdir()
        rows = [Row(step, 0, "a", float(step), kind="trace", belongs_to=0) for step in steps]
        EvaluationTable(rows).write(tmp_path / name / "evaluations.parquet")
    found = group_curves([tmp_path / "x", tmp_path / "y"], "higher")
    curve = found.scores["a"]
    assert (curve.steps, curve.mean, curve.low) == ([0, 2, 4], [0.0, 2.0, 4.0], [0.0, 2.0, 4.0])


def test_runs_of_another_order_are_matched_by_when_sets_were_learned_and_by_task(tmp_path: Path) -> None:
    """Run x learns a in 4 steps, then b in 8; run y learns b in 6, then a in 6. Every set scores 1 once it is learned,
    0 before, and one step after the switch the old one falls to 0.5."""

    def write(name: str, sets: str, end: int) -> Path:
        scored = [
            (0, 0, (0.0, 0.0)),
            (end, 1, (1.0, 0.0)),
            (end + 1, 1, (0.5, 0.5)),
            (12, 1, (1.0, 1.0)),
            (12, 2, (1.0, 1.0)),
        ]
        rows = [
            Row(step, seen, name, value, kind="trace", belongs_to=task)
            for step, seen, values in scored
            for task, (name, value) in enumerate(zip(sets, values, strict=True))
        ]
        ends = {(0, 0), (end, 1), (12, 2)}
        rows += [replace(row, kind="boundary") for row in rows if (row.step, row.tasks_seen) in ends]
        (tmp_path / name).mkdir()
        EvaluationTable(rows).write(tmp_path / name / "evaluations.parquet")
        return tmp_path / name

    found = group_curves([write("x", "ab", 4), write("y", "ba", 6)], "higher")
    assert (found.owners, found.ends, found.by_place) == ({"a": 0, "b": 1}, (4, 12), True)
    assert (found.scores["a"].steps, found.scores["a"].mean) == ([0, 4, 5, 12], [0.0, 1.0, 0.5, 1.0])
    assert found.scores["a"].values[0].tolist() == found.scores["a"].values[1].tolist()
    average = found.average
    assert average is not None and (average.steps, average.mean) == ([4, 5, 12], [1.0, 0.5, 1.0])
    change = found.changes[1]
    assert (change.steps, change.mean) == ([0, 1, 6], pytest.approx([0.0, -0.5, -1 / 14])), "as far as both runs reach"


def test_bands_are_those_of_the_textbook() -> None:
    """Five runs at one step: mean 3, standard error 1/sqrt(2), Student's t with 4 degrees of freedom 2.776."""
    curve = Curve([7], np.array([[1.0], [2.0], [3.0], [4.0], [5.0]]))
    assert curve.mean == curve.median == [3.0]
    assert curve.high == pytest.approx([3 + 2.7764451 / 2**0.5])
    assert curve.low == pytest.approx([3 - 2.7764451 / 2**0.5])
    assert curve.quartiles == ([2.0], [4.0])
    assert (curve.smallest, curve.largest) == ([1.0], [5.0])


def test_the_average_is_over_the_tasks_begun_and_over_sets_within_a_task(tmp_path: Path) -> None:
    sets = [("a", 0, 0.8), ("a2", 0, 0.4), ("b", 1, 0.9)]
    rows = [
        Row(step, step // 3, name, score - 0.1 * step, kind=kind, belongs_to=owner)  # type: ignore[arg-type]
        for step in (0, 2, 3, 5, 6)
        for name, owner, score in sets
        for kind in (("boundary", "trace") if step % 3 == 0 else ("trace",))
    ]
    EvaluationTable(rows).write(tmp_path / "evaluations.parquet")
    average = group_curves([tmp_path], "higher").average
    assert average is not None and average.steps == [2, 3, 5, 6]
    assert average.mean == pytest.approx([0.6 - 0.2, 0.6 - 0.3, 0.75 - 0.5, 0.75 - 0.6])


@pytest.mark.parametrize("content", [b"", b"PAR1 not a table PAR1"])
def test_a_damaged_table_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "evaluations.parquet").write_bytes(content)
    with pytest.raises(UserError, match="not a readable evaluation table") as caught:
        group_curves([tmp_path], "higher")
    assert "\n" not in str(caught.value)


def test_a_foreign_table_is_one_line(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"step": [1, 2], "value": ["a", "b"]}), tmp_path / "evaluations.parquet")
    with pytest.raises(UserError, match="not a readable evaluation table"):
        group_curves([tmp_path], "higher")


def test_the_change_at_the_trough_is_the_gap_of_the_record(finished_runs: Runs) -> None:
    folder = finished_runs["finetune", 0]
    record = read_record(folder)
    first = next(gap for gap in record["metrics"]["gap"] if gap["switch"] == 1)
    curve = group_curves([folder], "higher").changes[1]
    assert -min(curve.mean) == pytest.approx(first["depth"])


def test_the_picture_and_the_report(finished_runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    folders = list(finished_runs.values())
    compare_command(folders, Pictures(tmp_path / "curves.png"))
    captured = capsys.readouterr()
    assert "Difference to finetune" in captured.out and "gap_depth" in captured.out
    assert "curves.png" in captured.err
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG" and picture.width > 1500 and picture.height > 700
        colors = picture.convert("RGB").getcolors(1 << 24)
    assert colors is not None and len(colors) > 50
    compare_command(folders, Pictures(tmp_path / "again.svg", "matrix"), as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [group["strategy"] for group in found["groups"]] == ["finetune", "replay", "nmc"]
    assert found["groups"][1]["difference_to_first"]["average"]["n"] == 2


def test_a_picture_that_cannot_be_written_is_one_line(finished_runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        compare_command(list(finished_runs.values())[:2], Pictures(tmp_path / "absent" / "m.svg", "matrix"))


@pytest.mark.slow
def test_many_tasks_and_held_out_sets_can_be_drawn(tmp_path: Path, finished_runs: Runs) -> None:
    """Twelve tasks (a colour bar) of losses with two held-out sets; nine runs in three rows of panels."""
    from clbench.figures.material import Material
    from clbench.figures.write import overview, render

    comparison = compare([finished_runs["finetune", 0], finished_runs["replay", 0]])
    folder = tmp_path / "long"
    folder.mkdir()
    rows = []
    for step in range(0, 121, 5):
        for seen in {step // 10} | ({step // 10 - 1} if step % 10 == 0 and step else set()):
            kinds = ("trace", "boundary") if step == seen * 10 else ("trace",)
            for kind in kinds:
                sets = [(f"t{t}", t) for t in range(12)] + [("h0", None), ("h1", None)]
                rows += [
                    Row(step, seen, name, 3.0 - 0.01 * step, kind=kind, belongs_to=owner)  # type: ignore[arg-type]
                    for name, owner in sets
                ]
    EvaluationTable(rows).write(folder / "evaluations.parquet")
    comparison.stream = {**comparison.stream, "direction": "lower"}
    group = comparison.groups[0]
    group.runs = [(folder, group.runs[0][1])]
    comparison.groups, comparison.labels = [group] * 4, ["a name that goes on " * 5] * 4
    material = Material(comparison)
    assert len(render(material, overview(material), "png")) > 10_000


def test_rows_are_chosen_by_name_and_setting(finished_results: Path, finished_runs: Runs) -> None:
    two = select_runs(["finetune@split-digits", "nmc@split-digits,head=linear"], finished_results)
    assert set(two) == {finished_runs[key] for key in (("finetune", 0), ("finetune", 1), ("nmc", 0))}
    replayed = select_runs(["replay@split-digits,memory_size=200,tasks=5"], finished_results)
    assert sorted(replayed) == sorted([finished_runs["replay", 0], finished_runs["replay", 1]])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("repaly@split-digits", "did you mean replay"),
        ("replay@split-digit", "did you mean split-digits"),
        ("replay@split-digits,memory=3", "did you mean memory_size"),
        ("replay@split-digits,memory_size=3", "no runs with memory_size=3; there are 200"),
        ("replay@split-digits,memory_size", "write a condition as KEY=VALUE"),
        ("replay@split-digits,", "write a condition as KEY=VALUE"),
        ("replay@split-digits,seed=1", "no setting 'seed'"),
        ("@split-digits", "write STRATEGY@STREAM"),
    ],
)
def test_wrong_rows_are_one_line(finished_results: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        select_runs([text], finished_results)
    assert "\n" not in str(caught.value)


def test_stars_are_for_corrected_p_values(
    finished_runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare_command(list(finished_runs.values()), Pictures(tmp_path / "x.svg", "matrix"))
    printed = capsys.readouterr().out
    assert "corrected by Holm" in printed
    found = compare(list(finished_runs.values())).differences[1]["average"]
    assert found is not None and found.p_holm is not None
    line = next(line for line in printed.splitlines() if line.strip().startswith("average ") and "[" in line)
    assert ("*" in line) == (found.p_holm < 0.05)


def test_groups_that_do_not_fit_stand_below_and_no_number_is_broken(
    finished_runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    compare_command(list(finished_runs.values()), Pictures(tmp_path / "one.png"))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 70
    averages = [line for line in lines if line.startswith(" average ")]
    assert [line.count("±") for line in averages] == [2, 0, 0, 0], "two tables of groups, two of differences"
    assert [re.findall(r"\[.*?\]", line) != [] for line in averages] == [False, False, True, False]
