"""Intervals: against scipy, hand-worked cases, and how often they hold the truth."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clbench.statistics import bootstrap_percentiles, mean_interval, paired_difference, student_quantile

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 8, 9, 29, 30, 100])
def test_students_quantile_is_scipys(df: int) -> None:
    from scipy import stats

    assert student_quantile(df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-9)


def test_students_quantile_needs_a_degree_of_freedom() -> None:
    with pytest.raises(ValueError, match="1 degree"):
        student_quantile(0)


def test_one_run_has_no_interval() -> None:
    found = mean_interval([0.5])
    assert (found.mean, found.low, found.high, found.n, found.half_width) == (0.5, None, None, 1, None)


def test_no_runs_are_an_error() -> None:
    with pytest.raises(ValueError, match="one value"):
        mean_interval([])


def test_three_runs_by_hand() -> None:
    """1, 2, 3: mean 2, standard deviation 1, t(2) = 4.302653, half width 4.302653 / sqrt(3) = 2.484138."""
    found = mean_interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half_width == pytest.approx(2.484138, abs=1e-6)
    assert found.low == pytest.approx(2.0 - 2.484138, abs=1e-6)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_few_runs_get_scipys_t_interval(n: int) -> None:
    from scipy import stats

    values = [0.81, 0.79, 0.86, 0.83][:n]
    expected = stats.t.interval(0.95, n - 1, loc=sum(values) / n, scale=stats.sem(values))
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)


def test_percentiles_of_the_bootstrap_are_scipys_up_to_its_random_draws() -> None:
    import numpy as np
    from scipy import stats

    values = [0.81, 0.79, 0.86, 0.83, 0.75, 0.9, 0.84, 0.8]
    expected = stats.bootstrap(
        (np.array(values),), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert bootstrap_percentiles(values, 0.025) == pytest.approx((expected.low, expected.high), abs=0.002)


def test_the_bootstrap_interval_is_wider_than_the_plain_percentiles_and_the_same_every_time() -> None:
    values = [0.81, 0.79, 0.86, 0.83, 0.75]
    plain = bootstrap_percentiles(values, 0.025)
    found = mean_interval(values)
    assert found.low is not None and found.high is not None
    assert found.low < plain[0] and found.high > plain[1]
    assert mean_interval(values) == found
    assert mean_interval(values[::-1]) == found


@pytest.mark.parametrize("n", [3, 5, 8])
def test_intervals_hold_the_truth_about_as_often_as_they_say(n: int) -> None:
    draws = random.Random(n)
    held = 0
    for _ in range(600):
        found = mean_interval([draws.gauss(0, 1) for _ in range(n)])
        assert found.low is not None and found.high is not None
        held += found.low <= 0 <= found.high
    assert 0.89 <= held / 600 <= 0.98


@given(VALUES)
def test_the_mean_lies_in_its_interval(values: list[float]) -> None:
    found = mean_interval(values)
    assert found.n == len(values)
    if found.low is not None and found.high is not None:
        slack = 1e-9 * max(1.0, *map(abs, values))
        assert found.low - slack <= found.mean <= found.high + slack
        assert math.isfinite(found.low) and math.isfinite(found.high)


def test_pairs_are_the_keys_in_both() -> None:
    """Differences 0.1 and 0.3: mean 0.2, deviation 0.141421, t(1) = 12.7062, half width 1.27062."""
    found = paired_difference({0: 0.6, 1: 0.9, 2: 5.0}, {0: 0.5, 1: 0.6, 3: 7.0})
    assert found is not None
    assert (found.n, found.mean) == (2, pytest.approx(0.2))
    assert found.half_width == pytest.approx(1.27062, abs=1e-5)


def test_runs_without_a_pair_have_no_difference() -> None:
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_pairing_sees_a_difference_that_the_spread_of_the_seeds_hides() -> None:
    a = {seed: 0.1 * seed + 0.01 for seed in range(6)}
    b = {seed: 0.1 * seed for seed in range(6)}
    paired = paired_difference(a, b)
    assert paired is not None and paired.low is not None and paired.low > 0
    alone = mean_interval(list(a.values()))
    assert alone.low is not None and alone.low < 0.25 < (alone.high or 0)
