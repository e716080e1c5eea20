"""The leaderboard in every format, its filters, the comparison over streams, and what can go wrong."""

from __future__ import annotations

import copy
import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clbench.board_records import board_records
from clbench.cli.board_formats import FORMULA, safe_cell
from clbench.cli.board_latex import escape
from clbench.cli.board_terminal import terminal_text
from clbench.cli.board_text import Shown, cell, clean, header
from clbench.cli.leaderboard import leaderboard_command
from clbench.errors import UserError
from clbench.leaderboard import COLUMNS, Value, make_boards
from clbench.record import read_record, write_record
from clbench.statistics import mean_interval

Boards = Callable[..., Path]
HOSTILE = '=HYPERLINK("x")|<script>alert(1)</script> \\ & % $ # _ { } ~ ^ \x1b[31m\n*bold* [a](b) é'


@pytest.fixture
def boards(finished_runs: dict[tuple[str, int], Path], tmp_path: Path) -> Boards:
    """Makes a results folder of sealed records: boards({"a": [0.1, 0.2]}, streams=("x", "y"), **leaves)."""
    source = finished_runs["finetune", 0]
    original = read_record(source)
    made = 0

    def make(scores: dict[str, list[float]], streams: tuple[str, ...] = ("one",), **leaves: Any) -> Path:
        nonlocal made
        for stream in streams:
            for name, averages in scores.items():
                for seed, average in enumerate(averages):
                    made += 1
                    record = copy.deepcopy(original)
                    record["run"] = f"20260101-{made:06d}-00000000"
                    record["spec"] |= {"strategy": name, "seed": seed}
                    record["strategy"]["name"] = name
                    record["stream"] |= {"name": stream, "content": (stream * 64)[:64]}
                    record["metrics"]["average"] = average
                    for path, value in leaves.items():
                        part, key = path.split(".")
                        record[part][key] = value
                    folder = tmp_path / "results" / "runs" / stream / f"strategy{len(name)}" / record["run"]
                    folder.mkdir(parents=True)
                    for file in ("evaluations.parquet", "config.yaml"):
                        shutil.copyfile(source / file, folder / file)
                    write_record(folder, record)
        return tmp_path / "results"

    return make


SCORES = {"good": [0.90, 0.91, 0.92], "close": [0.89, 0.92, 0.90], "bad": [0.50, 0.52, 0.51]}


def shown(results: Path, capsys: pytest.CaptureFixture[str], format: str, metric: str | None = None) -> str:
    leaderboard_command(None, metric, format, None, results)
    return capsys.readouterr().out


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
    assert "S stores samples" in table and "±" in table and "no data" in table
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


def test_ranks_and_differences_as_json(boards: Boards, capsys: pytest.CaptureFixture[str]) -> None:
    """good - bad: 0.40, 0.39, 0.41: mean 0.4, deviation 0.01, t(2) = 4.302653: half width 0.024841."""
    found = {row["strategy"]: row for row in json.loads(shown(boards(SCORES), capsys, "json"))}
    assert list(found) == ["good", "close", "bad"]
    assert [row["rank"]["label"] for row in found.values()] == ["1-2", "1-2", "3"]
    assert [[d["to"] for d in row["differences"]] for row in found.values()] == [["close", "bad"], ["bad"], []]
    difference = found["good"]["differences"][1]
    assert (difference["mean"], difference["n"], difference["reason"]) == (pytest.approx(0.4), 3, None)
    assert difference["high"] - difference["mean"] == pytest.approx(0.024841, abs=1e-6)
    assert 0 < difference["p"] < difference["p_holm"] <= 3 * difference["p"]


def test_ranks_and_differences_as_csv(boards: Boards, capsys: pytest.CaptureFixture[str]) -> None:
    lines = list(csv.DictReader(io.StringIO(shown(boards(SCORES), capsys, "csv"))))
    assert [(line["rank_first"], line["rank_last"]) for line in lines] == [("1", "2"), ("1", "2"), ("3", "3")]
    assert lines[0]["difference_to_best_mean"] == ""
    assert float(lines[2]["difference_to_best_mean"]) == pytest.approx(-0.4)
    assert float(lines[2]["difference_to_best_p"]) < float(lines[2]["difference_to_best_p_holm"])


def test_ranks_as_a_table_and_markdown(boards: Boards, capsys: pytest.CaptureFixture[str]) -> None:
    results = boards(SCORES)
    table = shown(results, capsys, "table")
    assert [line.split()[:2] for line in table.splitlines() if re.match(r"\d", line)] == [
        ["1-2", "good"], ["1-2", "close"], ["3", "bad"]
    ]  # fmt: skip
    assert "corrected for all 3 comparisons" in table and "0/3" in table
    assert "| 1-2 | good | 0.9100 ± 0.0248 |" in shown(results, capsys, "md")


def test_one_run_a_row_rules_no_rank_out(boards: Boards, capsys: pytest.CaptureFixture[str]) -> None:
    table = shown(boards({"a": [0.9], "b": [0.1]}), capsys, "table")
    assert table.count("1-2 ") == 2 and "no rank is ruled out" in table


def test_latex_marks_the_best_and_what_is_tied_with_it(boards: Boards, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(boards(SCORES), capsys, "latex")
    assert r"1--2 & good & $\mathbf{0.9100} \pm 0.0248$" in found
    assert r"1--2 & close & $0.9033 \pm 0.0379^{\dagger}$" in found
    assert r"3 & bad & $0.5100 \pm 0.0248$" in found
    lines = found.splitlines()
    body = lines[lines.index("    \\toprule") + 1 : lines.index("    \\bottomrule")]
    assert len({line.count(" & ") for line in body if line.endswith("\\\\")}) == 1
    columns = re.search(r"tabular}{(\w+)}", found)
    assert columns is not None and len(columns[1]) == body[0].count(" & ") + 1
    for opened in re.findall(r"\\begin{(\w+)}", found):
        assert found.count(f"\\end{{{opened}}}") == found.count(f"\\begin{{{opened}}}")


def test_latex_escapes_whatever_a_name_holds() -> None:
    assert escape("a_b & 5% $x #1 {y} ~ ^ \\ < > | é") == (
        r"a\_b \& 5\% \$x \#1 \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{} "
        r"\textless{} \textgreater{} \textbar{} ?"
    )


@pytest.mark.parametrize("format", ["table", "md", "csv", "json", "latex"])
def test_hostile_names_stay_text(boards: Boards, capsys: pytest.CaptureFixture[str], format: str) -> None:
    results = boards({HOSTILE: [0.5, 0.6], "plain": [0.1, 0.3]})
    found = shown(results, capsys, format)
    assert "\x1b" not in found
    if format == "csv":
        assert next(csv.DictReader(io.StringIO(found)))["strategy"] == "'" + clean(HOSTILE)
    elif format == "json":
        assert json.loads(found)[0]["strategy"] == HOSTILE
    elif format == "md":
        assert "<script" not in found and "[a](b)" not in found
        (line,) = [line for line in found.splitlines() if "HYPERLINK" in line]
        unescaped = re.findall(r"(?<!\\)\|", line)
        assert len(unescaped) == next(line for line in found.splitlines() if line.startswith("| #")).count("|")
    else:
        assert len([line for line in found.splitlines() if "HYPERLINK" in line]) == 1


@pytest.mark.parametrize("sign", FORMULA)
def test_spreadsheets_run_nothing(sign: str) -> None:
    assert safe_cell(f"{sign}1+1") == f"'{sign}1+1"
    assert safe_cell(f"\t\n{sign}1+1") == f"'  {sign}1+1"
    assert safe_cell(-0.5) == -0.5 and safe_cell("plain") == "plain" and safe_cell(None) == ""


def test_filters_from_the_command_line(cli: Any, boards: Boards) -> None:
    results = boards(SCORES, **{"cost.stored_bytes": 2000})
    arguments = ("leaderboard", "--results", results, "--json")
    assert len(cli(*arguments, "--only", "exemplar-free", "--only", "no-oracle").json()) == 3
    assert len(cli(*arguments, "--budget-class", "memory=2kB").json()) == 3
    empty = cli(*arguments, "--budget-class", "memory=1kB", "--model", "mlp")
    assert (empty.json(), empty.code) == ([], 0)
    assert empty.err == f"no completed runs in {results} that fit: at most memory 1000; model mlp\n"
    assert cli(*arguments, "--budget-class", "none", "--chosen-on", "validation").json() == []
    table = cli("leaderboard", "--results", results, "--only", "exemplar-free").out
    assert "shown: exemplar-free (0 of 3 rows left out)" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "exemplar"), "--only: unknown need 'exemplar'; did you mean exemplar-free?"),
        (("--budget-class", "memory=lots"), "--budget-class 'memory=lots': write flops=1e12"),
        (("--budget-class", "bytes=1"), "--budget-class: unknown limit 'bytes'"),
        (("--chosen-on", "train"), "--chosen-on: unknown choice 'train'"),
        (("--model", "mpl"), "--model: no finished runs with model 'mpl'; did you mean mlp?"),
        (("--metric", "averag"), "unknown metric 'averag'; did you mean average"),
        (("--format", "tex"), "unknown format 'tex'; did you mean latex"),
        (("--across",), "--across needs boards of two streams or more"),
        (("--across", "--format", "md"), "--across is printed as table, csv or json, not md"),
    ],
)
def test_what_cannot_be_shown_is_one_line(cli: Any, boards: Boards, arguments: tuple[str, ...], message: str) -> None:
    found = cli("leaderboard", "--results", boards(SCORES), *arguments)
    assert found.code == 2 and message in found.error()


def test_an_edited_record_is_left_out_with_one_line(cli: Any, boards: Boards) -> None:
    results = boards(SCORES)
    file = next(results.glob("runs/one/strategy4/*/record.json"))
    file.write_text(file.read_text().replace('"average": 0.9', '"average": 0.99'))
    found = cli("leaderboard", "--results", results, "--json")
    assert [row["n"] for row in found.json()] == [2, 3, 3]
    assert found.err == f"clbench: left out: {file} was edited after the run: its seal does not fit\n"


def test_strategies_over_streams(cli: Any, boards: Boards) -> None:
    results = boards({"a": [0.9], "b": [0.8], "c": [0.7]}, ("w", "x", "y"))
    boards({"a": [0.8], "b": [0.9], "c": [0.7], "partly": [0.95]}, ("z",))
    found = cli("leaderboard", "--results", results, "--across", "--json").json()
    assert (found["names"], found["average_ranks"]) == (["a", "b", "c"], [1.25, 1.75, 3.0])
    assert found["friedman"] == pytest.approx(6.5)  # 12 / (4 * 3 * 4) * (25 + 49 + 144) - 3 * 4 * 4
    assert found["left_out"] == ["partly: not on every stream"]
    table = cli("leaderboard", "--results", results, "--across").out
    assert "Friedman chi2(2) = 6.50, p = 0.0388" in table and "cannot reach 0.05" in table
    lines = list(csv.reader(io.StringIO(cli("leaderboard", "--results", results, "--across", "--format", "csv").out)))
    assert lines[1] == ["a", "1.25", "1.0", "1.0", "1.0", "2.0"]


def test_the_html_page_is_written_from_here(cli: Any, boards: Boards) -> None:
    results = boards(SCORES)
    out = results.parent / "board.html"
    assert cli("leaderboard", "--results", results, "--out", out).code == 0
    assert out.read_text().lower().startswith("<!doctype html>")


def test_power_from_rows(cli: Any, boards: Boards) -> None:
    """good - close: 0.01, -0.01, 0.02: deviation 0.0152753; 0.02 is 1.309 of it: 7 pairs."""
    results = boards(SCORES)
    found = cli(
        "power", "good", "close", "--stream", "one", "--difference", "0.02", "--results", results, "--json"
    ).json()
    assert (found["pairs"], found["n"], found["rows"]) == (3, 7, ["good", "close"])
    assert found["sd"] == pytest.approx(0.0152753, abs=1e-6)
    text = cli("power", "good", "close", "--results", results).out
    assert "(the one observed)" in text and "3 pairs show a difference of" in text


def test_power_counts_task_orders_where_the_test_does(cli: Any, boards: Boards) -> None:
    """Five orders of two runs: the means of the orders differ by 0.01 to 0.05, deviation 0.0158114."""
    results = boards({})
    for order in range(5):
        level = 0.01 * (order + 1)
        scores = {"a": [0.5 + level - 0.1, 0.5 + level + 0.1], "b": [0.5, 0.5]}
        results = boards(scores, **{"stream.order": f"{order:064x}"})
    found = cli("power", "a", "b", "--results", results, "--json").json()
    assert (found["unit"], found["pairs"], found["observed"]) == ("orders", 5, pytest.approx(0.03))
    assert found["sd"] == pytest.approx(0.0158114, abs=1e-6)


def test_power_from_a_spread(cli: Any) -> None:
    assert cli("power", "--sd", "0.02", "--difference", "0.01", "--json").json()["n"] == 34
    assert "5 pairs show a difference of 0.03364 or more" in cli("power", "--sd", "0.02", "--pairs", "5").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name two rows"),
        (("good",), "name two rows"),
        (("good", "good"), "are the same row"),
        (("good", "clos"), "no finished runs of 'clos' in results; did you mean close?"),
        (("good", "close", "--stream", "two"), "no finished runs on stream 'two'"),
        (("good", "close", "--sd", "1"), "both given"),
        (("good", "close", "--metric", "averge"), "unknown metric 'averge'; did you mean average"),
        (("good", "once"), "share 1 runs of equal task order and seed"),
        (("good", "shifted"), "differ by the same"),
        (("--sd", "0", "--pairs", "3"), "--sd 0: give a positive number"),
        (("good", "close", "--pairs", "5"), "--pairs goes with --sd"),
        (("--sd", "1"), "--sd alone says nothing"),
        (("--sd", "1", "--pairs", "1"), "needs 2 or more"),
        (("--sd", "1", "--pairs", "3", "--power", "1"), "between 0 and 1"),
        (("--sd", "1", "--pairs", "3", "--comparisons", "0"), "give 1 or more"),
    ],
)
def test_power_that_cannot_be_had_is_one_line(
    cli: Any, boards: Boards, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(boards({**SCORES, "once": [0.3], "shifted": [0.8, 0.81, 0.82]}).parent)
    found = cli("power", *arguments)
    assert found.code == 2 and message in found.error()


def test_power_says_why_two_rows_share_no_board(cli: Any, boards: Boards) -> None:
    boards({"good": [0.9, 0.91]})
    results = boards({"other": [0.5, 0.51]}, **{"model.spec": "slim"})
    found = cli("power", "good", "other", "--results", results)
    assert found.code == 2 and "share no board (good: one with mlp; other: one with slim)" in found.error()


def test_power_asks_for_the_board_where_there_are_two(cli: Any, boards: Boards) -> None:
    results = boards(SCORES, ("one", "two"))
    found = cli("power", "good", "bad", "--results", results)
    assert found.code == 2 and "share 2 boards (one with mlp, two with mlp): narrow --stream, --model" in found.error()


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("names", [["replay", "finetune"], ["a" * 70, "replay"]])
def test_a_terminal_shows_whole_columns_or_names_those_without_room(
    boards: Boards, width: int, names: list[str]
) -> None:
    results = boards({names[0]: [0.91, 0.92, 0.95], names[1]: [0.4, 0.3, 0.6]})
    board = Shown(make_boards(board_records(results))[0], COLUMNS)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal_text([board], "", width)).splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert all(number in text for number in ("0.9267 ± 0.0517", "0.4333 ± 0.3795"))
    assert all(name in text for name in names if len(name) < 24)
    assert sum(map(len, re.findall("a{2,}", text))) in (0, 70)
    shown = next(line for line in lines if "strategy" in line)
    missing = [column for column in header(board) if not re.search(rf"(^| ){column}( |$)", shown)]
    note = " ".join(lines).partition("no room for ")[2].partition(":")[0]
    assert sorted(filter(None, re.split(r",\s+", note))) == sorted(missing)
    assert bool(missing) == (width < 200)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.5, 0.7], "0.6000 ± 1.2706"),
        ([2e-5, 2.2e-5, 2.1e-5], "2.10e-05 ± 2.48e-06"),
        ([-3e-17], "-0.0000"),
        ([2.5e9], "2.50e+09"),
        ([250.0, 251.0], "250.5 ± 6.4"),
    ],
)
def test_numbers_keep_their_digits_at_every_scale(values: list[float], text: str) -> None:
    assert cell(Value(mean_interval(values), 0), "average", len(values)) == text


def test_across_says_who_is_on_which_stream_where_no_two_are_on_all(cli: Any, boards: Boards) -> None:
    boards({"a": [0.1], "b": [0.2]}, streams=("x", "y"))
    found = cli("leaderboard", "--results", boards({"a": [0.3]}, streams=("z",)), "--across")
    assert found.code == 2 and found.error().endswith("not x xxxxxxxx: b, a; y yyyyyyyy: b, a; z zzzzzzzz: a")
