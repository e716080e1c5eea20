"""`clbench export`, `clbench import` and what follows: boards and `clbench verify`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clbench.board_records import last_verdict
from clbench.record import read_record

from .conftest import Cli

Runs = dict[tuple[str, int], Path]


@pytest.fixture
def results(finished_results: Path, cli: Cli) -> Path:
    """A copy of the finished runs in the test's own folder."""
    shutil.copytree(finished_results, "mine")
    return Path("mine")


def test_from_one_results_folder_to_another(cli: Cli, results: Path, finished_runs: Runs) -> None:
    answer = cli("export", "--all", "--out", "board.zip", "--results", results)
    assert answer.code == 0 and "5 runs" in answer.out and "no weights" in answer.out
    answer = cli("import", "board.zip", "--out", "other")
    assert answer.code == 0 and "5 runs added as unverified" in answer.out
    names = {folder.name for folder in finished_runs.values()}
    assert {path.name for path in Path("other/runs").glob("*/*/*")} == names
    assert not list(Path().glob(".clbench-import-*"))
    (row,) = [r for r in cli("leaderboard", "--json", "--results", "other").json() if r["strategy"] == "nmc"]
    assert (row["verified"], row["imported"]) == (0, 1)
    assert "imported" in cli("leaderboard", "--results", "other").out
    answer = cli("verify", "nmc@split-digits", "--results", "other")
    assert answer.code == 0 and "1 runs: 1 identical" in answer.out
    (row,) = [r for r in cli("leaderboard", "--json", "--results", "other").json() if r["strategy"] == "nmc"]
    assert row["verified"] == 1, "the mark is cleared"
    again = cli("import", "board.zip", "--out", "other", "--json").json()
    assert (again["added"], len(again["known"])) == ([], 5)
    assert cli("import", "board.zip", "--out", results, "--json").json()["added"] == [], "here already"


def test_what_is_exported(cli: Cli, results: Path, finished_runs: Runs) -> None:
    one = finished_runs["replay", 1].name
    assert cli("export", one, "--out", "a.tar.gz", "--json", "--results", results).json()["runs"] == 1
    assert cli("export", "replay@split-digits", "--out", "a.zip", "--json", "--results", results).json()["runs"] == 2
    both = cli("export", "replay@split-digits", one, "--out", "b.zip", "--json", "--results", results).json()
    assert both["runs"] == 2 and Path("a.zip").read_bytes() == Path("b.zip").read_bytes()
    assert (
        cli("export", "--board", "split-digits", "--out", "c.zip", "--json", "--results", results).json()["runs"] == 5
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "a.zip"], "nothing is named"),
        (["--all", "--out", "a.rar"], "NAME.zip or NAME.tar.gz"),
        (["--all", "--out", ".zip"], "NAME.zip or NAME.tar.gz"),
        (["--all", "--out", "no/such/a.zip"], "cannot write"),
        (["--board", "split-digts", "--out", "a.zip"], "did you mean split-digits"),
        (["replai@split-digits", "--out", "a.zip"], "did you mean replay@split-digits"),
        (["20990101", "--out", "a.zip"], "no run"),
    ],
)
def test_mistakes_in_export_are_one_line(cli: Cli, results: Path, arguments: list[str], message: str) -> None:
    answer = cli("export", *arguments, "--results", results)
    assert answer.code == 2 and message in answer.error()
    assert not list(Path().glob("*.zip")) and not list(Path().glob(".*partial"))


def test_edited_and_unfinished_runs_are_not_exported(cli: Cli, results: Path) -> None:
    folder = next(results.glob("runs/*/nmc/*"))
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | {"warnings": ["all is well"]}))
    answer = cli("export", folder, "--out", "a.zip")
    assert answer.code == 2 and "was edited" in answer.error()
    answer = cli("export", "--all", "--out", "a.zip", "--json", "--results", results)
    assert answer.json()["runs"] == 4 and "left out" in answer.err
    (folder / "record.json").write_text(json.dumps(record | {"status": "running"}))
    answer = cli("export", folder, "--out", "b.zip")
    assert answer.code == 2 and "is running" in answer.error() and not Path("b.zip").exists()


def test_one_group_of_settings_can_be_exported(cli: Cli, results: Path) -> None:
    answer = cli("export", "replay@split-digits,memory_size=200", "--out", "some.zip", "--results", results, "--json")
    assert answer.json()["runs"] == 2
    answer = cli("export", "replay@split-digits,memory_size=1", "--out", "none.zip", "--results", results)
    assert answer.code == 2 and "memory_size=1; there are 200" in answer.error()


def test_mistakes_in_import_are_one_line_and_leave_nothing(cli: Cli) -> None:
    assert "no such archive" in cli("import", "nowhere.zip").error()
    Path("text.zip").write_text("hello")
    answer = cli("import", "text.zip")
    assert answer.code == 2 and "no archive of `clbench export`" in answer.error()
    Path("empty.zip").touch()
    assert cli("import", "empty.zip").code == 2
    assert cli("import", ".").code == 2
    assert sorted(path.name for path in Path().iterdir()) == ["empty.zip", "text.zip"]


def test_verify_names_samples_and_stamps(cli: Cli, results: Path) -> None:
    answer = cli("verify", "--board", "split-digits", "--results", results, "--json")
    found = answer.json()
    assert answer.code == 0 and found["identical"] == len(found["runs"]) == 3, "one of every row"
    stamped = [path for path in results.glob("runs/*/*/*") if "verification" in read_record(path)]
    assert sorted(map(str, stamped)) == sorted(run["run"] for run in found["runs"])
    (stamp,) = read_record(stamped[0])["verification"]
    assert stamp["verdict"] == "identical" and str(results) not in json.dumps(stamp)
    before = {path: (path / "record.json").read_bytes() for path in results.glob("runs/*/*/*")}
    answer = cli("verify", "nmc@split-digits", "--no-stamp", "--results", results)
    assert answer.code == 0
    assert before == {path: (path / "record.json").read_bytes() for path in before}


def test_verify_finds_edits_and_forgeries_on_a_board(cli: Cli, results: Path) -> None:
    from clbench.record import write_record

    nmc, replay = next(results.glob("runs/*/nmc/*")), sorted(results.glob("runs/*/replay/*"))
    record = json.loads((nmc / "record.json").read_text())
    record["metrics"]["average"] = 0.999
    (nmc / "record.json").write_text(json.dumps(record))
    for folder in replay:
        write_record(folder, read_record(folder) | {"state_hash": "0" * 64})
    answer = cli("verify", "--board", "--results", results, "--json")
    found = answer.json()
    assert answer.code == 1 and (found["identical"], found["differs"], len(found["edited"])) == (1, 1, 1)
    assert sum(last_verdict(read_record(folder)) == "differs" for folder in replay) == 1, "stamped, too"
    assert (nmc / "record.json").read_text() == json.dumps(record), "a new seal would hide the edit"
    (replay[0] / "config.yaml").write_text("strategy: nmc\n")
    answer = cli("verify", "replay@split-digits", "--results", results)
    assert answer.code == 1 and "2 edited" in answer.out and answer.err.count("left out: ") == 2, answer.err
    listed = {row["path"]: row["status"] for row in cli("runs", "list", "--results", results, "--json").json()}
    assert sorted(path for path, status in listed.items() if status == "edited") == sorted(map(str, [nmc, replay[0]]))
    assert "was edited after the run" in cli("runs", "show", nmc).err
    answer = cli("verify", nmc)
    assert answer.code == 1 and "no stamp is written" in answer.err and "was edited" in answer.err


def test_mistakes_in_verify_are_one_line(cli: Cli, results: Path) -> None:
    for arguments, message in (
        ([], "nothing is named"),
        (["a", "b", "--board"], "one STREAM"),
        (["--board", "split-digts"], "did you mean split-digits"),
        (["nmk@split-digits"], "did you mean nmc"),
        (["@split-digits"], "STRATEGY@STREAM"),
        (["--board", "--all", "--sample", "2"], "use one of them"),
        ([next(results.glob("runs/*/nmc/*")), "--all"], "rows"),
    ):
        answer = cli("verify", *arguments, "--results", results)
        assert answer.code == 2 and message in answer.error(), answer.err


def test_a_stamp_that_cannot_be_written_is_one_line(cli: Cli, results: Path) -> None:
    folder = next(results.glob("runs/*/nmc/*"))
    (folder / f".record.json.{os.getpid()}.partial").mkdir()
    before = (folder / "record.json").read_bytes()
    answer = cli("verify", folder)
    assert answer.code == 0 and answer.out.startswith("identical")
    assert "the stamp could not be written" in answer.err and (folder / "record.json").read_bytes() == before


def test_an_interrupted_verification_keeps_its_stamps(cli: Cli, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    from clbench.engine.session import Session

    steps = []
    real = Session.stepped

    def counted(self: Session, batch: Any) -> None:
        real(self, batch)
        steps.append(1)
        if len(steps) == interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)

    interrupt_at = read_record(next(results.glob("runs/*/finetune/*")))["cost"]["steps"] + 20
    monkeypatch.setattr(Session, "stepped", counted)
    answer = cli("verify", "finetune@split-digits", "--results", results)
    assert answer.code == 130 and "1 of 2 runs are done; their stamps are kept" in answer.err
    stamps = [read_record(folder).get("verification") for folder in results.glob("runs/*/finetune/*")]
    assert sorted(stamp is not None for stamp in stamps) == [False, True]


def test_import_and_export_leave_torch_alone(finished_results: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from clbench.cli import main; code = main(sys.argv[1:]);"
        "assert code == 0 and not {'torch', 'pandas', 'mlflow'} & set(sys.modules), set(sys.modules)"
    )
    for arguments in (["export", "--all", "--out", "a.zip", "--results", str(finished_results)], ["import", "a.zip"]):
        subprocess.run([sys.executable, "-c", script, *arguments], cwd=tmp_path, check=True, capture_output=True)
