from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clbench.metrics import compute
from clbench.metrics.trace import largest_changes, time_average
from clbench.metrics.view import Undefined
from clbench.table import EvaluationTable, Row


def brute_force(points: list[tuple[int, float]], window: int) -> tuple[float, float] | None:
    pairs = [(a, b) for i, a in enumerate(points) for b in points[i + 1 :] if b[0] - a[0] < window]
    if not pairs:
        return None
    return max(0.0, *(a[1] - b[1] for a, b in pairs)), max(0.0, *(b[1] - a[1] for a, b in pairs))


@pytest.mark.parametrize(
    ("scores", "window", "drop", "rise"),
    [
        ([0.5, 0.1, 0.9], 3, 0.4, 0.8),
        ([0.9, 0.5, 0.1, 0.6, 0.9], 2, 0.4, 0.5),
        ([0.9, 0.5, 0.1, 0.6, 0.9], 3, 0.8, 0.8),
    ],
)
def test_worked_windows(scores: list[float], window: int, drop: float, rise: float) -> None:
    assert largest_changes(list(enumerate(scores)), window) == pytest.approx((drop, rise))


def test_windows_count_steps_not_evaluations() -> None:
    points = [(0, 0.9), (9, 0.5), (10, 0.1)]
    assert largest_changes(points, 10) == pytest.approx((0.4, 0.0))
    assert largest_changes(points, 11) == pytest.approx((0.8, 0.0))
    assert largest_changes([(0, 0.9), (10, 0.1)], 10) is None


def test_rows_before_and_after_end_task_are_a_pair() -> None:
    assert largest_changes([(5, 0.9), (5, 0.6)], 10) == pytest.approx((0.3, 0.0))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.floats(-5, 5)), max_size=40),
    st.integers(1, 70),
)
def test_windows_equal_brute_force(points: list[tuple[int, float]], window: int) -> None:
    points = sorted(points, key=lambda point: point[0])
    assert largest_changes(points, window) == brute_force(points, window)


def trace(step: int, tasks_seen: int, name: str, value: float | None) -> Row:
    return Row(step, tasks_seen, name, value, belongs_to=int(name[1:]), kind="trace")


def boundary(step: int, tasks_seen: int, name: str, value: float | None) -> Row:
    return Row(step, tasks_seen, name, value, belongs_to=int(name[1:]))


THREE_TASKS = [
    *(boundary(100 * t, t, f"s{j}", 0.5) for t in (1, 2, 3) for j in (0, 1, 2)),
    trace(100, 0, "s0", 0.05),  # before end_task at the task's end: not after it
    trace(100, 1, "s0", 0.08),
    trace(150, 1, "s0", 0.60),
    trace(200, 1, "s0", 0.55),
    trace(200, 2, "s0", 0.50),
    trace(200, 2, "s1", 0.01),
    trace(250, 2, "s0", 0.70),
    trace(250, 2, "s1", 0.40),
    trace(300, 2, "s1", 0.45),
    trace(300, 3, "s1", 0.48),
    trace(300, 2, "s2", 0.90),
    trace(300, 3, "s2", 0.80),
]


def test_min_acc_and_wc_acc() -> None:
    metrics = compute(EvaluationTable(THREE_TASKS))
    assert metrics["min_acc"] == pytest.approx((0.50 + 0.40) / 2)
    assert metrics["wc_acc"] == pytest.approx(0.80 / 3 + (2 / 3) * 0.45)


def test_windows_go_over_all_tasks_and_all_their_rows() -> None:
    metrics = compute(EvaluationTable(THREE_TASKS))
    assert metrics["wp_10"] == pytest.approx((0.03 + 0.03 + 0.0) / 3)
    assert metrics["wf_10"] == pytest.approx((0.05 + 0.0 + 0.10) / 3)
    assert metrics["wp_100"] == pytest.approx(((0.60 - 0.05) + (0.40 - 0.01) + 0.0) / 3)


def test_set_without_a_pair_makes_the_window_null() -> None:
    rows = [
        boundary(50, 1, "s0", 0.5),
        boundary(100, 2, "s0", 0.5),
        boundary(100, 2, "s1", 0.5),
        trace(10, 0, "s0", 0.5),
        trace(15, 0, "s0", 0.4),
        trace(60, 1, "s1", 0.4),
        trace(90, 1, "s1", 0.4),
    ]
    metrics = compute(EvaluationTable(rows))
    assert metrics["wf_10"] is None
    assert "'s1'" in metrics["undefined"]["wf_10"]
    assert metrics["wf_100"] == pytest.approx(0.05)


def test_null_trace_rows_are_no_evaluations() -> None:
    rows = [*THREE_TASKS, trace(150, 1, "s1", None), trace(160, 1, "s2", None)]
    assert compute(EvaluationTable(rows))["wf_100"] == compute(EvaluationTable(THREE_TASKS))["wf_100"]


def test_divergence_is_a_reason() -> None:
    metrics = compute(EvaluationTable([*THREE_TASKS, trace(260, 2, "s0", float("nan"))]))
    for key in ("min_acc", "wc_acc", "wf_10"):
        assert metrics[key] is None
        assert "diverged" in metrics["undefined"][key]


def test_trace_alone_is_enough() -> None:
    rows = [row for row in THREE_TASKS if row.kind == "trace"]
    alone = compute(EvaluationTable(rows))
    both = compute(EvaluationTable(THREE_TASKS))
    assert alone["min_acc"] == both["min_acc"]
    assert alone["wf_100"] == both["wf_100"]
    assert alone["gap"] == both["gap"]
    assert alone["average"] is None
    assert "no boundary row" in alone["undefined"]["average"]


def test_no_trace_rows() -> None:
    metrics = compute(EvaluationTable([row for row in THREE_TASKS if row.kind == "boundary"]))
    for key in ("min_acc", "wc_acc", "wf_10", "wp_100", "gap_depth", "gap_recovered_share"):
        assert metrics[key] is None
        assert "no trace rows" in metrics["undefined"][key]
    assert metrics["gap"] == []


def test_windows_of_a_run_in_its_first_task() -> None:
    rows = [trace(step, 0, "s0", score) for step, score in enumerate([0.5, 0.1, 0.9])]
    metrics = compute(EvaluationTable(rows))
    assert metrics["wf_10"] == pytest.approx(0.4)
    assert metrics["wp_10"] == pytest.approx(0.8)


def test_one_set_through_several_tasks() -> None:
    rows = [boundary(50, 1, "s0", 0.5), boundary(100, 2, "s0", 0.5)]
    rows += [trace(60, 1, "s0", 0.5), trace(65, 1, "s0", 0.3)]
    metrics = compute(EvaluationTable(rows))
    assert metrics["wf_10"] == pytest.approx(0.2)
    assert metrics["min_acc"] == 0.3
    assert metrics["wc_acc"] is None
    assert metrics["undefined"]["average"] == "no evaluation set belongs to task 1"


def test_scores_too_large_to_be_added_up_have_no_average() -> None:
    for first, last in ((8e307, 8e307), (1.7e308, -1.7e308)):
        with pytest.raises(Undefined, match="too large"):
            time_average([(0, first), (1, first), (2, last), (3, last)])
