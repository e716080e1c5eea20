"""Means over runs with 95 % intervals, and paired differences: Student's t for few runs, the bootstrap from five on."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVEL = 0.95
BOOTSTRAP_FROM = 5  # runs
RESAMPLES = 10_000
SEED = 1979


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
    tail = NormalDist().cdf(-math.sqrt(n / (n - 1)) * student_quantile(n - 1))
    return Estimate(center, *bootstrap_percentiles(values, tail), n)


def paired_difference(a: Mapping[Hashable, float], b: Mapping[Hashable, float]) -> Estimate | None:
    """Interval of the mean of a - b over the pairs (keys in both); None where there are none."""
    shared = sorted(a.keys() & b.keys(), key=repr)
    return mean_interval([a[key] - b[key] for key in shared]) if shared else None


def bootstrap_percentiles(values: Sequence[float], tail: float) -> tuple[float, float]:
    """The `tail` and `1 - tail` quantiles of the mean over resamples of the values."""
    import numpy as np

    ordered = np.sort(np.asarray(values, dtype=np.float64))
    low, high = np.quantile(_resampling_weights(len(values)) @ ordered, [tail, 1 - tail])
    return max(float(low), float(ordered[0])), min(float(high), float(ordered[-1]))


@lru_cache(maxsize=256)
def student_quantile(df: int) -> float:
    """The value that Student's t with `df` degrees of freedom stays within, on both sides, with probability 0.95.

    By bisection of the angle in the finite series of the distribution function for whole degrees of freedom
    (Abramowitz & Stegun 26.7.3 and 26.7.4). Raises ValueError for df < 1.
    """
    if df < 1:
        raise ValueError("Student's t needs 1 degree of freedom or more")
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        angle = (low + high) / 2
        low, high = (angle, high) if _central_probability(angle, df) < LEVEL else (low, angle)
    return math.sqrt(df) * math.tan((low + high) / 2)


def _central_probability(angle: float, df: int) -> float:
    """P(|T| <= sqrt(df) tan(angle))."""
    cosine = math.cos(angle)
    odd = df % 2
    term = total = (cosine if df > 1 else 0.0) if odd else 1.0
    for k in range(2 + odd, df, 2):
        term *= (k - 1) / k * cosine * cosine
        total += term
    series = math.sin(angle) * total
    return (angle + series) * 2 / math.pi if odd else series


def _variance(values: Sequence[float], center: float) -> float:
    return math.fsum((value - center) ** 2 for value in values) / (len(values) - 1)


@lru_cache(maxsize=16)
def _resampling_weights(n: int) -> NDArray[Any]:
    """[RESAMPLES, n]: how much each of n runs counts in each resample; the same ones every time."""
    import numpy as np

    return np.random.default_rng(SEED).multinomial(n, [1 / n] * n, size=RESAMPLES) / n
