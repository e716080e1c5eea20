"""From command-line texts to specifications."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clbench import catalogue
from clbench.catalogue import Setting
from clbench.cli.specify import assign, parse_budget
from clbench.errors import UserError
from clbench.quantities import parse_seeds
from clbench.settings import check_settings, parse_value
from clbench.spec import make_spec

from .conftest import SMALL, Cli


def setting(kind: str) -> Setting:
    return Setting("key", kind, None, True, False, "", "", {})


@pytest.mark.parametrize(
    "kind, text, value",
    [
        ("float", "0.5", 0.5),
        ("float", "1e-3", "1e-3"),  # YAML 1.1 takes it for text; pydantic makes a number of it
        ("int | None", "none", None),
        ("int | None", "null", None),
        ("str", "none", "none"),
        ("str | None", "None", None),
        ("str", "123", "123"),
        ("str", "yes", "yes"),
        ("str", "a: b", "a: b"),
        ("bool", "yes", True),
        ("list[int] | None", "[3,5,2]", [3, 5, 2]),
        ("str | list[str]", "[a, b]", ["a", "b"]),
        ("str | int", "3", 3),
        ("Literal['on', 'off']", "on", "on"),
        ("Literal[1, 3] | None", "3", 3),
        ("Any", "x", "x"),
        ("dict[str, float]", "{a: 1.5}", {"a": 1.5}),
    ],
)
def test_values_follow_the_setting_s_type(kind: str, text: str, value: Any) -> None:
    assert parse_value(text, setting(kind), f"key={text}") == value


def test_assignment_finds_the_owner() -> None:
    strategy, stream = catalogue.find("strategy", "ewc"), catalogue.find("stream", "split-digits")
    texts = ["gamma=0.5", "tasks=2", "strategy.lr=0.1", "stream.validation=0.2", "sizes=[2, 8]", "labels=true"]
    assert assign(texts, strategy, stream) == (
        {"gamma": 0.5, "lr": 0.1, "labels": "true"},
        {"tasks": 2, "validation": 0.2, "sizes": [2, 8]},
    )
    assert assign(["lr=1", "lr=2"], strategy, stream)[0] == {"lr": 2}, "the last one counts"


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20, unique=True))
def test_seed_lists(seeds: list[int]) -> None:
    assert parse_seeds(",".join(map(str, seeds))) == seeds


@given(st.integers(0, 2**31), st.integers(0, 999))
def test_seed_ranges(first: int, more: int) -> None:
    assert parse_seeds(f"{first}-{first + more}") == list(range(first, first + more + 1))


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "0-1000000", "1,,2", "0.5", str(2**32)])
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="--seeds"):
        parse_seeds(text)


def test_budgets() -> None:
    assert parse_budget(["flops=1e12,seconds=2min", "memory=1.5MiB"]) == {
        "flops": 1e12,
        "seconds": 120,
        "memory": 1.5 * 2**20,
    }
    assert parse_budget(["seconds=90", "steps=500", "memory=200"]) == {"seconds": 90, "steps": 500, "memory": 200}
    assert parse_budget([]) == {}
    for text in ("flops", "flops=", "flops=fast", "memory=1XB", "seconds=1MB", "flops=1.2.3", ""):
        with pytest.raises(UserError, match="--budget"):
            parse_budget([text])


def test_budgets_in_a_file() -> None:
    """In YAML as on the command line."""

    def budget(**limits: Any) -> dict[str, float]:
        found: dict[str, float] = make_spec({"strategy": "ewc", "stream": "split-digits", "budget": limits}).budget
        return found

    assert budget(maf="full", memory="10MB", seconds="2min", steps=7) == {
        "maf": 1, "memory": 1e7, "seconds": 120, "steps": 7,
    }  # fmt: skip
    assert budget(flops="0.5x") == {"flops": 0.5}
    for wrong in ({"maf": "lots"}, {"steps": 0}, {"maf": float("nan")}, {"flops": "1e400"}, {"flop": "full"}):
        with pytest.raises(UserError, match="budget"):
            budget(**wrong)


def test_settings_are_checked_as_far_as_the_source_tells(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text(
        "from nowhere import Odd\nfrom clbench.config import setting\nfrom clbench.strategy import Strategy\n"
        "class M(Strategy):\n    '''m'''\n    class Config(Strategy.Config):\n"
        "        odd: Odd = setting(None, 'x', source='y', ge=0)\n        even: int = 2\n        model_x: int = 0\n"
    )
    entry = catalogue.find("strategy", str(path))
    check_settings(entry, {"odd": object(), "even": "4", "model_x": 1})
    with pytest.raises(UserError, match="even='four'"):
        check_settings(entry, {"even": "four"})
    with pytest.raises(UserError, match="no setting 'evn'; did you mean even"):
        check_settings(entry, {"evn": 1})


def test_an_unreadable_base_class_leaves_the_check_to_the_run(cli: Cli, tmp_path: Path) -> None:
    """A base class made by a function cannot be read from the source; its settings still work."""
    (tmp_path / "made.py").write_text(
        "from clbench.config import setting\nfrom clbench.strategy import Strategy\n"
        "def make():\n    class Made(Strategy):\n        class Config(Strategy.Config):\n"
        "            hidden: int = setting(1, 'x', source='y')\n    return Made\n"
        "class Mine(make()):\n    '''Mine.'''\n"
    )
    answer = cli("run", "./made.py:Mine", *SMALL, "--set", "strategy.hidden=3", "--json", "--eval-grid", "none")
    assert answer.code == 0 and answer.json()["spec"]["strategy_settings"]["hidden"] == 3
    answer = cli("run", "./made.py:Mine", *SMALL, "--set", "strategy.hiden=3")
    assert answer.code == 2 and "no setting 'hiden'; did you mean hidden" in answer.error()


def test_a_mistake_found_late_leaves_no_run_behind(cli: Cli, tmp_path: Path) -> None:
    answer = cli("run", "finetune", *SMALL, "--tune", "sideways")
    assert answer.code == 2 and "sideways" in answer.error()
    assert not list((tmp_path / "results").glob("runs/*/*/*"))
