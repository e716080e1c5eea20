"""Intervals, paired tests, Holm: against scipy and hand-worked cases, and how often they hold the truth."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clbench.statistics import (
    NO_SPREAD,
    ONE_PAIR,
    RESAMPLES,
    SEED,
    bootstrap_percentiles,
    holm,
    mean_interval,
    paired_difference,
    student_quantile,
)

PAIRS = st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=2, max_size=9)
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


@settings(deadline=None)
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


@pytest.mark.parametrize("n", [5, 8, 11])
def test_counting_equal_resamples_once_changes_no_bit_of_the_quantiles(n: int) -> None:
    import numpy as np

    values = np.random.default_rng(n).normal(size=n)
    drawn = np.random.default_rng(SEED).multinomial(n, [1 / n] * n, size=RESAMPLES) / n
    expected = np.quantile(drawn @ np.sort(values), [0.01, 0.99])
    assert bootstrap_percentiles(list(values), 0.01) == pytest.approx(tuple(expected), rel=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_the_paired_test_is_scipys(n: int) -> None:
    import numpy as np
    from scipy import stats

    draws = np.random.default_rng(n)
    a, b = draws.normal(0.1, 1, n), draws.normal(0, 1, n)
    expected = stats.ttest_rel(a, b)
    found = paired_difference(dict(enumerate(a)), dict(enumerate(b)))
    assert found is not None and found.n == n and found.orders is None
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-9)


@pytest.mark.parametrize("unit", [1e-300, 1e-170, 1e170, 1e300])
def test_the_p_value_does_not_depend_on_the_unit(unit: float) -> None:
    pairs = {0: 1.0, 1: 2.0, 2: 4.0}
    plain = paired_difference(pairs, dict.fromkeys(pairs, 0.0))
    scaled = paired_difference({i: value * unit for i, value in pairs.items()}, dict.fromkeys(pairs, 0.0))
    assert plain is not None and scaled is not None
    assert scaled.p == pytest.approx(plain.p)
    assert (scaled.low, scaled.high) == pytest.approx((plain.low * unit, plain.high * unit))


def test_five_pairs_by_hand() -> None:
    """Differences 1, 2, 3, 4, 5: mean 3, deviation sqrt(2.5), t = 3 / sqrt(2.5 / 5) = 4.2426, t(4) = 2.776445."""
    found = paired_difference({s: 2.0 * s for s in range(1, 6)}, {s: 1.0 * s for s in range(1, 6)})
    assert found is not None and found.low is not None and found.p is not None
    assert found.mean == 3.0
    assert found.low == pytest.approx(3 - 2.776445 * math.sqrt(0.5), abs=1e-6)
    assert found.p == pytest.approx(0.013236, abs=1e-6)
    assert found.separated


@settings(deadline=None)
@example([(0.0, 2.2e-16), (1.0, 1.0)])
@example([(0.0, 0.0), (0.0, 5e-324)])
@example([(0.0, 1e-170), (0.0, 2e-170), (0.0, -1e-170)])
@given(PAIRS)
def test_interval_and_p_value_agree(pairs: list[tuple[float, float]]) -> None:
    found = paired_difference({i: a for i, (a, _) in enumerate(pairs)}, {i: b for i, (_, b) in enumerate(pairs)})
    assert found is not None and found.p is not None and 0 <= found.p <= 1
    if abs(found.p - 0.05) > 1e-9:
        assert found.separated == (found.p < 0.05)
    if found.low is not None and found.high is not None:
        assert found.low <= found.mean <= found.high


@settings(deadline=None)
@given(PAIRS, st.floats(-100, 100))
def test_a_constant_added_to_both_changes_nothing(pairs: list[tuple[float, float]], constant: float) -> None:
    a, b = ({i: pair[which] for i, pair in enumerate(pairs)} for which in (0, 1))
    before = paired_difference(a, b)
    after = paired_difference({i: v + constant for i, v in a.items()}, {i: v + constant for i, v in b.items()})
    assert before is not None and after is not None
    assert after.mean == pytest.approx(before.mean, abs=1e-9)
    if before.low is not None and after.low is not None and (before.half_width or 0) > 1e-6:
        assert after.low == pytest.approx(before.low, abs=1e-9)


@settings(deadline=None)
@given(PAIRS)
def test_exchanging_the_rows_changes_the_sign_only(pairs: list[tuple[float, float]]) -> None:
    a, b = ({i: pair[which] for i, pair in enumerate(pairs)} for which in (0, 1))
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert one is not None and other is not None
    assert (one.mean, one.p, one.n) == (-other.mean, other.p, other.n)
    if one.low is not None:
        assert other.high is not None and one.low == -other.high


def test_one_pair_has_a_mean_and_a_reason() -> None:
    found = paired_difference({0: 0.6}, {0: 0.5})
    assert found is not None
    assert (found.mean, found.low, found.p, found.reason) == (pytest.approx(0.1), None, None, ONE_PAIR)
    assert not found.separated


def test_equal_runs_do_not_differ_in_spite_of_rounding() -> None:
    found = paired_difference(dict.fromkeys(range(3), 0.1 + 0.2), dict.fromkeys(range(3), 0.3))
    assert found is not None
    assert (found.mean, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_two_rows_without_any_randomness_differ_for_certain() -> None:
    found = paired_difference(dict.fromkeys(range(3), 0.9), dict.fromkeys(range(3), 0.8))
    assert found is not None
    assert (found.p, found.separated) == (0.0, True)
    assert found.low == found.high == pytest.approx(0.1)


def test_equal_differences_of_few_varying_runs_may_be_coincidence() -> None:
    """The sign test's p is 2 / 2^n: 0.25 for three pairs, 0.03125 for six."""
    few, more = (
        paired_difference({i: 0.01 * i + 0.1 for i in range(n)}, {i: 0.01 * i for i in range(n)}) for n in (3, 6)
    )
    assert few is not None and more is not None
    assert (few.p, few.low, few.reason, few.separated) == (0.25, None, NO_SPREAD, False)
    assert (more.p, more.reason, more.separated) == (0.03125, None, True)


def test_runs_of_an_order_count_once_where_there_are_five_orders() -> None:
    """Two runs each of five orders: differences 0.9 and 1.1, 1.9 and 2.1, ...: the means 1 to 5 of the orders count."""
    a = {(order, seed): order + 1 + (0.1 if seed else -0.1) for order in range(5) for seed in range(2)}
    found = paired_difference(a, dict.fromkeys(a, 0.0))
    expected = paired_difference({s: 2.0 * s for s in range(1, 6)}, {s: 1.0 * s for s in range(1, 6)})
    assert found is not None and expected is not None
    assert (found.n, found.orders) == (10, 5)
    assert (found.mean, found.p) == (pytest.approx(3.0), pytest.approx(expected.p))


def test_runs_of_few_orders_count_one_by_one_unless_they_are_repeats() -> None:
    a = {(order, seed): order + 1 + 0.1 * seed**2 for order in range(2) for seed in range(3)}
    found = paired_difference(a, dict.fromkeys(a, 0.0))
    assert found is not None and (found.n, found.orders) == (6, None)
    repeats = paired_difference({key: key[0] + 1.0 for key in a}, dict.fromkeys(a, 0.0))
    assert repeats is not None and (repeats.n, repeats.orders) == (6, 2)
    assert repeats.p == pytest.approx(0.204833, abs=1e-6)  # t(1) = 1.5 / 0.5 = 3: 1 - 2 atan(3) / pi


def test_the_paired_test_errs_as_often_as_it_says() -> None:
    import numpy as np

    from clbench.statistics import paired_tests

    draws = np.random.default_rng(1)
    for n in (2, 3, 5, 10):
        a, b = draws.normal(size=(2, 20_000, n)) + draws.normal(size=(1, 20_000, n))
        found = paired_tests(a, b, list(range(n)))
        assert (found.p < 0.05).mean() == pytest.approx(0.05, abs=0.006)
        assert ((found.low <= 0) & (found.high >= 0)).mean() == pytest.approx(0.95, abs=0.006)


def test_the_paired_test_over_orders_errs_as_often_as_it_says_and_over_runs_would_not() -> None:
    """Six orders of four runs, with something in every order that all its runs share."""
    import numpy as np

    from clbench.statistics import paired_tests

    draws = np.random.default_rng(2)
    shared = np.repeat(draws.normal(size=(5000, 6)), 4, axis=1)
    a = shared + draws.normal(size=(5000, 24))
    zero = np.zeros((1, 24))
    by_order = paired_tests(a, zero, [i // 4 for i in range(24)])
    by_run = paired_tests(a, zero, list(range(24)))
    assert (by_order.p < 0.05).mean() == pytest.approx(0.05, abs=0.012)
    assert (by_run.p < 0.05).mean() > 0.15


def test_holms_correction_by_hand() -> None:
    """Sorted: .01 * 4, .02 * 3, .03 * 2, .04 * 1 = .04, .06, .06, .04; at least the one before: .04, .06, .06, .06."""
    assert list(holm([0.03, 0.01, 0.04, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms())
def test_holms_correction(p: list[float], random: random.Random) -> None:
    found = list(holm(p))
    assert all(raw <= fixed <= 1 for raw, fixed in zip(p, found, strict=True))
    assert min(found) == pytest.approx(min(1, len(p) * min(p)))
    ranked = [fixed for _, fixed in sorted(zip(p, found, strict=True))]
    assert ranked == sorted(ranked)
    order = list(range(len(p)))
    random.shuffle(order)
    assert list(holm([p[i] for i in order])) == [found[i] for i in order]
    assert list(holm([*p, float("nan")]))[:-1] == found
