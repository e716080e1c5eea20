"""What may stand on one board, what is averaged, what is counted once, and how it is printed."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clbench.cli.leaderboard import leaderboard_command
from clbench.errors import UserError
from clbench.leaderboard import lower_is_better, make_boards

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def run(make_record: Make, tmp_path: Path) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """A (folder, record) with changed leaves; each later than the one before, of its own order and seed if said."""
    made: list[Path] = []

    def make(**leaves: Any) -> tuple[Path, dict[str, Any]]:
        stamp = f"20260101-{len(made):06d}"
        made.append(tmp_path / "runs" / "stream" / "strategy" / stamp)
        started = f"2026-01-01T00:{len(made) // 60:02d}:{len(made) % 60:02d}Z"
        return made[-1], make_record(**{"run": stamp, "started": started, **leaves})

    return make


def seeds(run: Any, averages: list[float], **leaves: Any) -> list[tuple[Path, dict[str, Any]]]:
    return [run(**{"spec.seed": seed, "metrics.average": value, **leaves}) for seed, value in enumerate(averages)]


def rows(runs: list[Any], **arguments: Any) -> list[Any]:
    boards = make_boards(runs, **arguments)
    assert len(boards) == 1
    return boards[0].rows


def test_a_row_is_the_mean_over_seeds_with_its_interval(run: Any) -> None:
    (row,) = rows(seeds(run, [0.1, 0.2, 0.3]))
    value = row.value("average")
    assert value.left_out == 0
    assert value.estimate.n == 3
    assert value.estimate.mean == pytest.approx(0.2)
    assert value.estimate.half_width == pytest.approx(0.2484138, abs=1e-6)


@pytest.mark.parametrize(
    ("place", "other"),
    [
        ("stream.content", "another"),
        ("stream.name", "another"),
        ("stream.scenario", "task"),
        ("model.spec", "slim-resnet18"),
        ("spec.head", "cosine"),
        ("spec.tune", "head"),
        ("spec.budget", {"steps": 10}),
        ("spec.chosen_on", "test"),
    ],
)
def test_what_differs_stands_on_another_board(run: Any, place: str, other: Any) -> None:
    assert len(make_boards([run(), run(**{"spec.seed": 1})])) == 1
    boards = make_boards([run(), run(**{"spec.seed": 1, place: other})])
    assert [len(board.rows[0].runs) for board in boards] == [1, 1]


def test_pretrained_weights_part_boards_and_the_seeds_own_weights_do_not(run: Any) -> None:
    a, b = {"model.weights_sha256": "a" * 64}, {"model.weights_sha256": "b" * 64, "spec.seed": 1}
    assert len(make_boards([run(**a), run(**b)])) == 1
    named = {"model.checkpoint": "someone/weights"}
    assert len(make_boards([run(**a, **named), run(**b, **named)])) == 2


def test_settings_part_rows_and_only_differences_are_shown(run: Any) -> None:
    found = rows([*seeds(run, [0.5, 0.6]), *seeds(run, [0.7], **{"spec.strategy_settings.lr": 0.5})])
    assert [(row.settings, len(row.runs)) for row in found] == [
        ({"lr": 0.5}, 1),
        ({"lr": found[1].all_settings["lr"]}, 2),
    ]
    assert found[0].label == "finetune lr=0.5"


@pytest.mark.parametrize("place", ["spec.eval_grid", "environment.precision", "strategy.version", "spec.strategy"])
def test_what_changes_the_numbers_parts_rows(run: Any, place: str) -> None:
    other = {"strategy.version": 2}.get(place, "bf16")
    assert len(rows([run(), run(**{"spec.seed": 1, place: other})])) == 2


@pytest.mark.parametrize(
    "leaves", [{"spec.threads": 2}, {"environment.processor": "another"}, {"spec.data_root": "elsewhere"}]
)
def test_the_machine_does_not_part_rows(run: Any, leaves: dict[str, Any]) -> None:
    (row,) = rows([run(), run(**{"spec.seed": 1, **leaves})])
    assert len(row.runs) == 2


def test_a_repeated_run_counts_once_and_the_latest(run: Any) -> None:
    (row,) = rows([run(**{"metrics.average": 0.9}), run(**{"metrics.average": 0.4})])
    assert row.value("average").estimate.n == 1
    assert row.value("average").estimate.mean == 0.4


def test_another_order_of_the_tasks_is_another_run(run: Any) -> None:
    (row,) = rows([run(), run(**{"stream.order": "another", "spec.order_seed": 1})])
    assert len(row.runs) == 2


def test_a_newer_source_that_only_diverged_does_not_hide_completed_runs(run: Any) -> None:
    diverged = run(**{"status": "diverged", "strategy.source_hash": "f" * 64})
    (row,) = rows([*seeds(run, [0.1, 0.2]), diverged])
    assert (len(row.runs), row.other_source) == (2, 1)


def test_runs_of_an_older_source_are_left_out_and_counted(run: Any) -> None:
    (row,) = rows([*seeds(run, [0.1, 0.2]), *seeds(run, [0.7], **{"strategy.source_hash": "f" * 64})])
    assert (row.other_source, row.value("average").estimate.mean) == (2, 0.7)


@pytest.mark.parametrize("status", ["running", "interrupted", "failed", "diverged"])
def test_only_completed_runs_count(run: Any, status: str) -> None:
    (row,) = rows([run(), run(**{"spec.seed": 1, "status": status})])
    assert len(row.runs) == 1
    assert row.diverged == (status == "diverged")
    assert make_boards([run(status=status)]) == []


def test_undefined_values_are_left_out_and_counted(run: Any) -> None:
    (row,) = rows([*seeds(run, [0.5, 0.7]), run(**{"spec.seed": 2, "metrics.average": None})])
    value = row.value("average")
    assert (value.estimate.n, value.estimate.mean, value.left_out) == (2, pytest.approx(0.6), 1)


def test_values_of_another_version_of_the_formula_are_left_out(run: Any) -> None:
    (row,) = rows([run(), run(**{"spec.seed": 1, "metrics.versions.average": 99})])
    assert row.value("average").left_out == 1


def test_rows_stand_best_first_in_the_direction_of_the_metric(run: Any) -> None:
    low, high = {"metrics.average": 0.1, "metrics.forgetting": 0.1}, {"metrics.average": 0.9, "metrics.forgetting": 0.9}
    other = {"spec.strategy": "other", "strategy.name": "other"}
    missing = {"spec.strategy": "third", "strategy.name": "third", "metrics.average": None, "metrics.forgetting": None}
    runs = [run(**low), run(**other, **high), run(**missing)]
    assert [row.strategy for row in rows(runs)] == ["other", "finetune", "third"]
    assert [row.strategy for row in rows(runs, metric="forgetting")] == ["finetune", "other", "third"]


@pytest.mark.parametrize(
    ("key", "lower"),
    [
        ("average", False),
        ("average[train]", False),
        ("recall:average", False),
        ("backward_transfer", False),
        ("gap_recovered_share", False),
        ("forgetting", True),
        ("gap_depth", True),
        ("wf_10", True),
        ("seconds_train", True),
        ("samples_per_second", False),
    ],
)
def test_directions(key: str, lower: bool) -> None:
    assert lower_is_better(key) == lower


def test_unknown_names_get_one_line_with_near_ones(run: Any) -> None:
    with pytest.raises(UserError, match="unknown metric 'forgeting'; did you mean forgetting"):
        make_boards([run()], metric="forgeting")
    with pytest.raises(UserError, match="'split-digit'; did you mean split-digits"):
        make_boards([run()], stream="split-digit")


def test_incomplete_records_are_named_and_passed_over(run: Any) -> None:
    damaged = run(**{"spec.seed": 1})
    del damaged[1]["environment"]["precision"]
    said: list[str] = []
    assert len(make_boards([run(), damaged], warn=said.append)) == 1
    assert len(said) == 1 and str(damaged[0]) in said[0]


def test_real_runs_as_json(finished_results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaderboard_command("split-digits", None, "json", None, finished_results)
    found = json.loads(capsys.readouterr().out)
    by_name = {row["strategy"]: row for row in found}
    assert {name: row["n"] for name, row in by_name.items()} == {"finetune": 2, "replay": 2, "nmc": 1}
    assert by_name["nmc"]["model"] != by_name["replay"]["model"]
    assert by_name["replay"]["needs"]["stores_samples"] is True
    assert by_name["nmc"]["metrics"]["average"]["low"] is None
    own = [json.loads((Path(folder) / "record.json").read_text()) for folder in by_name["replay"]["runs"]]
    expected = sum(record["metrics"]["average"] for record in own) / 2
    assert by_name["replay"]["metrics"]["average"]["mean"] == pytest.approx(expected)
    assert by_name["replay"]["cost"]["stored_bytes"]["mean"] > 0


def test_real_runs_as_a_table_and_markdown(finished_results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaderboard_command(None, "forgetting", "table", None, finished_results)
    table = capsys.readouterr().out
    assert table.index("replay") < table.index("finetune")
    assert "S stores samples" in table and "±" in table and "published" in table
    leaderboard_command(None, "forgetting", "md", None, finished_results)
    lines = capsys.readouterr().out.splitlines()
    head = next(line for line in lines if line.startswith("| #"))
    assert head.split(" | ")[1:3] == ["strategy", "forgetting"]
    assert {line.count("|") for line in lines if line.startswith("| 1")} == {head.count("|")}


def test_csv_is_one_line_a_row(finished_results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaderboard_command(None, "average", "csv", None, finished_results)
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(found) == 3
    replay = next(row for row in found if row["strategy"] == "replay")
    assert float(replay["average_low"]) < float(replay["average_mean"]) < float(replay["average_high"])
    assert replay["average_n"] == "2" and "stores_samples" in replay["needs"]


@pytest.mark.parametrize(("suffix", "start"), [("md", "## "), ("csv", "stream,"), ("json", "["), ("txt", "split-")])
def test_the_files_name_chooses_the_format(finished_results: Path, tmp_path: Path, suffix: str, start: str) -> None:
    leaderboard_command(None, None, "table", tmp_path / f"board.{suffix}", finished_results)
    assert (tmp_path / f"board.{suffix}").read_text().startswith(start)


def test_no_runs_are_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaderboard_command(None, None, "json", None, tmp_path)
    captured = capsys.readouterr()
    assert json.loads(captured.out) == []
    assert captured.err.count("\n") == 1 and "clbench run" in captured.err


def test_wrong_formats_and_places_are_one_line(finished_results: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown format 'markdown'"):
        leaderboard_command(None, None, "markdown", None, finished_results)
    with pytest.raises(UserError, match="cannot write"):
        leaderboard_command(None, None, "md", tmp_path / "absent" / "board.md", finished_results)


def test_boards_need_no_heavy_package(finished_results: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from clbench.cli.leaderboard import leaderboard_command as show;"
        f"show(None, None, 'json', None, Path({str(finished_results)!r}));"
        "heavy = ('torch', 'mlflow', 'scipy.stats', 'pyarrow', 'pandas', 'jinja2', 'matplotlib');"
        "sys.exit(any(name in sys.modules for name in heavy))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
