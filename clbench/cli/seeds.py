"""Several seeds of one specification: the mean of each metric and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clbench.cli.text import columns, number

if TYPE_CHECKING:
    from clbench.cli.execute import Outcome

CONFIDENCE = 0.95
SHOWN = ("average", "average_incremental", "learning", "forgetting", "gap_depth", "retention")


def summarise(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """Metric -> mean, half-width of the 95 % t interval (None for one run) and n, over completed runs that have it."""
    found: dict[str, list[float]] = {}
    for outcome in outcomes:
        if outcome.record["status"] == "completed":
            for key, value in outcome.record["metrics"].items():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    found.setdefault(key, []).append(float(value))
    return {key: _interval(values) for key, values in found.items()}


def _interval(values: list[float]) -> dict[str, Any]:
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return {"mean": mean, "half_width": None, "n": n}
    from scipy.special import stdtrit

    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    quantile = float(stdtrit(n - 1, 1 - (1 - CONFIDENCE) / 2))
    return {"mean": mean, "half_width": quantile * deviation / math.sqrt(n), "n": n}


def seed_summary(outcomes: Sequence[Outcome]) -> str:
    """A row for each seed, then the mean with its interval; ends in a newline."""
    totals = summarise(outcomes)
    keys = [key for key in SHOWN if key in totals]
    rows = [["seed", *keys, "status"]]
    for outcome in outcomes:
        metrics = outcome.record["metrics"]
        cells = [number(metrics.get(key)) for key in keys]
        rows.append([str(outcome.record["spec"]["seed"]), *cells, outcome.record["status"]])
    if keys:
        rows.append(["mean", *(number(totals[key]["mean"]) for key in keys), ""])
        rows.append(["+- (95 %)", *(number(totals[key]["half_width"]) for key in keys), ""])
    first = outcomes[0].record
    lines = [f"{first['strategy']['name']} on {first['stream']['name']}, {len(outcomes)} seeds", *columns(rows)]
    lines += [f"folder   {outcome.folder}" for outcome in outcomes]
    done = [str(outcome.folder) for outcome in outcomes if outcome.record["status"] == "completed"]
    if done:
        lines.append(f"next     clbench compare {' '.join(done)}")
    return "\n".join(lines) + "\n"
