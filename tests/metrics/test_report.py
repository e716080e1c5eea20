from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from clbench.metrics import DEFINITIONS, compute
from clbench.table import EvaluationTable, Row

OBJECTS = {"versions", "undefined", "matrix", "by_task", "by_column", "over_stream", "gap", "gap_new", "gap_stream"}
OBJECTS |= {"grid", "noise_floor", "table"}


def run_table(tasks: int = 3, **changes: object) -> list[Row]:
    rows = []
    for t in range(1, tasks + 1):
        for j in range(tasks):
            value = 0.9 - 0.1 * (t - 1 - j) if j < t else None
            row = Row(10 * t, t, f"s{j}", value, n=100, belongs_to=j, metric="accuracy")
            rows.append(dataclasses.replace(row, **changes))  # type: ignore[arg-type]
    return rows


def test_layout() -> None:
    metrics = compute(EvaluationTable(run_table()))
    assert set(metrics) == set(DEFINITIONS) | OBJECTS
    for key in DEFINITIONS:
        assert metrics[key] is None or isinstance(metrics[key], (int, float))
    assert metrics["matrix"]["eval_sets"] == ["s0", "s1", "s2"]
    assert metrics["matrix"]["rows"][0] == [0.9, None, None]
    assert metrics["matrix"]["initial"] is None
    assert metrics["matrix"]["steps"] == [10, 20, 30]
    assert metrics["table"]["directions"] == {"accuracy": "higher"}
    json.dumps(metrics, allow_nan=False)


def test_other_metrics_and_weights_have_their_own_keys() -> None:
    rows = run_table()
    rows += [
        dataclasses.replace(row, metric="loss", value=None if row.value is None else 1 - row.value)
        for row in run_table()
    ]
    rows += run_table(weights="train") + run_table(weights="anneal", value=0.5)
    metrics = compute(EvaluationTable(rows))
    assert metrics["forgetting"] == pytest.approx(0.15)
    # A loss says by its name that lower is better.
    assert metrics["loss:forgetting"] == pytest.approx(0.15)
    assert metrics["loss:average"] == pytest.approx(-0.2)
    assert metrics["forgetting[train]"] == pytest.approx(0.15)
    assert metrics["average[anneal]"] == 0.5
    assert metrics["versions"]["average[anneal]"] == metrics["versions"]["average"]
    assert metrics["table"]["directions"] == {"accuracy": "higher", "loss": "lower"}


def test_weights_fall_back_to_train() -> None:
    metrics = compute(EvaluationTable(run_table(weights="train")))
    assert metrics["average"] == pytest.approx(0.8)
    assert metrics["table"]["weights"] == "train"
    assert "average[train]" not in metrics


def test_other_weights_may_be_incomplete() -> None:
    rows = run_table() + [row for row in run_table(weights="anneal") if row.tasks_seen == 2]
    metrics = compute(EvaluationTable(rows))
    assert metrics["average[anneal]"] is None
    assert "no boundary row" in metrics["undefined"]["average[anneal]"]


def test_only_anneal_rows() -> None:
    metrics = compute(EvaluationTable(run_table(weights="anneal")))
    assert metrics["average"] is None
    assert set(metrics) >= set(DEFINITIONS) | OBJECTS


def test_two_thousand_evaluations_of_twenty_sets() -> None:
    rows = []
    for task in range(20):
        for step in range(100 * task + 1, 100 * task + 101):
            rows += [Row(step, task, f"s{j}", 0.5 + (7 * step + j) % 11 / 50, 1000, j, "trace") for j in range(20)]
        for j in range(20):
            rows.append(Row(100 * task + 100, task + 1, f"s{j}", 0.8, 1000, j, "trace"))
            rows.append(Row(100 * task + 100, task + 1, f"s{j}", 0.8, 1000, j, "boundary"))
    metrics = compute(EvaluationTable(rows))
    assert metrics["gap_pairs"] == 20 * 19 / 2
    assert metrics["undefined"].keys() >= {"retention"}
    assert metrics["wf_10"] == pytest.approx(0.3)


def test_import_is_light() -> None:
    code = "import sys, clbench.metrics, clbench.table; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("numpy", "torch", "pandas", "pyarrow", "rich", "pydantic"):
        assert heavy not in loaded.split()
