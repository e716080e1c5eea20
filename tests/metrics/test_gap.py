from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clbench.metrics import compute
from clbench.metrics.gap import describe
from clbench.table import EvaluationTable, Row

Maker = Callable[..., EvaluationTable]

ACCURACY = (0.90, 100, [101, 102, 105, 110, 120, 150, 200], [0.70, 0.60, 0.72, 0.80, 0.885, 0.895, 0.90])


def only_gap(table: EvaluationTable, direction: str = "higher", **options: Any) -> dict[str, Any]:
    (gap,) = compute(table, direction, **options)["gap"]
    return dict(gap)


def check(gap: dict[str, Any], **expected: Any) -> None:
    for name, value in expected.items():
        assert gap[name] == (pytest.approx(value) if isinstance(value, float) else value), name


def test_accuracy_that_falls_and_recovers(gap_table: Maker) -> None:
    gap = only_gap(gap_table(*ACCURACY, base=0.10))
    check(gap, depth=0.30, trough_steps=2, relative_depth=0.375, recovery_steps=50, area=2.77)
    check(gap, recovery_interval=[20, 50], mean_gap=0.0277, final=0.0, status="recovered", horizon=100)
    check(gap, switch=1, step=100, eval_set="old", censored_at=None, evaluations=7, m0=0.90)


def test_loss_that_rises_and_recovers(gap_table: Maker) -> None:
    values = [2.10, 2.30, 2.20, 2.10, 2.05, 2.008, 2.004]
    gap = only_gap(gap_table(2.00, 0, [1, 2, 5, 10, 20, 50, 100], values, base=4), "lower")
    check(gap, depth=0.30, relative_depth=0.15, final=0.004, transient=0.296, recovery_steps=50)
    check(gap, area=3.67, status="recovered", recovery_interval=[20, 50])


def in_metric(table: EvaluationTable, metric: str, factor: float = 1.0) -> EvaluationTable:
    """The same rows under another name, their values times `factor`."""
    rows = table.rows
    named = EvaluationTable()
    for row in rows:
        named.append(replace(row, metric=metric, value=None if row.value is None else factor * row.value))
    return named


@pytest.mark.parametrize("metric", ["nats", "loss", "val_loss"])
def test_depth_of_a_loss_in_bits_and_as_a_ratio_of_perplexities(gap_table: Maker, metric: str) -> None:
    table = in_metric(gap_table(2.00, 0, [1, 2, 5], [2.10, 2.30, 2.20], base=4), metric)
    gap = only_gap(table, "lower")
    check(gap, depth=0.30, depth_bits=0.43280851, ppl_ratio=1.34985881)
    perplexities = [math.exp(value) for value in (2.30, 2.00)]
    assert gap["ppl_ratio"] == pytest.approx(perplexities[0] / perplexities[1])
    (bits,) = compute(in_metric(table, "bits", 1 / math.log(2)), "lower")["gap"]
    assert gap["depth_bits"] == pytest.approx(bits["depth"])


def test_a_loss_that_never_rises_has_no_bits_to_lose(gap_table: Maker) -> None:
    gap = only_gap(in_metric(gap_table(2.0, 0, [10, 20], [1.9, 1.8]), "nats"), "lower")
    check(gap, depth_bits=0.0, ppl_ratio=1.0)


@pytest.mark.parametrize(
    ("metric", "direction"), [("accuracy", "higher"), ("perplexity", "lower"), ("bits", "lower"), ("value", "lower")]
)
def test_other_metrics_have_no_nats(gap_table: Maker, metric: str, direction: str) -> None:
    gap = only_gap(in_metric(gap_table(2.0, 0, [10, 20], [1.9, 1.8]), metric), direction)
    assert not {"depth_bits", "ppl_ratio"} & gap.keys()


def test_units_of_a_gap_without_numbers(gap_table: Maker) -> None:
    lost = only_gap(in_metric(gap_table(None, 0, [10, 20], [1.9, 1.8]), "nats"), "lower")
    check(lost, depth=None, depth_bits=None, ppl_ratio=None)
    huge = only_gap(in_metric(gap_table(2.0, 0, [10, 20], [802.0, 2.0]), "nats"), "lower")
    check(huge, depth=800.0, depth_bits=800 / math.log(2), ppl_ratio=None)


def test_loss_that_does_not_recover(gap_table: Maker) -> None:
    gap = only_gap(gap_table(2.00, 0, [10, 20, 40, 80], [2.4, 2.3, 2.25, 2.2], base=4), "lower")
    check(gap, depth=0.4, relative_depth=0.2, final=0.2, transient=0.2, recovered_fraction=0.5)
    check(gap, area=20.0, mean_gap=0.25, status="not_recovered", censored_at=80, recovery_steps=None)
    check(gap, recovery_interval=None)


def test_loss_that_never_rises(gap_table: Maker) -> None:
    gap = only_gap(gap_table(2.00, 0, [10, 20, 40], [1.99, 1.98, 1.97]), "lower")
    check(gap, depth=0.0, area=0.0, recovery_steps=0, status="never_dropped", final=-0.03)
    check(gap, trough_steps=0, recovered_fraction=1.0, relative_depth=None)


def test_loss_that_ends_lower_than_before(gap_table: Maker) -> None:
    gap = only_gap(gap_table(2.00, 0, [10, 20, 40], [2.1, 1.9, 1.8]), "lower")
    check(gap, depth=0.1, recovery_steps=20, recovery_interval=[10, 20], area=0.75, final=-0.2)
    check(gap, transient=0.1, status="recovered")


def test_one_good_evaluation_is_not_recovery(gap_table: Maker) -> None:
    gap = only_gap(gap_table(0.9, 0, [1, 2, 5, 9, 10], [0.5, 0.9, 0.6, 0.9, 0.9]))
    check(gap, recovery_steps=9, recovery_interval=[5, 9], status="recovered")
    gap = only_gap(gap_table(0.9, 0, [1, 2, 5, 10], [0.5, 0.9, 0.6, 0.7]))
    check(gap, recovery_steps=None, censored_at=10, status="not_recovered")


def test_recovery_at_the_last_evaluation_only(gap_table: Maker) -> None:
    gap = only_gap(gap_table(0.9, 0, [1, 5, 10], [0.5, 0.6, 0.9]))
    check(gap, status="recovered_at_end", recovery_steps=10, recovery_interval=[5, 10], censored_at=None)


def test_recovery_is_sought_after_the_deepest_point(gap_table: Maker) -> None:
    gap = only_gap(gap_table(0.9, 0, [1, 2, 3, 4, 5, 6, 7], [0.7, 0.9, 0.9, 0.5, 0.6, 0.9, 0.9]))
    check(gap, trough_steps=4, depth=0.4, recovery_steps=6)


def test_tolerance_is_inclusive(gap_table: Maker) -> None:
    assert 0.90 - 0.89 > 0.01
    check(only_gap(gap_table(0.90, 0, [1, 5, 10], [0.89, 0.9, 0.9])), status="never_dropped")
    check(only_gap(gap_table(0.90, 0, [1, 5, 10], [0.889, 0.9, 0.9])), status="recovered")


def test_tolerance_follows_the_standard_error_of_each_row(gap_table: Maker) -> None:
    arguments = (0.9, 0, [1, 5, 10, 20], [0.6, 0.87, 0.87, 0.87])
    check(only_gap(gap_table(*arguments)), status="not_recovered")
    check(only_gap(gap_table(*arguments, se=[None, 0.02, 0.02, 0.02])), status="recovered", recovery_steps=5)
    gap = only_gap(gap_table(*arguments, se=[None, 0.02, 0.001, 0.02]))
    check(gap, status="recovered_at_end", recovery_steps=20)
    gap = only_gap(gap_table(*arguments, se=[0.15, None, None, None]))
    check(gap, status="never_dropped", depth=0.3, recovery_steps=0, tolerance=0.3)


def test_short_task(gap_table: Maker) -> None:
    gap = only_gap(gap_table(0.9, 10, [11, 12, 14], [0.5, 0.9, 0.9]))
    check(gap, status="too_short", depth=0.4, horizon=4)
    check(only_gap(gap_table(0.9, 10, [11, 12, 15], [0.5, 0.9, 0.9])), status="recovered", horizon=5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_divergence(gap_table: Maker, bad: float) -> None:
    metrics = compute(gap_table(0.9, 0, [1, 5, 10], [0.5, bad, 0.9]))
    (gap,) = metrics["gap"]
    check(gap, status="diverged", depth=None, area=None, recovery_steps=None)
    assert metrics["gap_depth"] is None
    assert metrics["undefined"]["gap_depth"] == "1 of 1 (switch, set) pairs diverged"
    assert metrics["gap_diverged_share"] == 1
    assert metrics["gap_recovered_share"] == 0


def test_reference_that_is_null(gap_table: Maker) -> None:
    metrics = compute(gap_table(None, 0, [1, 5, 10], [0.5, 0.6, 0.9]))
    (gap,) = metrics["gap"]
    check(gap, status=None, depth=None)
    assert "is null" in gap["reason"]
    assert metrics["gap_depth"] is None
    assert "is null" in metrics["undefined"]["gap_depth"]
    assert (metrics["gap_pairs"], metrics["gap_left_out"]) == (1, 1)


def test_boundary_row_stands_in_for_a_missing_reference(gap_table: Maker) -> None:
    rows = [row for row in gap_table(*ACCURACY) if not (row.kind == "trace" and row.step == 100)]
    gap = only_gap(EvaluationTable(rows))
    check(gap, m0=1.0, depth=0.4)


def test_rows_before_end_task_and_after_the_new_task_are_outside(gap_table: Maker) -> None:
    rows = gap_table(*ACCURACY).rows
    rows.append(Row(100, 0, "old", 0.2, belongs_to=0, kind="trace"))
    rows.append(Row(200, 2, "old", 0.1, belongs_to=0, kind="trace"))
    check(only_gap(EvaluationTable(rows)), depth=0.30, evaluations=7, final=0.0)


def test_horizon(gap_table: Maker) -> None:
    table = gap_table(*ACCURACY)
    check(only_gap(table, horizon=20), horizon=20, status="not_recovered", censored_at=20, evaluations=5)
    check(only_gap(table, horizon=1000), horizon=100, area=2.77)


def test_task_longer_than_its_trace(gap_table: Maker) -> None:
    gap = only_gap(gap_table(0.9, 0, [1, 5, 10], [0.5, 0.6, 0.6], end=50))
    check(gap, horizon=50, censored_at=10, mean_gap=gap["area"] / 50)


def test_unfinished_task_is_measured_so_far(gap_table: Maker) -> None:
    metrics = compute(gap_table(*ACCURACY, finished=False))
    check(metrics["gap"][0], depth=0.30, horizon=100, status="recovered")
    assert metrics["table"]["unfinished_task"] == 1


def test_missing_trace_inside_the_new_task(gap_table: Maker) -> None:
    rows = [row for row in gap_table(*ACCURACY) if row.step in (100, 200) and row.tasks_seen != 1]
    rows += [row for row in gap_table(*ACCURACY) if row.step == 100]
    gap = only_gap(EvaluationTable(rows))
    check(gap, status=None, depth=None, m0=0.90)
    assert "no scored trace row" in gap["reason"]


def test_unscored_rows_are_counted(gap_table: Maker) -> None:
    gap = only_gap(gap_table(0.9, 0, [1, 5, 10], [0.5, None, 0.9]))
    check(gap, evaluations=2, unscored=1, status="recovered_at_end")


def test_strategy_that_cannot_predict_between_boundaries(gap_table: Maker) -> None:
    metrics = compute(gap_table(*ACCURACY), predicts_between_boundaries=False)
    assert metrics["gap"] == []
    for key in ("gap_depth", "gap_pairs", "gap_recovered_share", "gap_heldout_depth"):
        assert metrics[key] is None
        assert "cannot predict between" in metrics["undefined"][key]


def held(step: int, tasks_seen: int, value: float, kind: str = "trace") -> Row:
    return Row(step, tasks_seen, "web", value, kind=kind)  # type: ignore[arg-type]


def test_held_out_sets_have_a_switch_before_training() -> None:
    rows = [
        held(0, 0, 0.9, "boundary"),
        held(0, 0, 0.8),
        held(5, 0, 0.6),
        held(10, 0, 0.8),
        held(10, 1, 0.7),
        held(10, 1, 0.7, "boundary"),
        Row(10, 1, "a", 0.9, belongs_to=0),
        held(15, 1, 0.6),
        held(20, 1, 0.6),
        held(20, 2, 0.9, "boundary"),
        Row(20, 2, "a", 0.9, belongs_to=0),
        Row(20, 2, "b", 0.9, belongs_to=1),
    ]
    metrics = compute(EvaluationTable(rows))
    first, second = (gap for gap in metrics["gap"] if gap["held_out"])
    check(first, switch=0, step=0, m0=0.8, depth=0.2, horizon=10, status="recovered_at_end")
    check(second, switch=1, step=10, m0=0.7, depth=0.1, horizon=10, status="not_recovered")
    assert metrics["gap_heldout_depth"] == pytest.approx(0.15)
    assert metrics["gap_heldout_recovered_share"] == 0.5
    assert metrics["gap_depth"] is None


def test_means_go_over_sets_first_then_over_switches() -> None:
    def row(step: int, tasks_seen: int, j: int, value: float, kind: str = "trace") -> Row:
        return Row(step, tasks_seen, f"s{j}", value, belongs_to=j, kind=kind)  # type: ignore[arg-type]

    rows = [row(10 * t, t, j, 0.9, kind) for t in (1, 2, 3) for j in range(t) for kind in ("boundary", "trace")]
    rows += [row(11, 1, 0, 0.5), row(20, 1, 0, 0.9)]
    rows += [row(21, 2, 0, 0.8), row(30, 2, 0, 0.8), row(21, 2, 1, 0.6), row(30, 2, 1, 0.9)]
    metrics = compute(EvaluationTable(rows))
    assert metrics["gap_depth"] == pytest.approx((0.4 + (0.1 + 0.3) / 2) / 2)
    assert metrics["gap_transient"] == pytest.approx((0.4 + (0.0 + 0.3) / 2) / 2)
    assert metrics["gap_recovered_share"] == pytest.approx(2 / 3)
    assert metrics["gap_pairs"] == 3
    assert [(entry["switch"], entry["evaluations"]) for entry in metrics["grid"]] == [(1, [1, 10]), (2, [1, 10])]


def test_one_task_has_no_switch() -> None:
    rows = [Row(10, 1, "a", 0.5, belongs_to=0), Row(5, 0, "a", 0.5, belongs_to=0, kind="trace")]
    metrics = compute(EvaluationTable(rows))
    assert metrics["gap_depth"] is None
    assert "fewer than two tasks" in metrics["undefined"]["gap_depth"]


def test_base_of_another_row_stands_in() -> None:
    rows = [
        Row(10, 1, "a", 0.9, belongs_to=0),
        Row(11, 1, "a", 0.5, belongs_to=0, kind="trace", base=0.1),
        Row(20, 1, "a", 0.9, belongs_to=0, kind="trace", base=0.1),
        Row(20, 2, "a", 0.9, belongs_to=0),
    ]
    check(only_gap(EvaluationTable(rows)), relative_depth=0.5, base=0.1)
    rows[0] = Row(10, 1, "a", 0.9, belongs_to=0, base=0.4)
    check(only_gap(EvaluationTable(rows)), relative_depth=0.8, base=0.4)
    same = [Row(r.step, r.tasks_seen, "a", r.value, belongs_to=0, kind=r.kind, base=0.9) for r in rows]
    check(only_gap(EvaluationTable(same)), relative_depth=None)


CURVES = st.lists(st.tuples(st.integers(1, 9), st.integers(-30, 30)), min_size=1, max_size=12)


@settings(deadline=None)
@given(CURVES)
def test_fields_agree_with_a_slow_reading_of_their_definitions(moves: list[tuple[int, int]]) -> None:
    """`moves`: (steps to the next evaluation, delta in hundredths) of accuracies round .5, m0 = .5."""
    steps = list(itertools.accumulate(width for width, _ in moves))
    deltas = [hundredths / 100 for _, hundredths in moves]
    gap = describe([(t, d, 0.01) for t, d in zip(steps, deltas, strict=True)], steps[-1])
    points = [(0, 0.0), *zip(steps, deltas, strict=True)]
    depth = max(d for _, d in points)
    trough = next(t for t, d in points if d == depth)
    assert (gap["depth"], gap["trough_steps"]) == (depth, trough)
    fine = np.linspace(0, steps[-1], 20_001)
    curve = np.maximum(0, np.interp(fine, *zip(*points, strict=True)))
    area = float((curve[1:] + curve[:-1]).sum() / 2 * (fine[1] - fine[0]))
    assert gap["area"] == pytest.approx(area, abs=1e-3)
    back = [t for i, (t, _) in enumerate(points) if t > trough and all(d <= 0.01 for _, d in points[i : i + 2])]
    if depth <= 0.01:
        assert gap["recovery_steps"] == 0
    else:
        assert gap["recovery_steps"] == (back[0] if back else None)
        if steps[-1] >= 5:
            at_end = bool(back) and back[0] == steps[-1]
            expected = "recovered_at_end" if at_end else "recovered" if back else "not_recovered"
            assert gap["status"] == expected
