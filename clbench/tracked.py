"""What is logged of a run, in MLflow's terms: parameters, final metrics, curves and tags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clbench.record import Record

RUN_TAG = "clbench.run"
LONGEST_PARAMETER = 500


def parameters(record: Record) -> dict[str, str]:
    """The specification, flat: `strategy_settings.lr` -> "0.1"; long values are cut."""
    flat: dict[str, str] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[allowed_name(prefix)] = str(value)[:LONGEST_PARAMETER]

    add("", {key: value for key, value in record["spec"].items() if key != "data_root"})
    return flat


def finals(record: Record) -> dict[str, float]:
    """Metrics and costs that are numbers, by MLflow's name (`average[train]` -> `average.train`)."""
    metrics = record["metrics"]
    numbers = {key: metrics.get(key) for key in metrics.get("versions", {})}
    numbers |= {f"cost/{key}": value for key, value in record["cost"].items()}
    return {allowed_name(key): float(value) for key, value in numbers.items() if isinstance(value, (int, float))}


def curves(folder: Path) -> list[tuple[str, int, float]]:
    """(name, step, value) of every evaluation, by optimiser steps; of several at one step, the one after the task.

    Names are KIND/SET, with the metric and the weights where they are not the main ones.
    """
    from clbench.table import EvaluationTable

    path = folder / "evaluations.parquet"
    if not path.is_file():
        return []
    rows = EvaluationTable.read(path).rows
    primary = rows[0].metric
    points: dict[tuple[str, int], float] = {}
    for row in sorted(rows, key=lambda row: (row.step, row.tasks_seen)):
        if row.value is not None:
            parts = [row.kind, row.eval_set]
            parts += [row.metric] if row.metric != primary else []
            parts += [row.weights] if row.weights != "deploy" else []
            points[(allowed_name("/".join(parts)), row.step)] = row.value
    return [(name, step, value) for (name, step), value in points.items()]


def tags_of(folder: Path, record: Record) -> dict[str, str]:
    """What a run is found by."""
    spec, stream = record["spec"], record["stream"]
    tags = {
        RUN_TAG: identity(folder, record),
        "strategy": record["strategy"]["name"],
        "strategy_version": record["strategy"]["version"],
        "stream": stream["name"],
        "content": stream["content"],
        "order": stream["order"],
        "seed": spec["seed"],
        "order_seed": spec["order_seed"],
        "spec_hash": record["spec_hash"],
        "status": record["status"],
        "finished": record["finished"],
        "path": folder,
        "chosen_on": spec["chosen_on"],
        "needs": " ".join(key for key, value in record["strategy"]["needs"].items() if value is True) or "none",
        "clbench_version": record["environment"]["versions"].get("clbench", "unknown"),
    }
    return {key: str(value) for key, value in tags.items()}


def identity(folder: Path, record: Record) -> str:
    """What a repeated logging of one run has in common: its id, which the folder is named after, and its spec."""
    return f"{folder.name}/{record['spec_hash'][:16]}"


def allowed_name(text: str) -> str:
    """With the characters MLflow allows in names."""
    text = text.replace("[", ".").replace("]", "")
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-./ ") else "_" for c in text)
