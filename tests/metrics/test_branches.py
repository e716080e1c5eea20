"""Tables of runs whose tasks end in an anneal: the annealed model is the result, the trunk a view of its own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from clbench.metrics import compute
from clbench.table import EvaluationTable, Row
from clbench.traces import read_trace

ANNEALED = {1: (0.9,), 2: (0.7, 0.95)}
TRUNK = {1: (0.8,), 2: (0.5, 0.85)}


def boundary(tasks_seen: int, values: tuple[float, ...], weights: str) -> list[Row]:
    scores = [*values, *[None] * (2 - len(values))]
    return [
        Row(10 * tasks_seen, tasks_seen, f"s{j}", value, 100, j, weights=weights)  # type: ignore[arg-type]
        for j, value in enumerate(scores)
    ]


def forked(*tasks: int) -> list[Row]:
    """A run of two tasks with a trace, of which these end in a branch; training goes on from the trunk."""
    rows = boundary(0, (0.1, 0.1), "deploy")
    for task in (1, 2):
        if task in tasks:
            rows += boundary(task, ANNEALED[task], "anneal") + boundary(task, TRUNK[task], "train")
        else:
            rows += boundary(task, TRUNK[task], "deploy")
    rows.append(Row(10, 0, "s0", 0.79, 50, 0, "trace"))
    rows.append(Row(10, 1, "s0", 0.79, 50, 0, "trace"))
    rows += [Row(10 + i, 1, "s0", value, 50, 0, "trace") for i, value in ((1, 0.6), (5, 0.7), (10, 0.5))]
    return rows


def test_plain_keys_are_of_the_annealed_model_and_train_of_the_trunk() -> None:
    metrics = compute(EvaluationTable(forked(1, 2)))
    assert metrics["average"] == pytest.approx((0.7 + 0.95) / 2)
    assert metrics["forgetting"] == pytest.approx(0.2)
    assert metrics["average[train]"] == pytest.approx((0.5 + 0.85) / 2)
    assert metrics["forgetting[train]"] == pytest.approx(0.3)
    assert metrics["matrix"]["rows"] == [[0.9, None], [0.7, 0.95]]
    assert metrics["matrix"]["initial"] == [0.1, 0.1]
    assert metrics["table"]["weights"] == "anneal"
    assert "average[anneal]" not in metrics
    assert "average[deploy]" not in metrics


def test_the_view_of_the_trunk_is_the_run_without_branches() -> None:
    metrics, without = compute(EvaluationTable(forked(1, 2))), compute(EvaluationTable(forked()))
    for key in ("average", "forgetting", "learning", "average_incremental", "backward_transfer", "transfer"):
        assert metrics[f"{key}[train]"] == without[key], key


def test_gaps_start_from_what_training_goes_on_from() -> None:
    metrics = compute(EvaluationTable(forked(1, 2)))
    assert metrics["gap"][0]["m0"] == 0.79
    assert metrics["gap_depth"] == pytest.approx(0.29)
    assert metrics["gap"] == compute(EvaluationTable(forked()))["gap"]


def test_without_a_trace_row_at_the_switch_gaps_start_from_the_trunk() -> None:
    rows = [row for row in forked(1, 2) if not (row.kind == "trace" and row.step == 10 and row.tasks_seen == 1)]
    assert compute(EvaluationTable(rows))["gap"][0]["m0"] == 0.8


def test_a_task_that_does_not_fork_keeps_its_rows() -> None:
    metrics = compute(EvaluationTable(forked(1)))
    assert metrics["matrix"]["rows"] == [[0.9, None], [0.5, 0.85]]
    assert metrics["average[train]"] == pytest.approx((0.5 + 0.85) / 2)
    assert metrics["forgetting[train]"] == pytest.approx(0.3)


def test_where_there_are_deployed_rows_they_stay_the_plain_ones() -> None:
    rows = forked(1, 2)
    rows += [dataclasses.replace(row, weights="deploy") for row in rows if row.weights == "train"]
    metrics = compute(EvaluationTable(rows))
    assert metrics["average"] == pytest.approx((0.5 + 0.85) / 2)
    assert metrics["average[anneal]"] == pytest.approx((0.7 + 0.95) / 2)


def test_the_order_of_rows_does_not_matter() -> None:
    rows = forked(1, 2)
    assert compute(EvaluationTable(reversed(rows))) == compute(EvaluationTable(rows))


def test_a_joint_reference_is_read_as_its_own_result() -> None:
    joint = {"joint": EvaluationTable(forked(1, 2))}
    assert compute(EvaluationTable(forked(1, 2)), references=joint)["accumulation"] == pytest.approx(0.0)
    assert compute(EvaluationTable(forked()), references=joint)["accumulation"] == pytest.approx(-0.15)


def test_figures_read_the_same_rows(tmp_path: Path) -> None:
    EvaluationTable(forked(1, 2)).write(tmp_path / "evaluations.parquet")
    trace = read_trace(tmp_path, "higher")
    assert trace.ends == (10, 20)
    assert trace.scores["s1"].values.tolist() == [0.1, 0.95]  # never traced: the annealed rows of its boundaries
    assert trace.scores["s0"].values.tolist() == [0.79, 0.6, 0.7, 0.5]
    assert trace.changes[1].values.tolist() == pytest.approx([0.0, -0.19, -0.09, -0.29])
