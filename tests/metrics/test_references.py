"""Metrics that need other runs, by hand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from clbench.metrics import explain
from clbench.metrics.references import REFERENCE_DEFINITIONS, compute_with_references
from clbench.table import EvaluationTable, Row

Maker = Callable[..., EvaluationTable]

RUN = [[2.0, 4.0, 4.5], [2.6, 1.5, 4.4], [2.4, 1.9, 1.0]]
JOINT = [[9.0, 9.0, 9.0], [9.0, 9.0, 9.0], [2.1, 1.6, 1.2]]
SCRATCH = [[2.0, 5.0, 5.0], [3.0, 1.8, 5.0], [3.0, 3.0, 0.9]]
FROZEN = [[2.0, 4.2, 4.6]] * 3


def test_losses_by_hand(matrix_table: Maker) -> None:
    references = {"joint": matrix_table(JOINT), "scratch": matrix_table(SCRATCH), "frozen": matrix_table(FROZEN)}
    found = compute_with_references(matrix_table(RUN), "lower", references)
    assert found["union_gap"] == pytest.approx(((2.4 - 2.1) + (1.9 - 1.6) + (1.0 - 1.2)) / 3)
    assert found["learning_gap"] == pytest.approx(((1.5 - 1.8) + (1.0 - 0.9)) / 2)
    assert found["forward_transfer_frozen"] == pytest.approx(((4.2 - 4.0) + (4.6 - 4.4)) / 2)
    assert found["regret_in_distribution"] == pytest.approx(((2.0 - 2.1) + (1.5 - 1.6) + (1.0 - 1.2)) / 3)
    assert found["regret_backward"] == pytest.approx(((2.6 - 2.1) + (2.4 - 2.1) + (1.9 - 1.6)) / 3)
    assert found["regret_forward"] == pytest.approx(((4.0 - 1.6) + (4.5 - 1.2) + (4.4 - 1.2)) / 3)
    assert [task["learning_gap"] for task in found["by_task"]] == pytest.approx([0.0, -0.3, 0.1])
    assert [task["union_gap"] for task in found["by_task"]] == pytest.approx([0.3, 0.3, -0.2])
    json.dumps(found, allow_nan=False)


def test_what_is_missing_is_named(matrix_table: Maker) -> None:
    found = compute_with_references(matrix_table(RUN), "lower", {})
    assert all(found[key] is None for key in REFERENCE_DEFINITIONS)
    for role, key in (("joint", "union_gap"), ("scratch", "learning_gap"), ("control", "depth_shift")):
        assert found["undefined"][key] == f"no {role} reference run is given"
    other = EvaluationTable(dataclasses.replace(row, eval_set=f"other{row.eval_set}") for row in matrix_table(JOINT))
    found = compute_with_references(matrix_table(RUN), "lower", {"joint": other})
    assert found["undefined"]["union_gap"].startswith("in the reference: no boundary row of set 'set0'")


def traced(old: Sequence[float], new: Sequence[float] = (4.0, 4.6, 2.0, 1.0), end: int = 20) -> EvaluationTable:
    """Task 0 ends at step 10 with loss 2; `old` and `new` are the losses at steps 10, 11, 15 and `end` of task 1."""
    rows = [Row(0, 0, name, 5.0, belongs_to=owner) for owner, name in enumerate("ab")]
    rows += [Row(10, 1, "a", 2.0, belongs_to=0), Row(10, 1, "b", new[0], belongs_to=1)]
    rows += [Row(10, 1, "a", 2.0, belongs_to=0, kind="trace")]
    for i, step in enumerate((11, 15, end), start=1):
        rows += [Row(step, 1, "a", old[i - 1], belongs_to=0, kind="trace")]
        rows += [Row(step, 1, "b", new[i], belongs_to=1, kind="trace")]
    rows += [Row(end, 2, "a", old[2], belongs_to=0), Row(end, 2, "b", new[3], belongs_to=1)]
    return EvaluationTable(rows)


def test_the_part_of_the_gap_that_the_shift_causes() -> None:
    run, control = traced([2.6, 2.3, 2.2]), traced([2.1, 2.05, 2.0])
    found = compute_with_references(run, "lower", {"control": control})
    assert found["depth_shift"] == pytest.approx(0.6 - 0.1)
    assert found["transient_shift"] == pytest.approx((0.6 - 0.2) - 0.1)
    itself = compute_with_references(run, "lower", {"control": run})
    assert itself["depth_shift"] == itself["mean_gap_shift"] == itself["transient_shift"] == 0.0


def test_runs_are_compared_at_one_horizon() -> None:
    """A control that was watched for 5 steps only: what the run did later does not count."""
    run = traced([2.1, 2.2, 2.9])
    control = EvaluationTable(
        dataclasses.replace(row, step=15) if row.step == 20 else row
        for row in traced([2.1, 2.1, 2.1])
        if (row.step, row.kind) != (15, "trace")
    )
    found = compute_with_references(run, "lower", {"control": control})
    assert found["horizons"] == {"1": 5}
    assert found["gap"][0]["horizon"] == 5
    assert found["depth_shift"] == pytest.approx(0.2 - 0.1)
    assert compute_with_references(run, "lower", {})["gap"][0]["depth"] == pytest.approx(0.9)
    assert compute_with_references(run, "lower", {}, horizons={1: 5})["gap"][0]["depth"] == pytest.approx(0.2)


def test_steps_in_tokens() -> None:
    run = traced([2.6, 2.0, 2.0])
    found = compute_with_references(run, "lower", {"scratch": traced([2, 2, 2])}, tokens_per_step=64)
    (gap,) = found["gap"]
    assert (gap["recovery_steps"], gap["recovery_tokens"]) == (5, 320)
    assert gap["recovery_interval_tokens"] == [64, 320]
    assert gap["area_tokens"] == pytest.approx(64 * gap["area"])
    assert found["tokens_to_recover"] == 320
    assert found["tokens_to_target"] == 10 * 64  # scratch ends at 1.0, too
    assert compute_with_references(run, "lower", {})["undefined"]["tokens_to_recover"].startswith("it is not known")


def test_a_gap_that_never_closes_counts_for_as_long_as_it_was_watched() -> None:
    found = compute_with_references(traced([2.6, 2.5, 2.4]), "lower", {}, tokens_per_step=64)
    assert found["tokens_to_recover"] == 10 * 64
    assert found["gap"][0]["recovery_tokens"] is None and found["gap"][0]["censored_at_tokens"] == 640


@pytest.mark.parametrize(
    ("target", "tokens"), [(2.0, 5 * 64), (1.0, 10 * 64), (4.0, 0), (4.5, 0), (0.5, None)], ids=str
)
def test_tokens_to_a_fixed_target(target: float, tokens: float | None) -> None:
    found = compute_with_references(traced([2, 2, 2]), "lower", {}, tokens_per_step=64, target=target)
    assert found["tokens_to_target"] == tokens
    if tokens is None:
        assert "does not reach 0.5 within the 640 tokens" in found["by_task"][1]["undefined"]["tokens_to_target"]


def test_what_replay_saves_and_costs(matrix_table: Maker) -> None:
    without, with_replay = [[2.0, 4.0], [2.8, 1.0]], [[2.0, 4.0], [2.2, 1.1]]
    references = {"baseline": matrix_table(without)}
    table = matrix_table(with_replay)
    found = compute_with_references(table, "lower", references, replayed_tokens=3e6)
    assert found["forgetting_saved"] == pytest.approx(0.6)
    assert found["new_domain_cost"] == pytest.approx(0.1)
    assert found["replay_efficiency"] == pytest.approx(0.2)
    unknown = compute_with_references(table, "lower", references)
    assert "how many tokens were replayed" in unknown["undefined"]["replay_efficiency"]


def test_divergence_is_a_reason_and_not_a_number() -> None:
    run: list[Any] = [
        dataclasses.replace(r, value=float("nan")) if r.step == 15 else r for r in traced([2.6, 2.3, 2.2])
    ]
    found = compute_with_references(
        EvaluationTable(run), "lower", {"control": traced([2.1, 2.0, 2.0])}, tokens_per_step=2
    )
    assert found["depth_shift"] is None and "diverged" in found["undefined"]["depth_shift"]
    assert found["tokens_to_recover"] == 20
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("key", sorted(REFERENCE_DEFINITIONS))
def test_every_key_is_explained(key: str) -> None:
    assert REFERENCE_DEFINITIONS[key].formula in explain(key)
