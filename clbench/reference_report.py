"""What runs are worth against their references: each alone, and over the seeds of each row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clbench.files import write_atomically
from clbench.frontier import Point, frontier, hypervolume
from clbench.leaderboard import group_runs
from clbench.metrics.boundary import adaptation, forgetting_signed
from clbench.metrics.references import REFERENCE_DEFINITIONS, common_horizons, compute_with_references
from clbench.metrics.report import main_view, value_of
from clbench.metrics.view import View
from clbench.record import Record, read_record
from clbench.references import FILE, Reference, replayed_tokens, tokens_per_step
from clbench.statistics import mean_interval
from clbench.survival import Waited, describe
from clbench.table import EvaluationTable

LOST = ("not_recovered", "diverged")


@dataclass
class Judged:
    """A run, its references, and its metrics against them."""

    folder: Path
    record: Record
    references: dict[str, Reference]
    found: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """What references.json holds."""
        return {
            "run": self.record["run"],
            "strategy": self.record["strategy"]["name"],
            "stream": self.record["stream"]["name"],
            "seed": self.record["spec"]["seed"],
            "clock": self.record.get("clock"),
            "tokens_per_step": tokens_per_step(self.record),
            "references": {role: reference.as_dict() for role, reference in self.references.items()},
            **self.found,
        }

    def write(self) -> Path:
        """Beside the record, which stays as it is."""
        path = self.folder / FILE
        write_atomically(path, json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n")
        return path


def judge(
    runs: Sequence[tuple[Path, dict[str, Reference]]], target: float | None = None, horizon: int | None = None
) -> list[Judged]:
    """Every run against its references, all of them at the same horizons after each switch.

    target: the raw score `tokens_to_target` waits for; None: that of training from scratch. horizon: steps after each
    switch that count, at most. The runs have ended and are of one stream. Raises UserError for tables that cannot be
    read.
    """
    records = [read_record(folder) for folder, _ in runs]
    direction = records[0]["stream"]["direction"]
    tables = [
        (_table(folder), {role: _table(r.folder) for role, r in refs.items() if _usable(r)}) for folder, refs in runs
    ]
    views = [main_view(table, direction) for table, _ in tables]
    views += [main_view(others["control"], direction) for _, others in tables if "control" in others]
    horizons = common_horizons(*views)
    if horizon is not None:
        horizons = {switch: min(horizon, steps) for switch, steps in horizons.items()}
    judged = []
    for (folder, references), record, (table, others) in zip(runs, records, tables, strict=True):
        found = compute_with_references(
            table,
            direction,
            others,
            tokens_per_step=tokens_per_step(record),
            target=target,
            horizons=horizons,
            replayed_tokens=replayed_tokens(record),
        )
        judged.append(Judged(folder, record, references, found))
    return judged


def over_seeds(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """For each row (strategy and settings): means with 95 % intervals, and how its runs recovered after each switch."""
    by_folder = {one.folder: one for one in judged}
    rows = group_runs((one.folder, one.record) for one in judged)
    return [_row(row.label, [by_folder[folder] for folder, _ in [*row.runs, *row.failures]]) for row in rows]


def trade_off(judged: Sequence[Judged]) -> dict[str, Any]:
    """Adaptation against signed forgetting of every run, the frontier of their rows' means, and the area under it.

    The reference of the area is (0, the largest forgetting there is, at least 0): comparable within this call only.
    """
    points: list[dict[str, Any]] = []
    for row in group_runs((one.folder, one.record) for one in judged):
        found = [point for folder, record in row.runs if (point := _point(folder, record)) is not None]
        if found:
            mean = [sum(values) / len(found) for values in zip(*found, strict=True)]
            points.append({"row": row.label, "runs": len(found), "adaptation": mean[0], "forgetting": mean[1]})
    plane: list[Point] = [(point["adaptation"], point["forgetting"]) for point in points]
    worst = max([0.0, *(forgetting for _, forgetting in plane)])
    return {
        "points": points,
        "frontier": [points[i]["row"] for i in frontier(plane)],
        "reference": [0.0, worst],
        "hypervolume": hypervolume(plane, (0.0, worst)),
    }


def _row(label: str, members: Sequence[Judged]) -> dict[str, Any]:
    metrics = {}
    for key in REFERENCE_DEFINITIONS:
        values = [one.found[key] for one in members if one.found[key] is not None]
        left_out = len(members) - len(values)
        metrics[key] = {**(mean_interval(values).as_dict() if values else {}), "left_out": left_out}
    return {
        "row": label,
        "runs": [one.record["run"] for one in members],
        "metrics": metrics,
        "recovery": _recovery(members),
    }


def _recovery(members: Sequence[Judged]) -> list[dict[str, Any]]:
    """Of each (switch, old set): the share of runs that recovered, Kaplan-Meier median and restricted mean, in steps
    and, where all runs have the same clock, in tokens."""
    pairs: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for one in members:
        for gap in one.found["gap"]:
            if gap["depth"] is not None or gap["status"] == "diverged":
                pairs.setdefault((gap["switch"], gap["eval_set"]), []).append(gap)
    rates = {tokens_per_step(one.record) for one in members}
    rate = rates.pop() if len(rates) == 1 else None
    found = []
    for (switch, name), gaps in sorted(pairs.items()):
        horizon = min(gap["horizon"] for gap in gaps)
        recovery = describe([_waited(gap) for gap in gaps], horizon).as_dict()
        statuses = [gap["status"] for gap in gaps]
        entry = {"switch": switch, "eval_set": name, **recovery, "statuses": statuses}
        if rate is not None:
            for key in ("median", "restricted_mean", "horizon"):
                entry[f"{key}_tokens"] = None if recovery[key] is None else recovery[key] * rate
        found.append(entry)
    return found


def _waited(gap: Mapping[str, Any]) -> Waited:
    if gap["status"] in LOST or gap["recovery_steps"] is None:
        return Waited(gap["horizon"], False)
    return Waited(gap["recovery_steps"], True)


def _point(folder: Path, record: Record) -> Point | None:
    view: View = main_view(_table(folder), record["stream"]["direction"])
    a, f = value_of(lambda: adaptation(view)), value_of(lambda: forgetting_signed(view))
    return None if isinstance(a, str) or isinstance(f, str) else (a, f)


def _usable(reference: Reference) -> bool:
    return reference.state == "found"


def _table(folder: Path | None) -> EvaluationTable:
    assert folder is not None
    return EvaluationTable.read(folder / "evaluations.parquet")
