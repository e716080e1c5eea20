"""The stability gap: how far an old set falls after a task switch, for how long, and how much comes back.

One measurement for every (switch, old set). Switch k leads into task k; its reference m0 is the score after
`end_task` of task k-1, before the first update on task k. Held-out sets have a switch 0, before training.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from clbench.metrics.view import View, mean
from clbench.table import Row

TOLERANCE = 0.01  # accuracy, or nats
PERSISTENCE = 2  # evaluations
SHORTEST = 5  # steps
LARGEST_EXPONENT = 700.0  # beyond it exp is no number of float64
ROUNDING = 1e-12  # .90 - .89 is not more than .01

FIELDS = (
    "depth",
    "relative_depth",
    "trough_steps",
    "final",
    "transient",
    "recovered_fraction",
    "recovery_steps",
    "recovery_interval",
    "censored_at",
    "area",
    "mean_gap",
)
MEANS = {"depth": "depth", "area": "area", "mean": "mean_gap", "transient": "transient"}
SHARES = ("recovered_share", "diverged_share")
COUNTS = ("pairs", "left_out")

Gap = dict[str, Any]
Curve = list[tuple[int, float, float]]  # (steps since the switch, delta, tolerance)


def measure_gaps(view: View, horizon: int | None = None) -> list[Gap]:
    """A gap for every switch and old set, in that order; empty without trace rows.

    horizon: steps after a switch to look at; clipped to the new task's length, which is the default.
    """
    if not view.trace:
        return []
    s = view.structure
    begun = s.tasks + (s.current is not None)
    lengths = [_task_length(view, k) for k in range(begun)]
    if horizon is not None:
        lengths = [min(horizon, length) for length in lengths]
    old = [name for name, owner in s.sets.items() if owner is not None]
    pairs = [(k, name) for k in range(1, begun) for name in old if (s.sets[name] or 0) < k]
    pairs += [(k, name) for name in s.held_out for k in range(begun)]
    order = {name: i for i, name in enumerate(s.sets)}
    pairs.sort(key=lambda pair: (pair[0], order[pair[1]]))
    return [measure_gap(view, k, name, lengths[k]) for k, name in pairs]


def measure_new_gaps(view: View, horizon: int | None = None) -> list[Gap]:
    """The same for the sets of the task that begins at each switch: whether it falls before it rises.

    m0 is the trace row at the switch, or the boundary row (the whole set) where the subset was not traced there.
    """
    if not view.trace:
        return []
    s = view.structure
    gaps = []
    for task in range(1, s.tasks + (s.current is not None)):
        length = _task_length(view, task)
        reach = length if horizon is None else min(horizon, length)
        gaps += [measure_gap(view, task, name, reach) for name in s.by_task.get(task, ())]
    return gaps


def measure_gap(view: View, switch: int, name: str, horizon: int, watched: Sequence[Row] | None = None) -> Gap:
    """The gap of one set after one switch, within `horizon` steps of it.

    watched: rows after the switch, by step; None: the trace rows of the task that begins there.
    """
    step = view.structure.end(switch - 1)
    owner = view.structure.sets[name]
    reference = view.at_switch.get((switch, name))
    inside = view.inside.get((switch, name), ()) if watched is None else watched
    rows = [row for row in inside if row.step <= step + horizon]
    gap: Gap = {
        "switch": switch,
        "step": step,
        "eval_set": name,
        "belongs_to": owner,
        "held_out": owner is None,
        "horizon": horizon,
        "evaluations": sum(row.value is not None for row in rows),
        "unscored": sum(row.value is None for row in rows),
        "m0": None,
        "base": None,
        "tolerance": None,
        "status": None,
        "reason": None,
    }
    gap |= dict.fromkeys(FIELDS)
    if reference is None or reference.value is None:
        state = "was not measured" if reference is None else "is null"
        gap["reason"] = f"the reference at the switch (step {step}, tasks_seen {switch}) {state}"
        return gap
    if any(row.value is not None and not math.isfinite(row.value) for row in (reference, *rows)):
        return gap | {"status": "diverged", "reason": "a value is NaN or infinite"}
    gap["m0"] = reference.value
    curve = [
        (row.step - step, view.sign * (reference.value - row.value), max(TOLERANCE, 2 * (row.se or 0.0)))
        for row in rows
        if row.value is not None
    ]
    if not curve:
        short = {"status": "too_short"} if horizon < SHORTEST else {}
        return gap | short | {"reason": "no scored trace row inside the new task"}
    gap |= describe(curve, horizon)
    gap["base"] = _base(view, switch, name, [reference, *rows])
    if gap["base"] is not None and reference.value != gap["base"]:
        gap["relative_depth"] = gap["depth"] / abs(reference.value - gap["base"])
    if any(isinstance(gap[name], float) and not math.isfinite(gap[name]) for name in FIELDS):
        gap |= dict.fromkeys(FIELDS)
        gap |= {"status": "diverged", "reason": "the values are too large for finite differences"}
    return gap


def describe(curve: Curve, horizon: int) -> Gap:
    """The fields of one gap. `curve`: (steps since the switch > 0, delta, tolerance), by step, not empty."""
    curve = [(0, 0.0, TOLERANCE), *curve]
    trough = max(range(len(curve)), key=lambda i: (curve[i][1], -i))
    trough_steps, depth, tolerance = curve[trough]
    final = curve[-1][1]
    transient = depth - max(0.0, final)
    area = positive_area([(steps, delta) for steps, delta, _ in curve])
    gap: Gap = {
        "depth": depth,
        "trough_steps": trough_steps,
        "final": final,
        "transient": transient,
        "recovered_fraction": transient / depth if depth > 0 else 1.0,
        "area": area,
        "mean_gap": area / horizon,
        "tolerance": tolerance,
        **_recovery(curve, trough),
    }
    if horizon < SHORTEST:
        gap["status"] = "too_short"
    return gap


def with_units(gap: Gap) -> Gap:
    """The gap of a loss in nats, its depth in bits and as a ratio of perplexities, too."""
    depth = gap["depth"]
    if depth is None:
        return gap | {"depth_bits": None, "ppl_ratio": None}
    ratio = math.exp(depth) if depth < LARGEST_EXPONENT else None
    return gap | {"depth_bits": depth / math.log(2), "ppl_ratio": ratio}


def positive_area(curve: Sequence[tuple[int, float]]) -> float:
    """Trapezoids of max(0, delta), each cut at its zero crossing."""
    pieces = []
    for (t0, d0), (t1, d1) in itertools.pairwise(curve):
        width = t1 - t0
        if d0 * d1 < 0:
            width_above = width * max(d0, d1) / abs(d0 - d1)
            pieces.append(width_above * max(d0, d1) / 2)
        else:
            pieces.append(width * (max(0.0, d0) + max(0.0, d1)) / 2)
    return sum(pieces)


def summarise(gaps: Sequence[Gap], prefix: str, reason: str) -> dict[str, float | str]:
    """Run-level scalars, keyed `prefix` + name; a string is the reason why there is no value.

    Means go over the sets of a switch first, then over the switches. Pairs without a value are left out and
    counted in `left_out`. `reason`: said where there are no pairs at all.
    """
    valued = [gap for gap in gaps if gap["depth"] is not None or gap["status"] == "diverged"]
    diverged = sum(gap["status"] == "diverged" for gap in valued)
    result: dict[str, float | str] = {}
    for key, field in MEANS.items():
        result[prefix + key] = _mean_over_switches(valued, field, diverged, gaps, reason)
    if valued:
        lost = sum(gap["status"] in ("not_recovered", "diverged") for gap in valued)
        shares: list[float | str] = [1 - lost / len(valued), diverged / len(valued)]
    else:
        shares = [_no_pairs(gaps, reason)] * 2
    result |= {prefix + key: share for key, share in zip(SHARES, shares, strict=True)}
    return result | {prefix + "pairs": len(gaps), prefix + "left_out": len(gaps) - len(valued)}


def _mean_over_switches(
    valued: Sequence[Gap], field: str, diverged: int, gaps: Sequence[Gap], reason: str
) -> float | str:
    if diverged:
        return f"{diverged} of {len(valued)} (switch, set) pairs diverged"
    by_switch: dict[int, list[float]] = {}
    for gap in valued:
        if gap[field] is not None:
            by_switch.setdefault(gap["switch"], []).append(gap[field])
    if not by_switch:
        return _no_pairs(gaps, reason)
    return mean(mean(numbers) for numbers in by_switch.values())


def _no_pairs(gaps: Sequence[Gap], reason: str) -> str:
    return f"no pair could be measured: {gaps[0]['reason']}" if gaps else reason


def _task_length(view: View, task: int) -> int:
    """Steps of a task; of an unfinished one, the steps traced so far."""
    s = view.structure
    if task < s.tasks:
        return s.end(task) - s.end(task - 1)
    steps = [row.step for (k, _), rows in view.inside.items() if k == task for row in rows]
    return max(steps, default=s.end(task - 1)) - s.end(task - 1)


def _base(view: View, switch: int, name: str, rows: Sequence[Row]) -> float | None:
    """The base of the reference row; of another row at the switch or after it where that one has none."""
    boundary = view.boundary.get((switch, name))
    candidates = [rows[0], *([boundary] if boundary else []), *rows[1:]]
    return next((row.base for row in candidates if row.base is not None), None)


def _recovery(curve: Curve, trough: int) -> Gap:
    last = curve[-1][0]
    if _within(curve[trough]):
        return {
            "status": "never_dropped",
            "recovery_steps": 0,
            "recovery_interval": None,
            "censored_at": None,
        }
    for i in range(trough + 1, len(curve)):
        following = curve[i : i + PERSISTENCE]
        if all(_within(point) for point in following):
            full = len(following) == PERSISTENCE
            return {
                "status": "recovered" if full else "recovered_at_end",
                "recovery_steps": curve[i][0],
                "recovery_interval": [curve[i - 1][0], curve[i][0]],
                "censored_at": None,
            }
    return {
        "status": "not_recovered",
        "recovery_steps": None,
        "recovery_interval": None,
        "censored_at": last,
    }


def _within(point: tuple[int, float, float]) -> bool:
    _, delta, tolerance = point
    return delta <= tolerance + ROUNDING


def no_gap_reason(view: View, held_out: bool) -> str:
    """Why a table has no (switch, set) pairs."""
    if not view.trace:
        return "no trace rows: the run was not evaluated between boundaries"
    if held_out and not view.structure.held_out:
        return "no evaluation set is held out"
    if not held_out and view.tasks + (view.structure.current is not None) < 2:
        return "no switch: fewer than two tasks were begun"
    return "no old set was evaluated"
