"""Several seeds of one specification: the mean of each metric and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clbench.cli.text import columns, number
from clbench.statistics import Estimate, mean_interval

if TYPE_CHECKING:
    from clbench.cli.execute import Outcome

SHOWN = ("average", "average_incremental", "learning", "forgetting", "gap_depth", "retention")


def summarise(outcomes: Sequence[Outcome]) -> dict[str, Estimate]:
    """Metric -> mean and 95 % interval over the completed runs that have it."""
    found: dict[str, list[float]] = {}
    for outcome in outcomes:
        if outcome.record["status"] == "completed":
            for key, value in outcome.record["metrics"].items():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    found.setdefault(key, []).append(float(value))
    return {key: mean_interval(values) for key, values in found.items()}


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
        rows.append(["mean", *(number(totals[key].mean) for key in keys), ""])
        rows.append(["+- (95 %)", *(number(totals[key].half_width) for key in keys), ""])
    first = outcomes[0].record
    lines = [f"{first['strategy']['name']} on {first['stream']['name']}, {len(outcomes)} seeds", *columns(rows)]
    lines += [f"folder   {outcome.folder}" for outcome in outcomes]
    done = [str(outcome.folder) for outcome in outcomes if outcome.record["status"] == "completed"]
    if len(done) > 1:
        lines.append(f"next     clbench compare {' '.join(done)}")
    return "\n".join(lines) + "\n"
