"""`clbench check`: lines for a reader, one object for a program, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BAD = Path(__file__).parents[1] / "conformance" / "bad_strategies.py"


def test_a_strategy_that_passes(cli: Any) -> None:
    answer = cli("check", "nmc", "--json")
    assert (answer.code, answer.err) == (0, "")
    found = answer.json()
    assert (found["strategy"], found["passed"]) == ("nmc", True)
    assert {probe["status"] for probe in found["probes"]} == {"pass", "skip"}
    assert {probe["stream"] for probe in found["probes"]} == {"split-digits"}
    assert all(probe["evidence"] and "\n" not in probe["evidence"] for probe in found["probes"])


def test_a_strategy_that_fails(cli: Any) -> None:
    name = f"{BAD}:UndeclaredMemory"
    answer = cli("check", name)
    assert answer.code == 1
    lines = answer.out.splitlines()
    assert lines[0] == "split-digits"
    assert lines[1].split()[:3] == ["fail", "declared", "needs"]
    assert "keeps samples in a memory without declaring it" in lines[1]
    assert answer.err == f"clbench: {name} fails 1 of 1 probes: declared needs (split-digits)\n"

    as_json = cli("check", name, "--json")
    assert as_json.code == 1
    assert json.loads(as_json.out)["passed"] is False
    assert as_json.err == answer.err


def test_what_a_file_prints_is_not_in_the_answer(cli: Any, tmp_path: Path) -> None:
    loud = tmp_path / "loud.py"
    loud.write_text(
        "from clbench.strategy import Needs, Strategy\n"
        "print('hello')\n"
        "class Mine(Strategy):\n"
        "    needs = Needs(objectives=('classification',))\n"
        "    def setup(self):\n"
        "        print('hello')\n"
        "        self.is_last_task()\n"
    )
    answer = cli("check", loud, "--json")
    assert answer.code == 1
    assert [probe["probe"] for probe in answer.json()["probes"]] == ["declared needs"]
    assert answer.err.startswith("hello\nclbench: ")


def test_wrong_usage(cli: Any, tmp_path: Path) -> None:
    answer = cli("check", "nmcc")
    assert answer.code == 2
    assert answer.error().startswith("unknown strategy 'nmcc'; did you mean nmc?")
    broken = tmp_path / "broken.py"
    broken.write_text("class Mine(:\n")
    answer = cli("check", broken)
    assert answer.code == 2
    assert "broken.py:1: " in answer.error()
    other = tmp_path / "other.py"
    other.write_text(
        "from clbench.strategy import Needs, Strategy\n"
        "class Mine(Strategy):\n"
        "    needs = Needs(objectives=('regression',))\n"
    )
    answer = cli("check", other)
    assert answer.code == 2
    assert "works with regression; to be checked: classification, language_modeling, contrastive" in answer.error()


def test_one_objective_alone(cli: Any) -> None:
    answer = cli("check", "zscl", "--objective", "classification")
    assert answer.code == 2
    assert "zscl works with contrastive, language_modeling; to be checked: classification" in answer.error()
    answer = cli("check", "zscl", "--objective", "contrast")
    assert answer.code == 2
    assert answer.error() == "unknown objective 'contrast'; did you mean contrastive?"
