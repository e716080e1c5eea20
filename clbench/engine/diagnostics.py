"""What a strategy tells of itself after a task, as it goes into the record."""

from __future__ import annotations

import math
from typing import Any

from clbench.errors import RunFailed


def entry(values: dict[str, Any] | None, task: int) -> list[dict[str, Any]]:
    """`[{"task": index, "values": {...}}]`, empty for None. Raises RunFailed for what is no JSON object."""
    if values is None:
        return []
    if not isinstance(values, dict):
        raise RunFailed(f"the strategy's diagnostics returned {type(values).__name__}, not a dict")
    return [{"task": task, "values": _plain(values, "diagnostics")}]


def _plain(value: Any, place: str) -> Any:
    """The value in types that JSON has; None for a number that is not finite."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{place}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, f"{place}.{key}") for key, item in value.items()}
    what = "a dict with keys that are no strings" if isinstance(value, dict) else f"a {type(value).__name__}"
    raise RunFailed(f"the strategy's {place} is {what}: give numbers, strings, lists and dicts of these")
