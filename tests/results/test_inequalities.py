"""Verdicts on claims: arithmetic on numbers that are written down here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import pytest

from clbench.errors import UserError

NAN = math.nan
VALUES = {"a": [1.0, 2.0, 3.0], "b": [1.5, 2.5, 2.5], "gone": [1.0, NAN, 1.0]}


@pytest.fixture
def module(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("inequalities")


def measure(function: str, arguments: tuple[str | float, ...], seeds: Sequence[int]) -> list[float]:
    assert function == "loss"
    return [VALUES[str(arguments[0])][seed] for seed in seeds]


def outcome(module: ModuleType, text: str) -> Any:
    return module.Expression(text).evaluate(measure, [0, 1, 2])


@pytest.mark.parametrize(
    ("text", "holds", "margins"),
    [
        ("loss(a) < loss(b)", (True, True, False), (0.5, 0.5, -0.5)),
        ("loss(b) >= loss(a)", (True, True, False), (0.5, 0.5, -0.5)),
        ("0 < loss(a) < 2.5", (True, True, False), (1.0, 0.5, -0.5)),
        ("-0.5 <= loss(a) - loss(b) <= 0.5", (True, True, True), (0.0, 0.0, 0.0)),
        ("loss(a) < loss(a)", (False, False, False), (0.0, 0.0, 0.0)),
        ("abs(loss(a) - 2) * 2 <= max(loss(b), 1.75)", (False, True, True), (-0.25, 2.5, 0.5)),  # 2, 0, 2 <= 1.75, 2.5
        ("loss(gone) > 0.5", (True, None, True), (0.5, NAN, 0.5)),
        ("loss(a) > 1 / (loss(a) - 1)", (None, True, True), (NAN, 1.0, 2.5)),
    ],
)
def test_an_inequality_is_judged_seed_by_seed(module: ModuleType, text: str, holds: Any, margins: Any) -> None:
    found = outcome(module, text)
    assert found.holds == holds
    assert found.margins == pytest.approx(margins, nan_ok=True)


def test_what_is_compared_is_kept_in_numbers(module: ModuleType) -> None:
    found = outcome(module, "loss(a) < 2 * loss(b) < 9")
    assert [values for _, values in found.sides] == [(1.0, 2.0, 3.0), (3.0, 5.0, 5.0), (9.0, 9.0, 9.0)]
    alone = outcome(module, "loss(a) - loss(b)")
    assert alone.holds == () and alone.sides == (("loss(a) - loss(b)", (-0.5, -0.5, 0.5)),)


@pytest.mark.parametrize(
    ("holds", "share", "text", "passed"),
    [
        ((True, True, True), 1, "holds", True),
        ((True,), 1, "holds (one seed)", True),
        ((True, True, False), 1, "does not hold (2 of 3 seeds)", False),
        ((True, True, False), "2/3", "holds in 2 of 3 seeds", True),
        ((True, False, False), "2/3", "does not hold (1 of 3 seeds)", False),
        ((True, True, False, True), "2/3", "holds in 3 of 4 seeds", True),
        ((True, True, False, False), "2/3", "does not hold (2 of 4 seeds)", False),
        ((False, False, False), "2/3", "does not hold", False),
        ((True, None, True), 1, "does not hold (2 of 3 seeds)", False),
        ((True, None, True), "2/3", "holds in 2 of 3 seeds", True),
        ((None, None), 1, "not decided", None),
        ((), 1, "not decided", None),
    ],
)
def test_a_verdict_counts_seeds(module: ModuleType, holds: Any, share: Any, text: str, passed: Any) -> None:
    seeds = tuple(range(len(holds)))
    verdict = module.judge(module.Outcome("", seeds, (), holds, (0.0,) * len(holds)), share)
    assert (verdict.text, verdict.passed) == (text, passed)


def test_a_claim_is_as_strong_as_its_weakest_inequality(module: ModuleType) -> None:
    yes, most = module.Verdict("holds", True), module.Verdict("holds in 2 of 3 seeds", True)
    no, unknown = module.Verdict("does not hold (1 of 3 seeds)", False), module.Verdict("not decided", None)
    assert module.together([yes, yes]) == yes
    assert module.together([yes, most]) == most
    assert module.together([no]) == no
    assert module.together([yes, no, most]) == module.Verdict("holds in part (2 of 3)", False)
    assert module.together([no, no]) == module.Verdict("does not hold", False)
    assert module.together([yes, unknown]).passed is None


def test_mean_sd_spread_and_noise(module: ModuleType) -> None:
    assert module.mean_sd([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert module.mean_sd([1.0, NAN]) == (1.0, None)
    assert math.isnan(module.mean_sd([NAN])[0])
    runs = [[1.0, 2.0, 3.0], [1.5, 2.5, 2.9], [1.1, 2.1, 3.1]]  # means 2, 2.3, 2.1
    assert module.spread(runs) == pytest.approx(0.3)
    assert module.noise(runs) == pytest.approx(math.sqrt((0.2**2 + 0.2**2 + 0.4**2) / 2 / 3))
    assert math.isnan(module.noise([[1.0], [2.0]]))


def test_runs_share_the_seeds_that_all_have(module: ModuleType) -> None:
    available = {"a": {0, 1, 2}, "b": {1, 2, 3}, "c": set()}
    assert module.seeds_of(available, ["a", "b"]) == [1, 2]
    assert module.seeds_of(available, ["a", "c"]) == []


@pytest.mark.parametrize(
    "text",
    ["loss(a", "loss(a) == 1", "loss(a).real < 1", "__import__('os') and 1", "[1] < [2]", "loss(loss(a)) < 1", "x < 1"],
)
def test_nothing_but_inequalities_is_evaluated(module: ModuleType, text: str) -> None:
    with pytest.raises(UserError):
        outcome(module, text)


@pytest.mark.parametrize(
    ("text", "ratio"),
    [("loss(a) / loss(b)", True), ("loss(a) / 2 < 1", False), ("loss(a) - loss(b)", False), ("1 / abs(loss(a))", True)],
)
def test_ratios_of_runs_have_no_unit(module: ModuleType, text: str, ratio: bool) -> None:
    assert module.Expression(text).is_ratio == ratio
