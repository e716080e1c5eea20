"""`clbench runs`, and finding runs by path, id and beginning."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from clbench.errors import UserError
from clbench.runs import find_run, iter_records

from .conftest import Answer, Cli


@pytest.fixture
def two_runs(small_run: Callable[..., Answer]) -> list[Path]:
    first = small_run("finetune", "--eval-grid", "none", "--json").json()["path"]
    second = small_run("finetune", "--eval-grid", "none", "--seed", "1", "--json").json()["path"]
    return [Path(first), Path(second)]


def test_list_show_remove(cli: Cli, two_runs: list[Path]) -> None:
    rows = cli("runs", "list", "--json").json()
    assert sorted(row["path"] for row in rows) == sorted(map(str, two_runs))
    assert {row["status"] for row in rows} == {"completed"}
    text = cli("runs", "list").out
    assert all(folder.name in text for folder in two_runs) and "split-digits" in text
    assert cli("runs", "list", "--stream", "other", "--json").json() == []
    shown = cli("runs", "show", two_runs[0].name, "--json").json()
    assert shown["path"] == str(two_runs[0]) and shown["run"] == two_runs[0].name
    assert "stability gap" in cli("runs", "show", two_runs[0]).out
    assert cli("runs", "remove", *two_runs).code == 0
    assert not any(folder.exists() for folder in two_runs)
    answer = cli("runs", "list")
    assert answer.code == 0 and "no runs" in answer.err and answer.out == ""


def test_removal_is_all_or_nothing_where_a_name_is_wrong(cli: Cli, two_runs: list[Path]) -> None:
    answer = cli("runs", "remove", two_runs[0], "nowhere")
    assert answer.code == 2 and all(folder.exists() for folder in two_runs)


def test_half_written_records_get_one_warning_each(cli: Cli, two_runs: list[Path]) -> None:
    parent = two_runs[0].parent
    for number, content in enumerate(('{"schema": 2, "sta', "[]", '{"schema": 1}', '{"schema": 2}', None)):
        folder = parent / f"2020-{number}"
        folder.mkdir()
        if content is not None:
            (folder / "record.json").write_text(content)
    answer = cli("runs", "list", "--json")
    assert len(answer.json()) == 2
    lines = answer.err.splitlines()
    assert len(lines) == 5 and all(line.startswith("clbench: left out: ") for line in lines)
    for number in range(5):
        assert any(f"2020-{number}" in line for line in lines)
    assert cli("runs", "remove", "2020-0").code == 0, "a damaged one can be removed by its id"


def test_a_damaged_record_cannot_be_shown(cli: Cli, two_runs: list[Path]) -> None:
    path = two_runs[0] / "record.json"
    record = json.loads(path.read_text())
    del record["metrics"]["matrix"]["rows"]
    path.write_text(json.dumps(record))
    answer = cli("runs", "show", two_runs[0])
    assert answer.code == 2 and "damaged" in answer.error()
    path.write_text("{")
    answer = cli("runs", "show", two_runs[0])
    assert answer.code == 2 and "record.json" in answer.error()


def test_a_run_that_died_is_called_killed(cli: Cli, two_runs: list[Path]) -> None:
    path = two_runs[0] / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "running"}))
    statuses = {row["path"]: row["status"] for row in cli("runs", "list", "--json").json()}
    assert statuses == {str(two_runs[0]): "killed", str(two_runs[1]): "completed"}
    assert f"clbench resume {two_runs[0]}" in cli("runs", "show", two_runs[0]).out


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    parts = {"spec": {}, "strategy": {}, "stream": {}, "metrics": {}, "cost": {}}
    (folder / "record.json").write_text(json.dumps({"schema": 2, "status": "completed", **parts}))
    return folder


def test_finding(tmp_path: Path) -> None:
    a = make(tmp_path / "runs" / "s" / "m" / "20260101-000000-aaaa")
    b = make(tmp_path / "runs" / "s" / "n" / "20260101-000000-bbbb")
    c = make(tmp_path / "runs" / "t" / "n" / "20260202-000000-aaaa")
    d = make(tmp_path / "runs" / "t" / "n" / "20260202-000000-aaaa-1")
    assert find_run(a) == a and find_run(str(b)) == b and find_run(a / "record.json") == a
    assert find_run("20260101-000000-a", tmp_path) == a
    assert find_run(c.name, tmp_path) == c, "an exact id wins over a longer one"
    assert find_run(d.name, tmp_path) == d
    with pytest.raises(UserError, match=r"fits 2 runs.*give more of the id"):
        find_run("202601", tmp_path)
    with pytest.raises(UserError, match=r"no run '20260101-000000-aaab'.*did you mean"):
        find_run("20260101-000000-aaab", tmp_path)
    with pytest.raises(UserError, match="no run in"):
        find_run(tmp_path)
    with pytest.raises(UserError, match="name is empty"):
        find_run("", tmp_path)
    assert [folder for folder, _ in iter_records(tmp_path)] == [a, b, c, d]


def test_the_summary_names_the_command_that_repeats_the_run(cli: Cli, two_runs: list[Path]) -> None:
    lines = cli("runs", "show", two_runs[1]).out.splitlines()
    (again,) = [line.removeprefix("again    ") for line in lines if line.startswith("again ")]
    assert again.startswith("clbench run finetune split-digits --set ") and again.endswith("--threads 1 --seed 1")
