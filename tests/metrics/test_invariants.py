"""What must hold for every table, on random ones: unequal tasks, gaps in the trace, several sets a task."""

from __future__ import annotations

import dataclasses
import json
import random
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clbench.metrics import DEFINITIONS, compute
from clbench.table import EvaluationTable, Row

AVERAGES = {"average", "average_micro", "average_incremental", "learning", "transfer", "average_over_time"}
AVERAGES |= {"retention", "min_acc", "wc_acc", "auc", "auc_own", "average_backward", "average_forward"}

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SCORES = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


@st.composite
def tables(draw: st.DrawFn) -> list[Row]:
    """A complete run: boundary rows of every set, a trace on one grid with the rows round each switch."""
    lengths = draw(st.lists(st.integers(0, 12), min_size=1, max_size=4))
    owners = [j for j in range(len(lengths)) for _ in range(draw(st.integers(1, 2)))]
    sets: list[tuple[str, int | None]] = [(f"set{i}", owner) for i, owner in enumerate(owners)]
    sets += [("held", None)] * draw(st.integers(0, 1))
    base = draw(st.none() | st.just(0.1))
    rows = []
    step = 0

    def evaluate(tasks_seen: int, kind: str) -> None:
        for name, owner in sets:
            value = draw(SCORES)
            rows.append(
                Row(step, tasks_seen, name, value, 50, owner, kind, base=base)  # type: ignore[arg-type]
            )

    evaluate(0, "boundary")
    evaluate(0, "trace")
    for task, length in enumerate(lengths):
        for _ in range(length):
            step += 1
            if draw(st.booleans()):
                evaluate(task, "trace")
        evaluate(task + 1, "trace")
        evaluate(task + 1, "boundary")
    return rows


def metrics_of(rows: list[Row], direction: str = "higher") -> dict[str, Any]:
    return compute(EvaluationTable(rows), direction)


def scalars(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: metrics[key] for key in DEFINITIONS}


def same(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, float) and isinstance(second, (int, float)):
        return second == pytest.approx(first, abs=1e-9)
    return bool(first == second)


def without(gaps: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in gap.items() if key not in names} for gap in gaps]


@QUICK
@given(tables())
def test_negating_values_and_flipping_the_direction_changes_nothing(rows: list[Row]) -> None:
    negated = [
        dataclasses.replace(
            row,
            value=None if row.value is None else -row.value,
            base=None if row.base is None else -row.base,
        )
        for row in rows
    ]
    first, second = metrics_of(rows), metrics_of(negated, "lower")
    assert same(scalars(first), scalars(second))
    assert same(without(first["gap"], "m0", "base"), without(second["gap"], "m0", "base"))


@QUICK
@given(tables(), st.integers(-3, 3))
def test_adding_a_constant_changes_averages_and_relative_depth_only(rows: list[Row], constant: int) -> None:
    shifted = [dataclasses.replace(row, value=(row.value or 0.0) + constant) for row in rows]
    first, second = metrics_of(rows), metrics_of(shifted)
    for key in set(DEFINITIONS) - AVERAGES:
        assert same(first[key], second[key]), key
    for key in AVERAGES:
        if first[key] is not None:
            assert second[key] == pytest.approx(first[key] + constant), key
    kept = ("m0", "relative_depth")
    assert same(without(first["gap"], *kept), without(second["gap"], *kept))


@QUICK
@given(tables())
def test_gap_bounds(rows: list[Row]) -> None:
    for gap in metrics_of(rows)["gap"]:
        if gap["depth"] is None:
            continue
        assert gap["depth"] >= max(0.0, gap["final"])
        assert -1e-12 <= gap["area"] <= gap["depth"] * gap["horizon"] + 1e-9
        assert 0 <= gap["transient"] <= gap["depth"]
        assert 0 <= gap["recovered_fraction"] <= 1
        assert (gap["recovery_steps"] is None) == (gap["censored_at"] is not None)
        if gap["recovery_interval"]:
            low, high = gap["recovery_interval"]
            assert gap["trough_steps"] <= low < high == gap["recovery_steps"]


@QUICK
@given(tables(), st.randoms(use_true_random=False))
def test_removing_trace_rows_never_increases_depth(rows: list[Row], rng: random.Random) -> None:
    ends = {row.step for row in rows if row.kind == "boundary"}
    kept = [row for row in rows if row.kind == "boundary" or row.step in ends or rng.random() < 0.5]
    before = {(gap["switch"], gap["eval_set"]): gap["depth"] for gap in metrics_of(rows)["gap"]}
    for gap in metrics_of(kept)["gap"]:
        if gap["depth"] is not None:
            assert gap["depth"] <= before[(gap["switch"], gap["eval_set"])]


@QUICK
@given(tables(), st.randoms(use_true_random=False))
def test_order_of_rows_changes_nothing(rows: list[Row], rng: random.Random) -> None:
    shuffled = list(rows)
    rng.shuffle(shuffled)
    assert same(scalars(metrics_of(rows)), scalars(metrics_of(shuffled)))


@QUICK
@given(tables())
def test_renaming_sets_changes_nothing(rows: list[Row]) -> None:
    renamed = [
        dataclasses.replace(row, eval_set=f"{zlib.crc32(row.eval_set.encode()) % 97}-{row.eval_set}") for row in rows
    ]
    first, second = metrics_of(rows), metrics_of(renamed)
    assert same(scalars(first), scalars(second))
    assert same(without(first["gap"], "eval_set"), without(second["gap"], "eval_set"))


@QUICK
@given(
    tables(), st.sampled_from([None, float("nan"), float("inf"), float("-inf"), 1.7e308, -1.7e308, 5e-324]), st.data()
)
def test_damaged_values_never_reach_the_json(rows: list[Row], bad: float | None, data: st.DataObject) -> None:
    for index in data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=4)):
        rows[index] = dataclasses.replace(rows[index], value=bad)
    metrics = metrics_of(rows)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert set(metrics["versions"]) == set(DEFINITIONS)
    nulls = {key for key in DEFINITIONS if metrics[key] is None}
    assert nulls == set(metrics["undefined"])
    for gap in metrics["gap"]:
        assert gap["depth"] is not None or gap["reason"]


@QUICK
@given(tables())
def test_boundary_metrics_agree_with_their_formulas_written_out(rows: list[Row]) -> None:
    T = max(row.tasks_seen for row in rows)
    R = {
        (t, j): _mean([r.value for r in rows if r.kind == "boundary" and r.tasks_seen == t + 1 and r.belongs_to == j])
        for t in range(-1, T)
        for j in range(T)
    }
    metrics = metrics_of(rows)
    assert metrics["average"] == pytest.approx(_mean([R[T - 1, j] for j in range(T)]))
    incremental = [_mean([R[t, j] for j in range(t + 1)]) for t in range(T)]
    assert metrics["average_incremental"] == pytest.approx(_mean(incremental))
    if T > 1:
        lost = [max(R[t, j] for t in range(j, T - 1)) - R[T - 1, j] for j in range(T - 1)]
        assert metrics["forgetting"] == pytest.approx(_mean(lost), abs=1e-9)
        assert metrics["forgetting"] >= -metrics["backward_transfer"] - 1e-9
        gained = [R[j - 1, j] - R[-1, j] for j in range(1, T)]
        assert metrics["forward_transfer"] == pytest.approx(_mean(gained), abs=1e-9)


def _mean(values: list[Any]) -> float:
    return sum(values) / len(values)
