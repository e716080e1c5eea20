"""Means over runs with 95 % intervals; paired differences with intervals and p-values; Holm's correction.

Intervals of a mean: Student's t for few runs, the bootstrap from five on. Differences: Student's t at every number of
pairs, so that the interval leaves 0 out exactly where the p-value is below 0.05 (docs/leaderboards.md says why).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from numpy.typing import NDArray

Key = TypeVar("Key", bound=Hashable)

LEVEL = 0.95
BOOTSTRAP_FROM = 5  # runs
RESAMPLES = 10_000
SEED = 1979
ORDERS = 5  # from so many task orders on, an order and not a run is what counts as one observation of a difference
ROUNDING = 1e-12  # relative: what is closer is equal

ONE_PAIR = "one pair only: an interval needs two runs of both with equal task order and seed"
NO_SPREAD = "every pair differs by the same amount: too few pairs to tell that from coincidence; p is the sign test's"


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` runs. `low` and `high` bound its 95 % interval; both None where n is 1."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def half_width(self) -> float | None:
        """Half the interval's length; what is printed after the ± sign."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n}


@dataclass(frozen=True)
class Difference:
    """The mean of a - b over `n` pairs of runs.

    low, high: its 95 % interval, for this comparison alone (not corrected). p: of the two-sided paired t-test, not
    corrected either: below 0.05 exactly where the interval leaves 0 out. p_holm: corrected for all comparisons of a
    board (None where there is no board). orders: the number of task orders, where their means and not the runs were
    the observations. What cannot be had is None; `reason` says why.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    p: float | None = None
    p_holm: float | None = None
    orders: int | None = None
    reason: str | None = None

    @property
    def half_width(self) -> float | None:
        """Half the interval's length."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def separated(self) -> bool:
        """Whether the interval leaves 0 out. What cannot be tested is not separated."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class PairedTests:
    """Many paired t-tests at once: arrays of m. NaN: cannot be tested (`mean` too: no pair).

    orders: 0 where the runs were the observations.
    """

    mean: NDArray[Any]
    low: NDArray[Any]
    high: NDArray[Any]
    p: NDArray[Any]
    n: NDArray[Any]
    orders: NDArray[Any]


def mean_interval(values: Sequence[float]) -> Estimate:
    """Mean and 95 % interval of finite values, one for each run, in any order.

    n = 1: no interval. n < 5: Student's t. n >= 5: bootstrap over the runs (10,000 resamples from a fixed seed), with
    the levels widened for small n (Hesterberg 2015, "What teachers should know about the bootstrap": the expanded
    percentile interval); the plain percentiles of five normal values hold the truth in 84 % of cases only.
    Raises ValueError without values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("an interval needs one value or more")
    center = math.fsum(values) / n
    if n == 1:
        return Estimate(center, None, None, 1)
    if n < BOOTSTRAP_FROM:
        reach = student_quantile(n - 1) * math.sqrt(_variance(values, center) / n)
        return Estimate(center, center - reach, center + reach, n)
    return Estimate(center, *bootstrap_percentiles(values, expanded_tail(n)), n)


@lru_cache(maxsize=256)
def expanded_tail(n: int) -> float:
    """The level of the bootstrap's percentiles that stands for 2.5 % at `n` values (Hesterberg 2015, section 5.3)."""
    from statistics import NormalDist

    return NormalDist().cdf(-math.sqrt(n / (n - 1)) * student_quantile(n - 1))


def bootstrap_percentiles(values: Sequence[float], tail: float) -> tuple[float, float]:
    """The `tail` and `1 - tail` quantiles of the mean over resamples of the values."""
    import numpy as np

    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if ordered[0] == ordered[-1]:
        return float(ordered[0]), float(ordered[0])
    weights, counts = _resampling_weights(len(values))
    means = np.repeat(weights @ ordered, counts)
    places = (RESAMPLES - 1) * np.array([tail, 1 - tail])  # interpolated as numpy.quantile does
    below, above = np.floor(places).astype(int), np.ceil(places).astype(int)
    means.partition([*below, *above])
    low, high = means[below] + (places - below) * (means[above] - means[below])
    return max(float(low), float(ordered[0])), min(float(high), float(ordered[-1]))


def paired_difference(a: Mapping[Key, float], b: Mapping[Key, float]) -> Difference | None:
    """The mean of a - b over the keys in both, with its interval and p-value; None where there are none.

    Keys are (task order, run seed), or anything else, in which case each is an order of its own.
    """
    import numpy as np

    shared = sorted(a.keys() & b.keys(), key=repr)
    if not shared:
        return None
    first = np.array([[a[key] for key in shared]], dtype=np.float64)
    second = np.array([[b[key] for key in shared]], dtype=np.float64)
    return difference_at(paired_tests(first, second, [_order(key) for key in shared]), 0)


def paired_tests(a: NDArray[Any], b: NDArray[Any], orders: Sequence[Hashable]) -> PairedTests:
    """Two-sided paired t-tests of a - b, one for each line.

    a, b: [m, k] float64, NaN where a run is missing; they may broadcast. orders: k names, the task order of each
    column; runs of one order share what is special to it, so the means over the runs of each order are compared
    instead of the runs, from ORDERS orders on, and where the runs of every order differ by the same (two methods
    without randomness: repeating them is no further observation).
    """
    import numpy as np

    a, b = np.broadcast_arrays(a, b)
    present = ~(np.isnan(a) | np.isnan(b))
    scale = np.where(present, np.maximum(np.abs(a), np.abs(b)), 0.0).max(axis=1, initial=0.0)
    gaps = np.where(present, a - b, 0.0)
    still = _constant(a, present, scale) & _constant(b, present, scale)
    n = present.sum(axis=1)
    plain = _student(gaps, present, scale, still)
    names = {order: number for number, order in enumerate(dict.fromkeys(orders))}
    if len(names) in (1, len(orders)):
        return PairedTests(*plain, n, np.zeros_like(n))
    member = np.zeros((len(orders), len(names)))
    member[np.arange(len(orders)), [names[order] for order in orders]] = 1.0
    runs = present @ member
    found = runs > 0
    means = np.where(found, gaps @ member / np.maximum(runs, 1), 0.0)
    count = found.sum(axis=1)
    within = np.where(present, gaps - means @ member.T, 0.0)
    repeats = np.abs(within).max(axis=1, initial=0.0) <= ROUNDING * scale
    by_order = (n > count) & ((count >= ORDERS) | ((count > 1) & repeats))
    grouped = _student(means, found, scale, still)
    mean, low, high, p = (np.where(by_order, g, s) for g, s in zip(grouped, plain, strict=True))
    return PairedTests(mean, low, high, p, n, np.where(by_order, count, 0))


def difference_at(tests: PairedTests, i: int, p_holm: float | None = None) -> Difference | None:
    """The i-th of many tests; None where it has no pair."""
    n, mean, p = int(tests.n[i]), float(tests.mean[i]), float(tests.p[i])
    if n == 0:
        return None
    if math.isnan(p):
        return Difference(mean, None, None, n, reason=ONE_PAIR)
    low, high, orders = float(tests.low[i]), float(tests.high[i]), int(tests.orders[i]) or None
    if math.isnan(low):
        return Difference(mean, None, None, n, p, p_holm, orders, NO_SPREAD)
    return Difference(mean, low, high, n, p, p_holm, orders)


def holm(p: Sequence[float] | NDArray[Any]) -> NDArray[Any]:
    """Holm's step-down correction (1979) of p-values, in their order: the k-th smallest of m times m - k + 1, at least
    the one before it, at most 1. NaN stays NaN and does not count."""
    import numpy as np

    values = np.asarray(p, dtype=np.float64)
    corrected = np.full_like(values, np.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    return corrected


@lru_cache(maxsize=256)
def student_quantile(df: int) -> float:
    """The value that Student's t with `df` degrees of freedom stays within, on both sides, with probability 0.95.

    Raises ValueError for df < 1.
    """
    if df < 1:
        raise ValueError("Student's t needs 1 degree of freedom or more")
    from scipy.special import stdtrit  # scipy.stats, which has the same, takes a second more to import

    return float(stdtrit(df, (1 + LEVEL) / 2))


def _student(
    gaps: NDArray[Any], present: NDArray[Any], scale: NDArray[Any], still: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Mean, interval and p of each line. Differences without any spread: none (p 1); a certain one (p 0) where both
    rows are `still`, the same in all their runs; else the sign test's p, 2 / 2^n, and an interval if that is small.
    Computed in units of a power of two near the largest difference: squares of small ones would vanish."""
    import numpy as np
    from scipy.special import stdtr, stdtrit

    n = present.sum(axis=1)
    exponent = np.frexp(np.where(present, np.abs(gaps), 0.0).max(axis=1, initial=0.0))[1]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        gaps, scale = np.ldexp(gaps, -exponent[:, None]), np.ldexp(scale, -exponent)
        mean = np.where(present, gaps, 0.0).sum(axis=1) / n
        away = np.where(present, gaps - mean[:, None], 0.0)
        error = np.sqrt((away**2).sum(axis=1) / (n - 1) / n)
        flat = (n > 1) & (np.abs(away).max(axis=1, initial=0.0) <= ROUNDING * scale)
        reach = np.where(flat, 0.0, stdtrit(n - 1, (1 + LEVEL) / 2) * error)
        p = 2 * stdtr(n - 1, -np.abs(mean / error))
    equal = flat & (np.abs(mean) <= ROUNDING * scale)
    mean = np.where(equal, 0.0, mean)
    p = np.where(flat, np.where(equal, 1.0, np.where(still, 0.0, 2.0 ** (1 - n))), p)
    p = np.where(n > 1, p, np.nan)
    unknown = np.isnan(p) | (flat & ~equal & (p > 1 - LEVEL))
    low, high = np.where(unknown, np.nan, mean - reach), np.where(unknown, np.nan, mean + reach)
    return np.ldexp(mean, exponent), np.ldexp(low, exponent), np.ldexp(high, exponent), p


def _constant(values: NDArray[Any], present: NDArray[Any], scale: NDArray[Any]) -> NDArray[Any]:
    """Whether all values that are present in a line are equal."""
    import numpy as np

    top = np.where(present, values, -np.inf).max(axis=1, initial=-np.inf)
    bottom = np.where(present, values, np.inf).min(axis=1, initial=np.inf)
    return np.asarray(top - bottom <= ROUNDING * scale)


def _order(key: Hashable) -> Hashable:
    return key[0] if isinstance(key, tuple) and key else key


def _variance(values: Sequence[float], center: float) -> float:
    return math.fsum((value - center) ** 2 for value in values) / (len(values) - 1)


@lru_cache(maxsize=16)
def _resampling_weights(n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """[u, n]: how much each of n runs counts in the different ones of RESAMPLES resamples; how often each was drawn.

    The same ones every time. Five runs have 126 different resamples only."""
    import numpy as np

    drawn = np.random.default_rng(SEED).multinomial(n, [1 / n] * n, size=RESAMPLES)
    different, counts = np.unique(drawn, axis=0, return_counts=True)
    return different / n, counts
