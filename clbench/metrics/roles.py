"""What a stream adapts to against what was known before: knowledge accumulation, zero-shot retention, and their
geometric mean (FoMo-in-Flux, arXiv 2408.14471), from the sets' roles.

Every set weighs the same, whatever its size and whether it is scored by accuracy or by recall.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from clbench.metrics.view import Undefined, View, mean

At = Callable[[View, int], float]  # of a view, after so many tasks


def accumulated(view: View, tasks_seen: int) -> float:
    """KA: mean over the adaptation sets, those of later tasks among them."""
    return mean(view.at(tasks_seen, name) for name in _sets(view, "adaptation"))


def retained(view: View, tasks_seen: int) -> float:
    """ZS: mean over the held-out sets."""
    return mean(view.at(tasks_seen, name) for name in _sets(view, "held-out"))


def geometric(view: View, tasks_seen: int) -> float:
    """sqrt(KA ZS). Undefined below 0, so of losses."""
    pair = accumulated(view, tasks_seen), retained(view, tasks_seen)
    if min(pair) < 0:
        raise Undefined("a geometric mean is of scores of 0 and above; these are negative, or of a loss")
    return math.sqrt(pair[0]) * math.sqrt(pair[1])


QUANTITIES: dict[str, At] = {
    "knowledge_accumulation": accumulated,
    "zero_shot_retention": retained,
    "geometric_mean": geometric,
}


def _final(quantity: At, view: View) -> float:
    return quantity(view, view.need_tasks(1))


def _over_stream(quantity: At, view: View) -> float:
    return mean(quantity(view, t) for t in range(1, view.need_tasks(1) + 1))


def _change(quantity: At, view: View) -> float:
    return _final(quantity, view) - quantity(view, 0)


def zero_shot_retention_ratio(view: View) -> float:
    """ZS after the last task over ZS before training."""
    before = retained(view, 0)
    if before <= 0:
        raise Undefined(f"before training the mean score of the held-out sets is {view.sign * before:g}: no ratio")
    return _final(retained, view) / before


FORMULAS: dict[str, Callable[[View], float]] = {
    f"{key}{ending}": partial(formula, quantity)
    for key, quantity in QUANTITIES.items()
    for ending, formula in (("", _final), ("_over_stream", _over_stream), ("_change", _change))
}
FORMULAS["zero_shot_retention_ratio"] = zero_shot_retention_ratio


def series(view: View) -> list[dict[str, Any]]:
    """The three quantities before training and after every task; null where undefined. Empty without roles."""
    if not view.structure.roles:
        return []
    measured = any(tasks_seen == 0 for tasks_seen, _ in view.boundary)
    found: list[dict[str, Any]] = []
    for t in range(0 if measured else 1, view.tasks + 1):
        values = {key: _or_none(partial(quantity, view, t)) for key, quantity in QUANTITIES.items()}
        found.append({"tasks_seen": t, "step": view.structure.end(t - 1), **values})
    return found


def _or_none(formula: Callable[[], float]) -> float | None:
    try:
        value = formula()
    except Undefined:
        return None
    return value if math.isfinite(value) else None


def _sets(view: View, role: str) -> list[str]:
    names = view.structure.in_role(role)
    if not names:
        raise Undefined(f"no evaluation set has the role {role}")
    return names
