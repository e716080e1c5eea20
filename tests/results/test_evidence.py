"""What claims ask of runs, on tables written down by hand; the page; the curves of figures."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from clbench.errors import UserError
from clbench.table import EvaluationTable, Row

OWNERS = {"novels": 0, "code": 1, "poems": 2, "letters": None}
ENDS = {1: (2.0, 4.0, 5.0, 3.0), 2: (2.3, 2.5, 5.2, 3.1), 3: (2.6, 2.4, 3.0, 3.3)}
STEPS = {1: 100, 2: 150, 3: 250}
NOVELS = [(1, 100, 2.0), (1, 101, 2.1), (1, 102, 2.5), (1, 105, 2.2), (1, 110, 2.3), (1, 150, 2.3)]
NOVELS += [(2, 150, 2.3), (2, 151, 2.3), (2, 200, 2.31), (2, 250, 2.6)]
CODE = [(1, 101, 4.2), (1, 102, 3.9), (1, 105, 3.0), (1, 110, 3.05), (1, 150, 2.5)]
CODE += [(2, 150, 2.5), (2, 151, 2.5), (2, 200, 2.49), (2, 250, 2.4)]
Script = Callable[[str], ModuleType]


def table(extra: float = 0.0) -> EvaluationTable:
    """Losses of three tasks; `extra` on all of the second one's within its own task."""
    found = EvaluationTable()
    for seen, values in ENDS.items():
        for (name, owner), value in zip(OWNERS.items(), values, strict=True):
            found.append(Row(STEPS[seen], seen, name, value, n=64, belongs_to=owner, metric="nats"))
    for name, rows in (("novels", NOVELS), ("code", CODE)):
        for seen, step, value in rows:
            more = extra if name == "code" and seen == 1 else 0.0
            row = Row(step, seen, name, value + more, 64, OWNERS[name], "trace", "nats", se=0.001)
            found.append(row)
    return found


@pytest.fixture
def quantities(script: Script) -> ModuleType:
    return script("run_quantities")


@pytest.fixture
def make(quantities: ModuleType, tmp_path: Path) -> Callable[..., Any]:
    def of(name: str, extra: float = 0.0) -> Any:
        folder = tmp_path / name
        folder.mkdir()
        table(extra).write(folder / "evaluations.parquet")
        return quantities.Run(folder, {"stream": {"direction": "lower"}})

    return of


@pytest.mark.parametrize(
    ("name", "arguments", "value"),
    [
        ("final", (), (2.6 + 2.4 + 3.0) / 3),
        ("final", ("letters",), 3.3),
        ("after", (1, "poems"), 5.2),
        ("learned", ("code",), 2.5),
        ("learned", (), (2.0 + 2.5 + 3.0) / 3),
        ("forgetting", ("novels",), 0.6),
        ("forgetting", ("code",), -0.1),
        ("forgetting", (), 0.25),
        ("adaptation", ("poems",), 2.2),
        ("adaptation", (), 1.85),
        ("backward", (), (2.3 + 2.6 + 2.4) / 3),
        ("diagonal_share", (), 2 / 3),
        ("depth", ("novels", 1), 0.5),
        ("depth", ("novels",), 0.4),
        ("depth", (), (0.5 + (0.3 + 0.0) / 2) / 2),
        ("transient", ("novels", 1), 0.2),
        ("tolerance", ("novels", 1), 0.01),
        ("area", ("novels", 1), 0.05 + 0.3 + 3 * 0.35 + 5 * 0.25 + 40 * 0.3),
        ("recovery", ("novels", 1), 50.0),
        ("recovery", ("code", 2), 0.0),
        ("new_depth", ("code",), 0.2),
        ("sampled_depth", ("novels", 1), 0.5),
        ("sampled_depth", ("novels", 5), 0.3),
        ("sampled_depth", ("novels", 50), 0.3),
        ("rise", ("code",), 0.05),
        ("rise", ("code", 0.2), 0.0),
    ],
)
def test_quantities_of_a_run(
    quantities: ModuleType, make: Callable[..., Any], name: str, arguments: tuple[Any, ...], value: float
) -> None:
    assert quantities.QUANTITIES[name].of(make("run"), *arguments) == pytest.approx(value)


def test_what_did_not_recover_is_noted(quantities: ModuleType, make: Callable[..., Any]) -> None:
    run = make("run")
    quantities.recovery(run, "novels", 1)
    assert run.notes == ["novels not recovered within 50 steps"]


def test_a_lead_is_the_largest_difference_early_on(quantities: ModuleType, make: Callable[..., Any]) -> None:
    low, high = make("low"), make("high", extra=0.25)
    assert quantities.lead(high, low, "code", 0.1) == pytest.approx(0.25)
    assert quantities.lead(low, high, "code", 0.1) == pytest.approx(-0.25)
    with pytest.raises(quantities.NoValue, match="never evaluated"):
        quantities.lead(low, high, "code", 0.01)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("final", ("plays",), "no evaluation set 'plays'; there are novels, code, poems, letters"),
        ("forgetting", ("letters",), "held out"),
        ("depth", ("poems",), "no gap of poems"),
        ("new_depth", ("letters",), "not followed"),
        ("after", (7, "code"), "no boundary row"),
    ],
)
def test_what_a_run_does_not_have_is_said(
    quantities: ModuleType, make: Callable[..., Any], name: str, arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(quantities.NoValue, match=message):
        quantities.QUANTITIES[name].of(make("run"), *arguments)


def test_depth_does_not_grow_on_coarser_nested_grids(quantities: ModuleType, tmp_path: Path) -> None:
    numbers = random.Random(5)
    for trial in range(20):
        folder = tmp_path / str(trial)
        folder.mkdir()
        rows = [Row(0, 1, "old", 2.0, 64, 0, metric="nats"), Row(0, 1, "old", 2.0, 64, 0, "trace", "nats")]
        rows += [Row(step, 1, "old", 2 + numbers.gauss(0, 1), 64, 0, "trace", "nats") for step in range(1, 101)]
        rows += [Row(100, 2, "old", 2.0, 64, 0, metric="nats"), Row(100, 2, "new", 2.0, 64, 1, metric="nats")]
        EvaluationTable(rows).write(folder / "evaluations.parquet")
        run = quantities.Run(folder, {"stream": {"direction": "lower"}})
        depths = [quantities.sampled_depth(run, "old", every) for every in (1, 2, 4, 8, 16, 32, 64)]
        assert depths == sorted(depths, reverse=True)
        assert depths[0] == pytest.approx(quantities.depth(run, "old"))
        assert depths[0] > depths[-1]


CLAIMS = """
runs:
  low: finetune@text-shift lr=0.1
  high: finetune@text-shift lr=0.2
  other: replay@text-shift
claims:
  - id: A
    claim: a lower rate is better
    source: nobody
    holds: [final(low) < final(high), "lead(high, low, code, 0.1) > 0.2"]
    beside: [depth(low) / 2]
    open: the third task
  - id: B
    claim: replay is better
    source: nobody
    holds: [final(other) < final(low)]
  - id: C
    claim: rates do not matter
    source: nobody
    enough: 1/2
    holds: ["spread(learned, low, high, code) <= 2 * noise(learned, low, high, code)"]
"""


@pytest.fixture
def held(script: Script, make: Callable[..., Any], tmp_path: Path) -> tuple[ModuleType, Any, list[Any]]:
    evidence = script("evidence")
    (tmp_path / "claims.yaml").write_text(CLAIMS, encoding="utf-8")
    described, claims = evidence.read(tmp_path / "claims.yaml")
    runs = {name: {s: make(f"{name}{s}", extra) for s in (0, 1)} for name, extra in (("low", 0.0), ("high", 0.3))}
    return evidence, evidence.Evidence(described, runs, {"other": "no such run"}), claims


def test_a_claim_is_held_against_runs(held: Any) -> None:
    evidence, found, claims = held
    line, section = evidence.held(claims[0], found)
    assert line[0] == "A" and line[2] == "**holds in part (1 of 2)**" and line[3] == "+0.0000 nats"
    assert line[4] == "the third task"
    assert "| `lead(high, low, code, 0.1) > 0.2` | 0.3000 ; 0.2000 nats | +0.1000 nats | holds |" in section
    assert "| `depth(low) / 2` | 0.1625 nats | | beside |" in section
    assert "`low`: `finetune@text-shift lr=0.1` (seeds 0, 1)" in section


def test_what_is_not_there_decides_nothing(held: Any) -> None:
    evidence, found, claims = held
    line, section = evidence.held(claims[1], found)
    assert line[2:] == ["**not decided**", "", "other: no such run"]
    assert "`other`: `replay@text-shift`: not there" in section


def test_a_spread_is_one_verdict_over_all_seeds(held: Any) -> None:
    _, found, claims = held
    outcome = found.outcome(claims[2].holds[0])
    assert outcome.sides[0][1] == outcome.sides[1][1] == (0.0, 0.0)
    assert outcome.holds == (True, True)


def test_the_table_of_verdicts_goes_between_the_marks_of_a_page(held: Any, tmp_path: Path) -> None:
    evidence, _, _ = held
    made = evidence.page("tiny", tmp_path)  # no runs in the folder
    table = evidence.table_of(made)
    assert len(table.splitlines()) == 2 + 3 and table.count("**not decided**") == 3
    page = "Text\n\n<!-- claims -->\nold\n<!-- end of claims -->\n\nmore\n"
    once = evidence.with_table(page, table)
    assert once == f"Text\n\n<!-- claims -->\n{table}\n<!-- end of claims -->\n\nmore\n"
    assert evidence.with_table(once, table) == once
    with pytest.raises(UserError, match="<!-- claims -->"):
        evidence.with_table("Text", table)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("finale(low) < 1", "unknown quantity 'finale'.*final"),
        ("final(lows) < final(low)", "unknown run 'lows'.*low"),
        ("1 < 2", "names no run"),
        ("final(low, code, 1, 2) < 1", "too many"),
    ],
)
def test_a_slip_in_a_claim_is_one_line(held: Any, script: Script, rule: str, message: str) -> None:
    _, found, _ = held
    with pytest.raises(UserError, match=message):
        found.outcome(script("inequalities").Expression(rule))


def test_numbers_are_written_with_their_spread(script: Script) -> None:
    evidence = script("evidence")
    assert evidence.number([1.0, 2.0]) == "1.5000 ± 0.7071"
    assert evidence.number([0.5, 0.5]) == "0.5000"
    assert evidence.number([120.0, 130.0]) == "125.0 ± 7.1"
    assert evidence.number([math.nan]) == "no value"
    assert evidence.number([math.inf, 1.0]) == "diverged"
    assert evidence.with_unit([-0.25], "nats") == "-0.2500 nats"
    assert evidence.with_unit([0.25], "nats") == "+0.2500 nats"


def test_a_description_finds_the_row_with_its_settings(script: Script) -> None:
    evidence = script("evidence")
    spec = {
        "stream": "text-weak",
        "stream_settings": {"no_shift": True},
        "strategy_settings": {"lr": 0.001, "schedule": "cosine:floor=0"},
        "upstream_settings": {"lr": 0.01},
        "eval_grid": "1",
    }
    for text, fits in (
        ("text-weak lr=0.001 no_shift=true", True),
        ("text-weak no_shift=none", False),
        ("text-weak schedule=cosine:floor=0 upstream.lr=0.01 eval_grid=1", True),
        ("text-weak warmup=none", True),
        ("text-strong lr=0.001", False),
    ):
        stream, *wanted = text.split()
        assert evidence._fits({"spec": spec}, stream, wanted) == fits


def told(**metrics: Any) -> Any:
    """A run with a record of accumulation and retention."""
    over_stream = [{"zero_shot_retention": value} for value in (0.2, 0.26, 0.23)]
    record = {"metrics": {**metrics, "over_stream": over_stream}}
    return SimpleNamespace(record={**record, "diagnostics": [{"values": {"effective_rank": {"a": 4, "b": 7}}}]})


def test_accumulation_and_retention_are_the_records_in_points(script: Script) -> None:
    module = script("retention_quantities")
    run = told(knowledge_accumulation=0.25, zero_shot_retention=0.23, geometric_mean=None)
    assert module.accumulation(run) == pytest.approx(25)
    assert module.retention(run) == pytest.approx(23)
    assert math.isnan(module.balance(run))
    assert module.best_retention_gain(run) == pytest.approx(6)
    assert module.effective_rank(run) == 5.5


def test_runs_of_a_row_are_told_apart_by_what_varies(script: Script) -> None:
    numbering = script("evidence").numbering

    def specs(*pairs: tuple[int, int]) -> list[Any]:
        return [{"spec": {"seed": seed, "order_seed": order}} for seed, order in pairs]

    assert list(map(numbering(rows := specs((3, 0), (4, 0))), rows)) == [3, 4]
    assert list(map(numbering(rows := specs((0, 5), (0, 6))), rows)) == [5, 6]
    assert list(map(numbering(rows := specs((2, 7))), rows)) == [2]
    with pytest.raises(UserError, match="differ in seed and in order"):
        numbering(specs((0, 0), (1, 1)))


def test_points_have_one_digit(script: Script) -> None:
    evidence = script("evidence")
    assert evidence.with_unit([1.26, 1.26], "points") == "+1.3 points"
    assert evidence.with_unit([1.26, 1.26], "nats") == "+1.2600 nats"


def test_a_spread_has_the_unit_of_what_is_spread(script: Script) -> None:
    evidence, expression = script("evidence"), script("inequalities").Expression
    assert evidence._unit(expression("spread(accumulation, a, b) > 1")) == "points"
    assert evidence._unit(expression("spread(final, a, b) > 1")) == "nats"
