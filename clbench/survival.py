"""Times until something happens, some of which were not waited out: shares, medians and means that leave none of them
out and invent none.

A time that was censored says that nothing had happened until then. The mean of such times is not known, and the mean
of the others is too small: use the Kaplan-Meier curve (Kaplan & Meier 1958), its median, or its mean up to a horizon.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Waited:
    """One observation: `time` until it happened, or (`happened` False) until nobody looked any more."""

    time: float
    happened: bool


@dataclass(frozen=True)
class Recovery:
    """How many of n recovered within the horizon, the median time it took (None: half of them had not by then), and the
    mean of min(time, horizon)."""

    n: int
    share: float
    median: float | None
    restricted_mean: float
    horizon: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def survival(waited: Sequence[Waited]) -> list[tuple[float, float]]:
    """(time, share that it has not happened to after it) at each time something happened, increasing.

    At equal times, what happened counts before what was censored. Raises ValueError without observations or for a
    negative or infinite time.
    """
    _check(waited)
    curve, share = [], 1.0
    for time in sorted({one.time for one in waited if one.happened}):
        at_risk = sum(one.time >= time for one in waited)
        share *= 1 - sum(one.happened and one.time == time for one in waited) / at_risk
        curve.append((time, share))
    return curve


def median(waited: Sequence[Waited]) -> float | None:
    """The first time by which it has happened to half of them; None where it has not."""
    return next((time for time, share in survival(waited) if share <= 0.5 + 1e-12), None)


def restricted_mean(waited: Sequence[Waited], horizon: float) -> float:
    """The mean of min(time, horizon): the area under the curve up to the horizon.

    Beyond the last observation the curve stays where it is: exact where nothing was censored before the horizon.
    """
    area, before, share = 0.0, 0.0, 1.0
    for time, after in survival(waited):
        if time >= horizon:
            break
        area += share * (time - before)
        before, share = time, after
    return area + share * (horizon - before)


def describe(waited: Sequence[Waited], horizon: float) -> Recovery:
    """All of it, nothing after the horizon looked at."""
    cut = [Waited(min(one.time, horizon), one.happened and one.time <= horizon) for one in waited]
    share = 1 - (curve[-1][1] if (curve := survival(cut)) else 1.0)
    return Recovery(len(cut), share, median(cut), restricted_mean(cut, horizon), horizon)


def _check(waited: Sequence[Waited]) -> None:
    if not waited:
        raise ValueError("no observations: a survival curve needs one or more")
    if any(not math.isfinite(one.time) or one.time < 0 for one in waited):
        raise ValueError("a time is negative or not finite; one that was not waited out is censored, not infinite")
