"""`clbench new strategy` and `clbench doctor`."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path

import pytest

from .conftest import SMALL, Cli


def test_a_new_strategy_runs_as_it_is(cli: Cli, tmp_path: Path) -> None:
    answer = cli("new", "strategy", "my-method")
    assert answer.code == 0 and "clbench run ./my_method.py:MyMethod split-digits" in answer.out
    assert cli("show", "strategy", "./my_method.py:MyMethod", "--json").json()["settings"][-1]["name"] == "strength"
    run = cli("run", "./my_method.py:MyMethod", *SMALL, "--json")
    assert run.code == 0 and run.json()["status"] == "completed"


def test_the_new_test_passes(cli: Cli, tmp_path: Path) -> None:
    cli("new", "strategy", "other")
    found = {name: value for name, value in run_path("test_other.py").items() if name.startswith("test_")}
    assert len(found) == 2
    for name, test in found.items():
        test(tmp_path / name)


def test_nothing_is_overwritten(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("mine")
    answer = cli("new", "strategy", "mine")
    assert answer.code == 2 and "test_mine.py exists" in answer.error()
    assert (tmp_path / "test_mine.py").read_text() == "mine" and not (tmp_path / "mine.py").exists()


@pytest.mark.parametrize("name", ["1st", "a/b", "", "class", "é"])
def test_names_that_cannot_be(cli: Cli, tmp_path: Path, name: str) -> None:
    assert cli("new", "strategy", name).code == 2
    assert list(tmp_path.iterdir()) == []


def test_doctor(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLBENCH_DATA", str(tmp_path / "none"))
    findings = {f["what"]: f for f in cli("doctor", "--json").json()}
    assert findings["python"]["ok"] and findings["torch"]["ok"] and findings["results"]["ok"]
    assert not findings["data root"]["ok"] and "clbench data get" in findings["data root"]["remedy"]
    (tmp_path / "file").write_text("")
    answer = cli("doctor", "--results", tmp_path / "file" / "results")
    assert answer.code == 0
    (line,) = [line for line in answer.out.splitlines() if " results " in line]
    assert line.startswith("warn") and "--out" in line
