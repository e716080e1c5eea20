from __future__ import annotations

from collections.abc import Callable

import pytest

from clbench.errors import UserError
from clbench.metrics import compute
from clbench.table import EvaluationTable, Row

FALLING = [[0.80], [0.70, 0.90], [0.85, 0.60, 0.90], [0.84, 0.75, 0.70, 0.95]]
RISING = [[0.5], [0.6, 0.7], [0.8, 0.9, 0.7]]
FULL = [[0.80, 0.30, 0.25], [0.70, 0.90, 0.45], [0.75, 0.60, 0.90]]
INITIAL = [0.10, 0.20, 0.40]

Maker = Callable[..., EvaluationTable]


def test_worked_matrix(matrix_table: Maker) -> None:
    metrics = compute(matrix_table(FALLING))
    assert metrics["average"] == pytest.approx(0.81)
    assert metrics["average_incremental"] == pytest.approx(0.7983, abs=5e-5)
    assert metrics["forgetting"] == pytest.approx(0.12)
    assert metrics["backward_transfer"] == pytest.approx(-0.1033, abs=5e-5)
    assert metrics["learning"] == pytest.approx(0.8875)


def test_worked_matrix_with_backward_gain(matrix_table: Maker) -> None:
    metrics = compute(matrix_table(RISING))
    assert metrics["forgetting"] == pytest.approx(-0.2)
    assert metrics["backward_transfer"] == pytest.approx(0.25)


def test_language_matrix(matrix_table: Maker) -> None:
    metrics = compute(matrix_table([[0.8], [0.6, 0.7], [0.5, 0.65, 0.9]]))
    assert metrics["average"] == pytest.approx(0.6833, abs=5e-5)
    assert metrics["backward_transfer"] == pytest.approx(-0.175)


def test_unseen_sets(matrix_table: Maker) -> None:
    metrics = compute(matrix_table(FULL, initial=INITIAL))
    assert metrics["forward_transfer"] == pytest.approx(((0.30 - 0.20) + (0.45 - 0.40)) / 2)
    assert metrics["transfer"] == pytest.approx((0.30 + (0.25 + 0.45) / 2) / 2)
    assert metrics["average_over_time"] == pytest.approx(sum(map(sum, FULL)) / 9)
    # A zero-shot score before task 1 was trained is not a score to be forgotten.
    better_before = [[0.80, 0.95, 0.25], *FULL[1:]]
    assert compute(matrix_table(better_before))["forgetting"] == compute(matrix_table(FULL))["forgetting"]


def test_transfer_without_what_it_needs(matrix_table: Maker) -> None:
    metrics = compute(matrix_table(FULL))
    assert metrics["forward_transfer"] is None
    assert "before training" in metrics["undefined"]["forward_transfer"]
    hidden = [[0.8, None, None], [0.7, 0.9, None], [0.75, 0.6, 0.9]]
    metrics = compute(matrix_table(hidden, initial=[None, None, None]))
    for key in ("forward_transfer", "transfer", "average_over_time"):
        assert metrics[key] is None
        assert "could not be scored" in metrics["undefined"][key]
    assert metrics["average"] == pytest.approx(0.75)


def test_one_task(matrix_table: Maker) -> None:
    metrics = compute(matrix_table([[0.7]], initial=[0.1]))
    assert metrics["average"] == metrics["learning"] == metrics["average_over_time"] == 0.7
    for key in ("forgetting", "backward_transfer", "forward_transfer", "transfer", "min_acc", "wc_acc"):
        assert metrics[key] is None
        assert "needs 2 finished tasks" in metrics["undefined"][key]


def test_losses_are_negated_and_the_matrix_is_raw(matrix_table: Maker) -> None:
    losses = [[2.0, 3.0], [2.5, 1.0]]
    metrics = compute(matrix_table(losses, initial=[4.0, 4.0]), "lower")
    assert metrics["average"] == pytest.approx(-1.75)
    assert metrics["forgetting"] == pytest.approx(0.5)
    assert metrics["backward_transfer"] == pytest.approx(-0.5)
    assert metrics["forward_transfer"] == pytest.approx(1.0)
    assert metrics["matrix"]["rows"] == losses
    assert metrics["matrix"]["initial"] == [4.0, 4.0]


def test_micro_average(matrix_table: Maker) -> None:
    metrics = compute(matrix_table([[0.8], [0.5, 1.0]], sizes=[300, 100]))
    assert metrics["average"] == pytest.approx(0.75)
    assert metrics["average_micro"] == pytest.approx((300 * 0.5 + 100) / 400)
    assert compute(matrix_table([[0.8], [0.5, 1.0]]))["average_micro"] is None


def test_several_sets_of_a_task_count_as_their_mean() -> None:
    rows = [
        Row(10, 1, "a1", 0.8, n=10, belongs_to=0),
        Row(10, 1, "a2", 0.6, n=30, belongs_to=0),
        Row(20, 2, "a1", 0.4, n=10, belongs_to=0),
        Row(20, 2, "a2", 0.5, n=30, belongs_to=0),
        Row(20, 2, "b", 1.0, n=60, belongs_to=1),
    ]
    metrics = compute(EvaluationTable(rows))
    assert metrics["average"] == pytest.approx((0.45 + 1.0) / 2)
    assert metrics["forgetting"] == pytest.approx(0.25)
    assert metrics["average_micro"] == pytest.approx((4 + 15 + 60) / 100)


def test_held_out_sets() -> None:
    rows = [
        Row(0, 0, "web", 3.0),
        Row(0, 0, "code", 2.0),
        Row(10, 1, "web", 3.5),
        Row(10, 1, "code", 1.8),
        Row(10, 1, "law", 2.2, belongs_to=0),
    ]
    metrics = compute(EvaluationTable(rows), "lower")
    assert metrics["retention"] == pytest.approx(-(3.5 + 1.8) / 2)
    assert metrics["retention_change"] == pytest.approx((-0.5 + 0.2) / 2)
    assert metrics["average"] == pytest.approx(-2.2)
    assert metrics["matrix"]["eval_sets"] == ["law", "web", "code"]
    assert metrics["matrix"]["belongs_to"] == [0, None, None]


def test_joint_reference(matrix_table: Maker) -> None:
    joint = EvaluationTable([Row(5, 1, f"set{j}", v, belongs_to=0) for j, v in enumerate([0.9, 0.9, 0.9])])
    metrics = compute(matrix_table(RISING), references={"joint": joint})
    assert metrics["intransigence"] == pytest.approx(0.9 - (0.5 + 0.7 + 0.7) / 3)
    assert metrics["accumulation"] == pytest.approx((0.8 + 0.9 + 0.7) / 3 - 0.9)
    lacking = EvaluationTable([Row(5, 1, "set0", 0.9, belongs_to=0)])
    metrics = compute(matrix_table(RISING), references={"joint": lacking})
    assert metrics["intransigence"] is None
    assert "joint reference" in metrics["undefined"]["intransigence"]


def test_unfinished_run_counts_finished_tasks(matrix_table: Maker) -> None:
    cells = [[0.8, None, None, None], [0.6, 0.7, None, None]]
    metrics = compute(matrix_table(cells))
    assert metrics["table"]["tasks"] == 2
    assert metrics["average"] == pytest.approx(0.65)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_diverged_value_is_a_reason_not_a_number(matrix_table: Maker, bad: float) -> None:
    metrics = compute(matrix_table([[0.8], [bad, 0.9]]))
    assert metrics["average"] is None
    assert "diverged" in metrics["undefined"]["average"]
    assert metrics["learning"] == pytest.approx(0.85)
    assert metrics["matrix"]["rows"] == [[0.8, None], [None, 0.9]]
    assert metrics["matrix"]["diverged"] == [{"tasks_seen": 2, "eval_set": "set0"}]


def test_task_without_a_set() -> None:
    rows = [Row(10, 1, "all", 0.3), Row(20, 2, "all", 0.5)]
    metrics = compute(EvaluationTable(rows))
    assert metrics["retention"] == 0.5
    assert metrics["average"] is None
    assert metrics["undefined"]["average"] == "no evaluation set belongs to task 0"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no rows"),
        ([Row(10, 1, "a", 0.5, belongs_to=0), Row(30, 3, "a", 0.5, belongs_to=0)], "tasks_seen 2"),
        (
            [
                Row(10, 1, "a", 0.5, belongs_to=0),
                Row(20, 2, "a", 0.5, belongs_to=0),
                Row(20, 2, "c", 0.5, belongs_to=2),
                Row(30, 3, "c", 0.5, belongs_to=2),
            ],
            "no boundary row of set 'a' after task 2",
        ),
        ([Row(10, 1, "a", 0.5, belongs_to=0), Row(12, 1, "a", 0.5, belongs_to=0)], "a task ends once"),
        ([Row(10, 1, "a", 0.5, belongs_to=0), Row(5, 2, "a", 0.5, belongs_to=0)], "count steps over the whole"),
        (
            [Row(10, 1, "a", 0.5, belongs_to=0), Row(5, 1, "a", 0.5, belongs_to=0, kind="trace")],
            "completed tasks only",
        ),
        (
            [Row(10, 1, "a", 0.5, belongs_to=0), Row(15, 0, "a", 0.5, belongs_to=0, kind="trace")],
            "completed tasks only",
        ),
        (
            [Row(10, 1, "a", 0.5, belongs_to=0), Row(30, 2, "a", 0.5, belongs_to=0, kind="trace")],
            "no boundary rows with tasks_seen 2",
        ),
    ],
)
def test_contradictory_tables(rows: list[Row], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        compute(EvaluationTable(rows))
    assert "\n" not in str(caught.value)


def test_unknown_direction(matrix_table: Maker) -> None:
    with pytest.raises(UserError, match="higher or lower"):
        compute(matrix_table(RISING), "up")
