"""Adaptation, signed forgetting, areas and the gap of the new domain: what continual pre-training is judged by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from clbench.metrics import DEFINITIONS, compute, explain
from clbench.metrics.definitions import ADDED, ADDED_PARTS
from clbench.table import EvaluationTable, Row
from clbench.verify import as_known_to

Maker = Callable[..., EvaluationTable]

INITIAL = [5.0, 5.0, 5.0]
LOSSES = [[2.0, 4.0, 4.5], [2.6, 1.5, 4.4], [2.4, 1.9, 1.0]]


def test_losses_by_hand(matrix_table: Maker) -> None:
    metrics = compute(matrix_table(LOSSES, initial=INITIAL), "lower")
    assert metrics["forgetting_signed"] == pytest.approx((0.4 + 0.4) / 2)
    assert metrics["forgetting_signed"] == -metrics["backward_transfer"]
    assert metrics["forgetting_max"] == pytest.approx(0.4)
    assert metrics["adaptation"] == pytest.approx(((4.0 - 1.5) + (4.4 - 1.0)) / 2)
    assert metrics["average_backward"] == pytest.approx(-(2.6 + 2.4 + 1.9) / 3)
    assert metrics["average_forward"] == pytest.approx(-(4.0 + 4.5 + 4.4) / 3)


def test_each_domain_of_its_own(matrix_table: Maker) -> None:
    first, second, last = compute(matrix_table(LOSSES, initial=INITIAL), "lower")["by_task"]
    assert (first["task"], first["eval_sets"]) == (0, ["set0"])
    assert first["adaptation"] == pytest.approx(3.0)
    assert first["forgetting_signed"] == pytest.approx(0.4)
    assert (second["learning"], second["final"]) == (-1.5, -1.9)
    assert last["forgetting_signed"] == last["forgetting_max"] == 0.0
    assert last["auc"] is None


def test_getting_better_is_signed_and_the_best_is_not(matrix_table: Maker) -> None:
    metrics = compute(matrix_table([[2.0], [2.5, 1.5], [1.8, 1.4, 1.0]]), "lower")
    assert metrics["forgetting_signed"] == pytest.approx(-0.15)
    assert metrics["forgetting_max"] == 0.0


def test_bits_per_byte_beside_nats() -> None:
    rows = []
    for step, seen, value in ((0, 0, 5.0), (10, 1, 2.0), (20, 2, 3.2)):
        for name, owner in (("a", 0), ("b", 1)):
            row = Row(step, seen, name, value, belongs_to=owner, metric="nats")
            per_byte = 1.0 if name == "a" else 4.2
            rows += [row, dataclasses.replace(row, metric="bits_per_byte", value=value / 0.6931471805599453 / per_byte)]
    metrics = compute(EvaluationTable(rows), "lower")
    assert metrics["forgetting_signed"] == pytest.approx(1.2)
    assert metrics["bits_per_byte:forgetting_signed"] == pytest.approx(1.2 / 0.6931471805599453)
    bits = metrics["by_task"][1]["further"]["bits_per_byte"]
    assert bits["adaptation"] == pytest.approx((2.0 - 3.2) / 0.6931471805599453 / 4.2)
    assert metrics["bits_per_byte:learning"] == pytest.approx(-(2.8854 + 1.0992) / 2, abs=1e-4)


def test_without_what_they_need(matrix_table: Maker) -> None:
    hidden = compute(matrix_table([[0.8, None], [0.7, 0.9]], initial=[None, None]))
    for key in ("adaptation", "average_forward"):
        assert hidden[key] is None and "could not be scored" in hidden["undefined"][key]
    alone = compute(matrix_table([[0.8]]))
    for key in ("adaptation", "forgetting_signed", "forgetting_max", "average_backward", "average_forward"):
        assert alone[key] is None and "needs 2 finished tasks" in alone["undefined"][key]
    assert alone["auc"] is None and "no trace rows" in alone["undefined"]["auc"]


def traced() -> list[Row]:
    """Two tasks of 10 steps; the new set gets worse before it gets better."""
    rows = [
        Row(step, seen, name, value, belongs_to=owner)
        for step, seen, values in ((0, 0, (5.0, 5.0)), (10, 1, (2.0, 4.0)), (20, 2, (2.5, 1.0)))
        for owner, (name, value) in enumerate(zip(("a", "b"), values, strict=True))
    ]
    rows += [Row(step, 0, "a", v, belongs_to=0, kind="trace") for step, v in ((0, 5.0), (2, 3.0), (10, 2.0))]
    rows += [Row(10, 1, "a", 2.0, belongs_to=0, kind="trace")]
    rows += [Row(step, 1, "a", v, belongs_to=0, kind="trace") for step, v in ((12, 3.0), (20, 2.5))]
    rows += [
        Row(step, 1, "b", v, belongs_to=1, kind="trace") for step, v in ((11, 4.6), (12, 4.2), (15, 2.0), (20, 1.0))
    ]
    return rows


def test_areas_are_averages_over_time() -> None:
    metrics = compute(EvaluationTable(traced()), "lower")
    own_a = (2 * 4.0 + 8 * 2.5) / 10
    own_b = (1 * 4.3 + 1 * 4.4 + 3 * 3.1 + 5 * 1.5) / 10
    whole_a = (10 * own_a + 2 * 2.5 + 8 * 2.75) / 20
    assert metrics["auc_own"] == pytest.approx(-(own_a + own_b) / 2)
    assert metrics["auc"] == pytest.approx(-(whole_a + own_b) / 2)
    assert [task["auc"] for task in metrics["by_task"]] == pytest.approx([-whole_a, -own_b])


def test_area_lies_between_the_worst_and_the_best() -> None:
    rows = traced()
    metrics = compute(EvaluationTable(rows), "lower")
    for task in metrics["by_task"]:
        seen = [-row.value for row in rows if row.eval_set in task["eval_sets"] and row.value is not None]
        assert min(seen) <= task["auc_own"] <= max(seen)


def test_new_domain_rises_before_it_falls() -> None:
    metrics = compute(EvaluationTable(traced()), "lower")
    (gap,) = metrics["gap_new"]
    assert (gap["switch"], gap["eval_set"], gap["m0"]) == (1, "b", 4.0)
    assert gap["depth"] == metrics["gap_new_depth"] == pytest.approx(0.6)
    assert (gap["trough_steps"], gap["final"], gap["recovery_steps"]) == (1, -3.0, 5)
    assert metrics["gap_new_pairs"] == 1
    assert metrics["gap_depth"] == pytest.approx(1.0)  # of the old set alone
    assert {entry["eval_set"] for entry in metrics["gap"]} == {"a"}


def test_new_sets_that_could_not_be_scored_have_no_gap() -> None:
    rows = [dataclasses.replace(r, value=None) if (r.eval_set, r.step) == ("b", 10) else r for r in traced()]
    metrics = compute(EvaluationTable(rows), "lower")
    assert metrics["gap_new_depth"] is None and metrics["gap_new_left_out"] == 1
    assert "is null" in metrics["undefined"]["gap_new_depth"]
    assert metrics["auc_own"] is not None  # from its first score on


def test_a_record_of_the_earlier_edition_is_not_faulted(tmp_path: Path) -> None:
    now = compute(EvaluationTable(traced()), "lower")
    before = {key: value for key, value in now.items() if key not in ADDED and key not in ADDED_PARTS}
    for part in ("versions", "undefined"):
        before[part] = {key: value for key, value in now[part].items() if key not in ADDED}
    assert as_known_to(before, now) == before
    assert as_known_to(now, now) == now
    partly = before | {"versions": before["versions"] | {"auc": 1}}
    assert as_known_to(partly, now) == now  # some but not all of the later keys: a fault


def test_records_from_before_gaps_had_units_are_complete(gap_table: Maker) -> None:
    rows = [dataclasses.replace(row, metric="nats") for row in gap_table(2.0, 0, [10, 20], [2.5, 2.1]).rows]
    table = EvaluationTable()
    for row in rows:
        table.append(row)
    now = compute(table, "lower")
    units = ("depth_bits", "ppl_ratio")
    parts = ("gap", "gap_new")
    before = now | {p: [{k: v for k, v in gap.items() if k not in units} for gap in now[p]] for p in parts}
    assert before["gap"] != now["gap"] and before["gap"]
    assert as_known_to(before, now) == before
    assert as_known_to(now, now) == now
    partly = now | {"gap": [{k: v for k, v in gap.items() if k != "ppl_ratio"} for gap in now["gap"]]}
    assert as_known_to(partly, now) == now


@pytest.mark.parametrize("key", sorted(ADDED))
def test_every_new_key_is_explained(key: str) -> None:
    assert DEFINITIONS[key].meaning.split(" (")[0] in explain(key)
