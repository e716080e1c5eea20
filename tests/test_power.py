"""How many pairs are needed: published values, simulation, and what must hold for all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clbench.power import (
    pairs_needed,
    plan,
    power_of,
    smallest_difference,
    spread,
    spread_limit,
)


@pytest.mark.parametrize(
    ("effect", "power", "n"),
    [(0.2, 0.8, 199), (0.5, 0.8, 34), (0.8, 0.8, 15), (0.5, 0.9, 44), (1.0, 0.8, 10), (0.2, 0.95, 327)],
)
def test_pairs_needed_are_those_that_g_power_gives(effect: float, power: float, n: int) -> None:
    """Two-sided t-test of matched pairs, alpha 0.05 (Cohen's small, medium and large effects)."""
    assert pairs_needed(effect, 1.0, power) == n
    assert pairs_needed(-3 * effect, 3.0, power) == n


@pytest.mark.parametrize(("n", "effect"), [(2, 3.0), (3, 1.5), (5, 1.2), (10, 1.0), (20, 0.5)])
def test_power_is_how_often_the_test_finds_it(n: int, effect: float) -> None:
    from clbench.statistics import paired_tests

    draws = np.random.default_rng(n).normal(effect, 1, size=(20_000, n))
    found = paired_tests(draws, np.zeros((1, n)), list(range(n))).p < 0.05
    assert power_of(n, effect, 1.0) == pytest.approx(found.mean(), abs=0.012)


@pytest.mark.parametrize("n", [2, 3, 6, 40])
def test_power_is_the_integral_over_the_spread(n: int) -> None:
    """T = (Z + c) / sqrt(V / df), integrated over V; scipy's own tails are NaN at some of these places."""
    from scipy import integrate, stats

    df, reach = n - 1, stats.t.isf(0.025, n - 1)
    for effect in (0.3, 1.0, 3.0, 6.0, 9.0, 20.0):
        center = effect * math.sqrt(n)

        def found(root: float, center: float = center) -> float:
            edge = reach * root / math.sqrt(df)
            tails = stats.norm.sf(edge - center) + stats.norm.cdf(-edge - center)
            return float(tails * stats.chi2.pdf(root * root, df) * 2 * root)

        expected = integrate.quad(found, 0, 40, points=[math.sqrt(df)], limit=200)[0]
        assert power_of(n, effect, 1.0) == pytest.approx(expected, abs=1e-6)


def test_few_pairs_by_hand() -> None:
    """Without a difference it is found with probability alpha; without spread always."""
    assert power_of(5, 0.0, 1.0) == 0.05
    assert power_of(2, 0.1, 0.0) == 1.0
    assert power_of(7, 1000.0, 1.0) == pytest.approx(1.0)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.15, 5), st.floats(0.01, 10), st.sampled_from([0.5, 0.8, 0.95]), st.sampled_from([0.05, 0.005]))
def test_the_number_is_the_smallest_that_is_enough(effect: float, sd: float, power: float, alpha: float) -> None:
    n = pairs_needed(effect * sd, sd, power, alpha)
    assert n is not None and power_of(n, effect * sd, sd, alpha) >= power
    assert n == 2 or power_of(n - 1, effect * sd, sd, alpha) < power


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.floats(0.01, 10), st.sampled_from([0.5, 0.8, 0.95]))
def test_the_smallest_difference_has_the_power_and_needs_the_pairs(n: int, sd: float, power: float) -> None:
    found = smallest_difference(n, sd, power)
    assert power_of(n, found, sd) == pytest.approx(power, abs=1e-6)
    assert pairs_needed(found * (1 + 1e-6), sd, power) == n


def test_more_comparisons_need_more_pairs() -> None:
    one, ten = plan(0.02, 0.02, 5), plan(0.02, 0.02, 5, comparisons=10)
    assert one.n == 10 and ten.n == pairs_needed(0.02, 0.02, alpha=0.005)
    assert ten.n is not None and ten.n > 10
    assert ten.smallest is not None and one.smallest is not None and ten.smallest > one.smallest


def test_what_cannot_be_shown_has_no_number() -> None:
    assert pairs_needed(1e-5, 1.0) is None
    assert plan(1.0, 0.0, 5).n is None
    assert plan(1.0, None, 1).smallest is None


def test_the_upper_limit_of_the_spread_holds_it_as_often_as_it_says() -> None:
    """n = 3: sqrt(2 / 0.446287) = 2.116937, 0.446287 being the 20 % quantile of chi-square(2), -2 ln 0.8."""
    assert spread_limit(1.0, 3) == pytest.approx(math.sqrt(2 / (-2 * math.log(0.8))))
    draws = np.random.default_rng(0).normal(size=(4000, 5))
    held = [spread_limit(spread(list(line)), 5) >= 1 for line in draws]
    assert np.mean(held) == pytest.approx(0.8, abs=0.025)
    assert plan(1.0, 0.5, 5, observed=False).sd_upper is None


def test_the_spread_of_differences_by_hand() -> None:
    assert spread([1.0, 2.0, 3.0]) == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: power_of(1, 1.0, 1.0), "two pairs"),
        (lambda: power_of(3, 1.0, -1.0), "not negative"),
        (lambda: power_of(3, 1.0, 1.0, alpha=0.0), "alpha"),
        (lambda: pairs_needed(0.0, 1.0), "do not differ"),
        (lambda: pairs_needed(1.0, 1.0, power=1.0), "power"),
        (lambda: smallest_difference(3, math.inf), "finite"),
    ],
)
def test_values_out_of_range_are_errors(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
