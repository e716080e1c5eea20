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


@dataclass
class RowDifferences:
    """How two tables differ. lines: one for each differing row. largest: difference of a measured number (relative to
    one above 1), infinite where rows do not match. drift: mean signed difference of the boundary rows' values."""

    lines: list[str] = field(default_factory=list)
    largest: float = 0.0
    drift: float = 0.0


def row_differences(before: Sequence[Row], after: Sequence[Row]) -> RowDifferences:
    """Compare tables row by row, in order."""
    found = RowDifferences()
    signed: list[float] = []
    for number, (old, new) in enumerate(zip(before, after, strict=False), 1):
        columns = [name for name in COLUMNS if not _same_bits(getattr(old, name), getattr(new, name))]
        distance = _distance(old.value, new.value)
        if old.kind == "boundary" and old.value is not None and math.isfinite(distance):
            signed.append(distance)
        if not columns:
            continue
        name = columns[0]
        was, now = getattr(old, name), getattr(new, name)
        place = f"row {number} (step {old.step}, tasks_seen {old.tasks_seen}, {old.eval_set}, {old.kind})"
        found.lines.append(f"{place}: {name} was {shown(was)}, is {shown(now)}")
        apart = [column for column in columns if column not in MEASURED]
        distances = [abs(_distance(getattr(old, name), getattr(new, name))) for name in MEASURED]
        found.largest = max(found.largest, math.inf if apart else max(distances))
    if len(before) != len(after):
        found.lines.append(f"the table had {len(before)} rows, the repeated run's has {len(after)}")
        found.largest = math.inf
    found.drift = sum(signed) / len(signed) if signed else 0.0
    return found


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
