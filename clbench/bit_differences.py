"""Where two evaluation tables, or two JSON values, differ: bit for bit, with the place of each difference."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clbench.table import COLUMNS, Row

ROUNDING = 1e-9  # relative, of the simulated noise floor: numpy's sums are not the same on every processor
MEASURED = ("value", "se", "base")
SAMPLED = ("value", "se")
NOISE = 4.0  # standard errors: hundreds of rows are compared, and the largest difference counts


@dataclass
class RowDifferences:
    """How two tables differ. lines: one for each differing row. largest: difference of a measured number (relative to
    one above 1), infinite where rows do not match. drift: mean signed difference of the boundary rows' values.

    beyond: the largest part of a difference that NOISE standard errors of the two scores do not explain; drift_error:
    the standard error of `drift`. Both count the samples of the sets alone: two trainings that part by rounding answer
    differently where the answer was open.
    """

    lines: list[str] = field(default_factory=list)
    largest: float = 0.0
    drift: float = 0.0
    beyond: float = 0.0
    drift_error: float = 0.0


def row_differences(before: Sequence[Row], after: Sequence[Row], shares: bool = False) -> RowDifferences:
    """Compare tables row by row, in order. shares: whether values are shares of the n samples of a row, which have a
    standard error."""
    found = RowDifferences()
    signed: list[float] = []
    errors: list[float] = []
    for number, (old, new) in enumerate(zip(before, after, strict=False), 1):
        columns = [name for name in COLUMNS if not _same_bits(getattr(old, name), getattr(new, name))]
        distance = _distance(old.value, new.value)
        error = standard_error(old, new) if shares else 0.0
        if old.kind == "boundary" and old.value is not None and math.isfinite(distance):
            signed.append(distance)
            errors.append(error)
        if not columns:
            continue
        name = columns[0]
        was, now = getattr(old, name), getattr(new, name)
        place = f"row {number} (step {old.step}, tasks_seen {old.tasks_seen}, {old.eval_set}, {old.kind})"
        found.lines.append(f"{place}: {name} was {shown(was)}, is {shown(now)}")
        apart = [column for column in columns if column not in MEASURED]
        distances = {name: abs(_distance(getattr(old, name), getattr(new, name))) for name in MEASURED}
        beyond = max(d - (NOISE * error if name in SAMPLED else 0.0) for name, d in distances.items())
        found.largest = max(found.largest, math.inf if apart else max(distances.values()))
        found.beyond = max(found.beyond, math.inf if apart else beyond)
    if len(before) != len(after):
        found.lines.append(f"the table had {len(before)} rows, the repeated run's has {len(after)}")
        found.largest = found.beyond = math.inf
    if signed:
        found.drift = sum(signed) / len(signed)
        found.drift_error = math.sqrt(sum(error**2 for error in errors)) / len(signed)
    return found


def standard_error(old: Row, new: Row) -> float:
    """Of the difference of two shares of n samples each; 0 where there is no n, or no share."""
    if old.value is None or new.value is None or not old.n or not (0 <= old.value <= 1 and 0 <= new.value <= 1):
        return 0.0
    share = (old.value + new.value) / 2
    return math.sqrt(2 * share * (1 - share) / old.n)


def json_differences(a: Any, b: Any, place: str = "") -> list[tuple[str, Any, Any]]:
    """(place, in a, in b) of every leaf that differs. The noise floor is compared up to rounding."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [*a, *(key for key in b if key not in a)]
        inner = [(f"{place}.{key}" if place else key, a.get(key, "missing"), b.get(key, "missing")) for key in keys]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        inner = [(f"{place}[{i}]", x, y) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        return [] if _same_leaf(a, b, place) else [(place, a, b)]
    return [difference for where, x, y in inner for difference in json_differences(x, y, where)]


def shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _distance(old: float | None, new: float | None) -> float:
    if old is None or new is None or not (math.isfinite(old) and math.isfinite(new)):
        return 0.0 if _same_bits(old, new) else math.inf
    return (new - old) / max(1.0, abs(old))


def _same_bits(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    return type(a) is type(b) and bool(a == b)


def _same_leaf(a: Any, b: Any, place: str) -> bool:
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (a, b))
    if numbers and place.startswith("noise_floor"):
        return math.isclose(a, b, rel_tol=ROUNDING, abs_tol=1e-15)
    return bool(a == b)
