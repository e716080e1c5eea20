"""What the trace metrics would show by sampling noise alone, if nothing were forgotten.

Model: the true accuracy of a set stays at p, its value right after it was learned; each of its evaluations is
an independent draw of n samples, so normal with standard deviation sqrt(p(1-p)/n). On a fixed subset two
evaluations of similar models agree on most samples, so this is a ceiling of the noise; an unchanged model
shows none. Extremes of k draws use the exact expected maximum of k standard normals; windows, areas and
transients, which depend on the grid, the mean of DRAWS simulations from a fixed seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from clbench.metrics.gap import MEANS, Gap
from clbench.metrics.trace import WINDOWS, scored, tasks_with_sets
from clbench.metrics.view import Undefined, View, mean

DRAWS = 100
SEED = 2205
ASSUMPTION = (
    "true accuracy constant at its value after learning, every evaluation an independent draw of n samples; "
    "a ceiling, since evaluations on one fixed subset share their samples"
)


def noise_floor(view: View, gaps: Sequence[Gap]) -> dict[str, Any]:
    """{metric key: what it would show, or None}, with `undefined` (key -> reason) and `assumption`."""
    floor: dict[str, Any] = {}
    undefined: dict[str, str] = {}
    for part, keys in (
        (_minimum_floor, ("min_acc", "wc_acc")),
        (_window_floor, tuple(f"{kind}_{w}" for w in WINDOWS for kind in ("wf", "wp"))),
    ):
        try:
            floor |= part(view)
        except Undefined as reason:
            floor |= dict.fromkeys(keys)
            undefined |= dict.fromkeys(keys, str(reason))
    for prefix, held_out in (("gap_", False), ("gap_heldout_", True)):
        try:
            floor |= _gap_floor(view, [gap for gap in gaps if gap["held_out"] == held_out], prefix)
        except Undefined as reason:
            floor |= dict.fromkeys(prefix + key for key in MEANS)
            undefined |= dict.fromkeys((prefix + key for key in MEANS), str(reason))
    return floor | {"undefined": undefined, "assumption": ASSUMPTION}


@lru_cache(maxsize=4096)
def expected_maximum(k: int) -> float:
    """Expected maximum of `k` independent standard normals (0 for k = 1), by numerical integration."""
    width, reach = 0.02, 8.0
    total = 0.0
    for i in range(int(reach / width)):
        x = (i + 0.5) * width
        below = 0.5 * (1 + math.erf(x / math.sqrt(2)))
        total += (1 - below**k - (1 - below) ** k) * width
    return total


def _level(view: View, name: str, tasks_seen: int) -> float:
    """Accuracy of a set at the boundary after `tasks_seen` tasks, the level the noise is put on."""
    row = view.at_switch.get((tasks_seen, name))
    if row is None:
        raise Undefined(f"set {name!r} was not measured after task {tasks_seen - 1}")
    return view.score(row)


def _learned_level(view: View, name: str) -> float:
    """Accuracy of a task's set when the task ended; while it is being learned, at the last boundary."""
    return _level(view, name, min((view.structure.sets[name] or 0) + 1, view.tasks))


def _deviation(view: View, name: str, p: float) -> float:
    """Standard deviation of one evaluation of a set whose accuracy is `p`."""
    if view.sign < 0 or not 0 <= p <= 1:
        raise Undefined("known for accuracies only: the spread of a loss over samples is not in the table")
    sizes = [row.n for row in view.trace.get(name, ()) if row.n]
    if not sizes:
        raise Undefined(f"n (samples) is unknown for the trace of set {name!r}")
    return math.sqrt(p * (1 - p) / min(sizes))


def _minimum_floor(view: View) -> dict[str, float]:
    T = view.need_tasks(2)
    end = view.structure.ends[-1]
    lowest = []
    for j in range(T - 1):
        levels = []
        for name in view.sets_of(j):
            p = _level(view, name, j + 1)
            deviation = _deviation(view, name, p)
            count = sum(view.structure.ends[j] < step <= end for step, _ in scored(view, name))
            if not count:
                raise Undefined(f"set {name!r} has no scored trace row after its task")
            levels.append(p - deviation * expected_maximum(count))
        lowest.append(mean(levels))
    last = mean(_level(view, name, T) for name in view.sets_of(T - 1))
    return {"min_acc": mean(lowest), "wc_acc": last / T + (1 - 1 / T) * mean(lowest)}


def _window_floor(view: View) -> dict[str, float]:
    if not view.trace:
        raise Undefined("no trace rows")
    sets = tasks_with_sets(view)
    grids = {name: [step for step, _ in scored(view, name)] for names in sets for name in names}
    longest = max(grids.values(), key=len)
    floor: dict[str, float] = {}
    for window in WINDOWS:
        shared = _window_constants(longest, window)
        tasks = []
        for names in sets:
            drops = []
            for name in names:
                grid = grids[name]
                start = len(longest) - len(grid)
                suffix = bool(grid) and longest[start:] == grid
                constants = shared[start:] if suffix else _window_constants(grid, window)
                if not constants:
                    raise Undefined(f"set {name!r} has no two trace rows less than {window} steps apart")
                drops.append(constants[0] * _deviation(view, name, _learned_level(view, name)))
            tasks.append(mean(drops))
        floor |= {f"wf_{window}": mean(tasks), f"wp_{window}": mean(tasks)}
    return floor


def _window_constants(steps: Sequence[int], window: int) -> list[float]:
    """Entry f: expected largest drop within a window among standard normals at `steps[f:]`.

    Drops and rises of independent draws have the same distribution. Empty where no pair is near enough.
    """
    import numpy as np

    count = len(steps)
    grid = np.asarray(steps, dtype=np.int64)
    z = np.random.default_rng(SEED).standard_normal((DRAWS, count))
    drop = np.full((DRAWS, count), -np.inf)
    for lag in range(1, count):
        near = grid[lag:] - grid[:-lag] < window
        if not near.any():
            break
        difference = np.where(near, z[:, :-lag] - z[:, lag:], -np.inf)
        np.maximum(drop[:, :-lag], difference, out=drop[:, :-lag])
    from_start = np.maximum.accumulate(drop[:, ::-1], axis=1)[:, ::-1]
    means = np.maximum(from_start, 0).mean(axis=0)
    usable = np.isfinite(from_start[0])
    return [float(value) for value, ok in zip(means, usable, strict=True) if ok]


def _gap_floor(view: View, gaps: Sequence[Gap], prefix: str) -> dict[str, float]:
    if not any(gap["depth"] is not None for gap in gaps):
        raise Undefined("no gap was measured")
    switches: dict[int, dict[str, list[float]]] = {}
    constants: dict[tuple[int, ...], dict[str, float]] = {}
    for gap in gaps:
        if gap["depth"] is None:
            continue
        steps, switch = gap_grid(view, gap), gap["switch"]
        if steps not in constants:
            constants[steps] = _gap_constants(steps)
        deviation = _deviation(view, gap["eval_set"], gap["m0"])
        for key in MEANS:
            constant = constants[steps]["area"] / gap["horizon"] if key == "mean" else constants[steps][key]
            switches.setdefault(switch, {}).setdefault(key, []).append(constant * deviation)
    return {prefix + key: mean(mean(numbers[key]) for numbers in switches.values()) for key in MEANS}


def gap_grid(view: View, gap: Gap) -> tuple[int, ...]:
    """Steps since the switch at which the gap's set was scored."""
    start, end = gap["step"], gap["step"] + gap["horizon"]
    rows = view.inside.get((gap["switch"], gap["eval_set"]), ())
    return tuple(row.step - start for row in rows if row.step <= end and row.value is not None)


def _gap_constants(steps: Sequence[int]) -> dict[str, float]:
    """Expected depth, area and transient of standard normal noise evaluated at `steps` and at the switch."""
    import numpy as np

    z = np.random.default_rng(SEED).standard_normal((DRAWS, len(steps) + 1))
    delta = z[:, :1] - z
    width = np.diff(np.asarray([0, *steps], dtype=np.float64))
    d0, d1 = delta[:, :-1], delta[:, 1:]
    high = np.maximum(d0, d1)
    crossing = d0 * d1 < 0
    spread = np.where(crossing, np.abs(d0 - d1), 1.0)
    above = np.where(crossing, high * high / (2 * spread), (np.maximum(d0, 0) + np.maximum(d1, 0)) / 2)
    transient = delta.max(axis=1) - np.maximum(delta[:, -1], 0)
    return {
        "depth": expected_maximum(len(steps) + 1),
        "area": float((above * width).sum(axis=1).mean()),
        "transient": float(transient.mean()),
    }
