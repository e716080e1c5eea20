"""Schedules as they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clbench.errors import UserError
from clbench.phase import TrainingConfig
from clbench.schedules import SCHEDULES, describe, find, portable


def test_parameters_after_a_colon() -> None:
    schedule = find("infinite:cooldown=linear,constant=0.5,floor=0.05,warmup=5,cooldown_share=0.5,anneal=0.1")
    assert [schedule.lr(s, 0, 100) for s in (4, 5, 30, 55, 90, 100)] == pytest.approx([1, 1, 0.75, 0.5, 0.5, 0.05])
    assert schedule.name.startswith("infinite:cooldown=linear")


def test_whole_numbers_are_steps_and_others_shares() -> None:
    assert find("rewarm-cosine:warmup=1").lr(0, 0, 50) == 1.0
    assert find("rewarm-cosine:warmup=1.0").lr(0, 0, 50) == 1 / 50


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_every_parameter_is_one_of_the_preset_and_has_a_source(name: str) -> None:
    for parameter in describe(SCHEDULES[name]):
        assert parameter["description"] and parameter["source"]
        default = parameter["default"]
        if default is None or isinstance(default, tuple):
            continue
        word = {True: "yes", False: "no"}[default] if isinstance(default, bool) else str(default)
        written = find(f"{name}:{parameter['name']}={word}")
        assert written.first == find(name).first and written.anneal == find(name).anneal


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("infinit", "unknown schedule 'infinit'; did you mean infinite"),
        ("infinite:cooldwn=linear", "has no parameter 'cooldwn'; did you mean cooldown"),
        ("infinite:cooldown=lineer", "'lineer' is none of cosine, inv_sqrt, linear"),
        ("infinite:constant=0.5,constant=0.6", "constant is given twice"),
        ("infinite:constant=", "after a colon stand values"),
        ("infinite:constant=-1", "constant=0.1, not '-1'"),
        ("infinite:constant=nan", "not 'nan'"),
        ("infinite:warmup=1.5", "0.01 (a share) or 20 (steps), not '1.5'"),
        ("infinite:constant=2", "does not lie between floor=0.1 and 1"),
        ("wsd:rewarm=maybe", "rewarm=yes or no"),
        ("constant:lr=1", "constant has no parameter 'lr'"),
        ("annealing:epochs=2.5", "epochs=5, not '2.5'"),
        ("nowhere.json", "cannot read schedule nowhere.json"),
    ],
)
def test_mistakes_are_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        find(text)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="schedule"):
        TrainingConfig(schedule=text)


def test_a_file_is_kept_as_what_it_says(tmp_path: Path) -> None:
    """A run's specification must not depend on a file that may change."""
    file = tmp_path / "mine.json"
    file.write_text(find("infinite:cooldown=linear").to_json())
    config = TrainingConfig(schedule=str(file))
    file.unlink()
    assert config.schedule is not None and str(tmp_path) not in config.schedule
    kept = find(config.schedule)
    assert [kept.lr(s, 0, 30) for s in range(31)] == [find("infinite:cooldown=linear").lr(s, 0, 30) for s in range(31)]
    assert portable("wsd") == "wsd"


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{"first": 3}')
    with pytest.raises(UserError, match=r"broken\.json: schedule: `first` must be a list"):
        find(str(tmp_path / "broken.json"))


def test_the_page_is_true() -> None:
    """docs/schedules.md names every preset; its file is a schedule, its numbers are right."""
    page = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text(encoding="utf-8")
    table = page.partition("## Presets")[2].partition("## Branches")[0]
    assert [name for name in SCHEDULES if f"`{name}`" not in table and f"`{name}[" not in table] == []
    mine = find(page.partition("```json\n")[2].partition("```")[0])
    assert [mine.lr(s, 0, 100) for s in (4, 5, 20, 99)] == pytest.approx([1, 1, 0.1, 0.1])
    assert mine.branch(0.2).lr(100, 1, 100) == pytest.approx(0.01)
    example: dict[str, Any] = {}
    code = page.partition("```python\n")[2].partition("```")[0]
    exec(code.replace("rates.branch", "branch = rates.branch"), example)
    assert f"{example['branch']:.3g}" == "7.04e-05"
