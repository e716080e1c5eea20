"""How many runs are needed to tell two rows apart: the power of the two-sided paired t-test.

n pairs whose differences have mean `difference` and standard deviation `sd`: t has n - 1 degrees of freedom and
noncentrality difference / sd * sqrt(n), exactly, at every n (Cohen 1988, chapter 2; no normal approximation).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

POWER = 0.8
ALPHA = 0.05
MOST = 100_000  # pairs
UPPER = 0.8  # one-sided level of the spread's upper limit


@dataclass(frozen=True)
class Plan:
    """What is needed. All in units of the metric.

    n: pairs needed for `difference`, None where MOST are too few; n_upper: if the spread is `sd_upper`, the upper 80 %
    limit that the observed pairs leave (Browne 1995; None without pairs). pairs: there are now, None where unknown;
    smallest: the difference they separate with `power`, None with fewer than two.
    """

    difference: float | None
    sd: float
    sd_upper: float | None
    power: float
    alpha: float
    comparisons: int
    n: int | None
    n_upper: int | None
    pairs: int | None
    smallest: float | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def plan(
    sd: float,
    difference: float | None,
    pairs: int | None = None,
    power: float = POWER,
    alpha: float = ALPHA,
    comparisons: int = 1,
    observed: bool = True,
) -> Plan:
    """Pairs needed, and what those there are can do.

    sd: of the paired differences, >= 0. comparisons: alpha is divided by it (Bonferroni, the first and strictest step
    of Holm's correction). observed: `sd` was estimated from `pairs` pairs. Raises ValueError for values out of range.
    """
    level = alpha / comparisons
    upper = spread_limit(sd, pairs) if observed and pairs is not None and pairs > 1 else None
    known = difference is not None and difference != 0
    return Plan(
        difference=difference,
        sd=sd,
        sd_upper=upper,
        power=power,
        alpha=alpha,
        comparisons=comparisons,
        n=pairs_needed(difference, sd, power, level) if known and difference is not None else None,
        n_upper=pairs_needed(difference, upper, power, level) if known and upper is not None and difference else None,
        pairs=pairs,
        smallest=smallest_difference(pairs, sd, power, level) if pairs is not None and pairs > 1 else None,
    )


def power_of(n: int, difference: float, sd: float, alpha: float = ALPHA) -> float:
    """The probability that n pairs show a true difference. Raises ValueError for n < 2, sd < 0, or a bad alpha."""
    if n < 2:
        raise ValueError("a paired test needs two pairs or more")
    if not (sd >= 0 and math.isfinite(sd) and math.isfinite(difference)):
        raise ValueError("the standard deviation must be finite and not negative, the difference finite")
    if not 0 < alpha < 1:
        raise ValueError("alpha lies between 0 and 1")
    if difference == 0:
        return alpha
    if sd == 0:
        return 1.0
    from scipy import stats

    reach = float(stats.t.isf(alpha / 2, n - 1))
    center = abs(difference) / sd * math.sqrt(n)
    right, left = float(stats.nct.sf(reach, n - 1, center)), float(stats.nct.cdf(-reach, n - 1, center))
    if math.isnan(left):  # too small for scipy to compute
        left = 0.0
    if math.isnan(right):  # too near to 1
        right = 1.0
    return min(1.0, right + left)


def pairs_needed(difference: float, sd: float, power: float = POWER, alpha: float = ALPHA) -> int | None:
    """The smallest number of pairs with that power or more, 2 at least; None where MOST are not enough.

    Raises ValueError for a difference of 0 or values out of range.
    """
    _check_power(power)
    if difference == 0:
        raise ValueError("no number of runs separates rows that do not differ")
    if power_of(2, difference, sd, alpha) >= power:
        return 2
    low, high = 2, 4
    while power_of(high, difference, sd, alpha) < power:
        if high == MOST:
            return None
        low, high = high, min(2 * high, MOST)
    while high - low > 1:  # power grows with n
        middle = (low + high) // 2
        low, high = (middle, high) if power_of(middle, difference, sd, alpha) < power else (low, middle)
    return high


def smallest_difference(n: int, sd: float, power: float = POWER, alpha: float = ALPHA) -> float:
    """The true difference that n pairs separate with that power, >= 0. Raises ValueError for values out of range."""
    _check_power(power)
    if power_of(n, 1.0, sd, alpha) >= 1.0 and sd == 0:
        return 0.0
    if power <= alpha:
        return 0.0
    from scipy.optimize import brentq

    high = 1.0
    while power_of(n, high * sd, sd, alpha) < power:
        high *= 2
    return float(brentq(lambda effect: power_of(n, effect * sd, sd, alpha) - power, 0.0, high, xtol=1e-10)) * sd


def spread_limit(sd: float, n: int) -> float:
    """The upper one-sided 80 % limit of a standard deviation estimated from n normal values, n >= 2.

    A plan made with the estimate itself falls short more often than not when n is small (Browne 1995, "On the use of a
    pilot sample for sample size determination")."""
    from scipy.special import chdtri

    return sd * math.sqrt((n - 1) / float(chdtri(n - 1, UPPER)))


def spread(differences: Sequence[float]) -> float:
    """The standard deviation of two paired differences or more (divided by n - 1)."""
    center = math.fsum(differences) / len(differences)
    return math.sqrt(math.fsum((value - center) ** 2 for value in differences) / (len(differences) - 1))


def _check_power(power: float) -> None:
    if not 0 < power < 1:
        raise ValueError("power lies between 0 and 1")
