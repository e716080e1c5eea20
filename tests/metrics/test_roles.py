"""Accumulation, retention and MTIL's columns against plain loops, and what must hold for any table."""

from __future__ import annotations

import csv
import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clbench.errors import UserError
from clbench.metrics import DEFINITIONS, compute, explain
from clbench.metrics.definitions import ADDED_BY_ROLE, ADDED_BY_ROLE_PARTS
from clbench.metrics.references import compute_with_references
from clbench.table import EvaluationTable, Row
from clbench.verify import as_known_to

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
ACCUMULATION = {"food": [0.2, 0.4, 0.5], "birds": [0.1, 0.1, 0.3], "pairs": [0.3, 0.2, 0.6]}  # t = 0, 1, 2
RETENTION = {"stl": [0.8, 0.7, 0.75], "coco": [0.6, 0.65, 0.5]}
KEYS = ("knowledge_accumulation", "zero_shot_retention", "geometric_mean")

Scores = dict[str, list[float]]


def table_of(adapted: Scores, held_out: Scores, own: list[list[float]] | None = None, **changes: Any) -> list[Row]:
    """Boundary rows at steps 0, 10, 20, ...; own[t][j]: the set of task j after t tasks."""
    rows = []
    steps = len(next(iter({**adapted, **held_out}.values())))
    for t in range(steps):
        for role, sets in (("adaptation", adapted), ("held-out", held_out)):
            for name, values in sets.items():
                rows.append(Row(10 * t, t, name, values[t], n=7 * len(name), belongs_to=None, role=role))  # type: ignore
        for j, value in enumerate(own[t] if own else ()):
            rows.append(Row(10 * t, t, f"task{j}", value, belongs_to=j))
    return [dataclasses.replace(row, **changes) for row in rows]


def of(rows: list[Row], direction: str = "higher") -> dict[str, Any]:
    return compute(EvaluationTable(rows), direction)


def plainly(adapted: Scores, held_out: Scores) -> tuple[list[float], list[float], list[float]]:
    """KA(t), ZS(t), GM(t) as the paper has them."""
    steps = len(next(iter(adapted.values())))
    accumulated, retained, balance = [], [], []
    for t in range(steps):
        a = z = 0.0
        for values in adapted.values():
            a += values[t]
        for values in held_out.values():
            z += values[t]
        accumulated.append(a / len(adapted))
        retained.append(z / len(held_out))
        balance.append((accumulated[-1] * retained[-1]) ** 0.5)
    return accumulated, retained, balance


def test_the_papers_formulas() -> None:
    metrics = of(table_of(ACCUMULATION, RETENTION))
    for key, expected in zip(KEYS, plainly(ACCUMULATION, RETENTION), strict=True):
        assert metrics[key] == pytest.approx(expected[2])
        assert metrics[f"{key}_over_stream"] == pytest.approx((expected[1] + expected[2]) / 2)  # without t = 0
        assert metrics[f"{key}_change"] == pytest.approx(expected[2] - expected[0])
        assert [entry[key] for entry in metrics["over_stream"]] == pytest.approx(expected)
    assert [(e["tasks_seen"], e["step"]) for e in metrics["over_stream"]] == [(0, 0), (1, 10), (2, 20)]
    assert metrics["zero_shot_retention_ratio"] == pytest.approx(0.625 / 0.7)
    assert metrics["heldout_forgetting"] == pytest.approx(((0.8 - 0.75) + (0.65 - 0.5)) / 2)
    assert metrics["retention"] == metrics["zero_shot_retention"]
    assert metrics["retention_change"] == pytest.approx(metrics["zero_shot_retention_change"])  # BWT of held-out sets


def test_published_zero_shot_numbers_give_the_published_means() -> None:
    """ViT-B/32 (LAION-2B) before training, from FoMo-in-Flux's tables of sets."""
    adapted = [72.7, 15.0, 46.7, 75.8, 4.7, 59.7, 14.6, 64.1, 2.1, 5.5, 78.7, 50.9, 71.9, 68.9, 11.8, 54.5, 23.9, 68.0]
    adapted += [50.3, 14.2, 20.2, 80.2, 16.8, 32.1, 58.9, 54.0, 49.4, 63.6, 41.8, 28.3, 0.2, 62.5, 16.8, 0.3, 68.2]
    adapted += [41.0, 32.5, 17.5, 8.1, 5.4, 25.6]
    held_out = [90.7, 88.5, 85.9, 93.7, 19.1, 49.2, 77.0, 82.5, 48.6, 65.5, 23.1, 40.7, 73.9, 52.3, 57.6, 69.2, 82.7]
    held_out += [90.7, 96.4, 42.8, 72.0, 92.3]
    assert (len(adapted), len(held_out)) == (41, 22)
    metrics = of(
        table_of({f"a{i}": [v, v] for i, v in enumerate(adapted)}, {f"h{i}": [v, v] for i, v in enumerate(held_out)})
    )
    assert [metrics["over_stream"][0][key] for key in KEYS] == pytest.approx([38.47, 67.93, 51.12], abs=0.006)


def test_a_run_that_changes_nothing() -> None:
    metrics = of(table_of({"a": [0.4] * 3}, {"h": [0.9] * 3}))
    assert [metrics[f"{key}_change"] for key in KEYS] == [0.0, 0.0, 0.0]
    assert metrics["zero_shot_retention_ratio"] == 1.0 and metrics["heldout_forgetting"] == 0.0


def test_roles_decide_and_not_who_owns_a_set() -> None:
    """Sets of tasks are in neither mean, and sets adapted to are not held out."""
    rows = table_of(ACCUMULATION, RETENTION, own=[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    metrics, without = of(rows), of(table_of(ACCUMULATION, RETENTION))
    assert [metrics[key] for key in KEYS] == [without[key] for key in KEYS]
    assert metrics["average"] == 1.0
    assert metrics["matrix"]["roles"] == ["", "", "adaptation", "adaptation", "adaptation", "held-out", "held-out"]
    rows = [dataclasses.replace(row, role="") for row in rows]
    plain = of(rows)
    assert all(plain[key] is None and "has the role" in plain["undefined"][key] for key in KEYS)
    assert plain["over_stream"] == [] and "roles" not in plain["matrix"]
    assert plain["retention"] == pytest.approx((0.5 + 0.3 + 0.6 + 0.75 + 0.5) / 5)  # without roles: all sets of no task


def test_what_is_undefined_has_its_reason() -> None:
    losses = of(table_of({"a": [2.0, 1.0]}, {"h": [1.0, 1.5]}), "lower")
    assert losses["knowledge_accumulation"] == -1.0 and losses["zero_shot_retention_change"] == -0.5
    assert losses["geometric_mean"] is None and "losses" in DEFINITIONS["geometric_mean"].null_when
    assert "of a loss" in losses["undefined"]["geometric_mean"]
    assert losses["over_stream"][1]["geometric_mean"] is None
    nothing = of(table_of({"a": [0.2, 0.3]}, {"h": [0.0, 0.0]}))
    assert "no ratio" in nothing["undefined"]["zero_shot_retention_ratio"]
    later = of([row for row in table_of({"a": [0.2, 0.3]}, {"h": [0.5, 0.4]}) if row.tasks_seen])
    assert later["geometric_mean"] == pytest.approx(0.12**0.5)
    for key in ("knowledge_accumulation_change", "zero_shot_retention_ratio", "heldout_forgetting"):
        assert later[key] is None and "before training" in later["undefined"][key]
    unscored = of(table_of({"a": [0.2, 0.3]}, {"h": [0.5, None]}))  # type: ignore[list-item]
    assert "could not be scored" in unscored["undefined"]["zero_shot_retention"]
    assert unscored["over_stream"][1]["knowledge_accumulation"] == 0.3
    diverged = of(table_of({"a": [0.2, float("nan")]}, {"h": [0.5, 0.4]}))
    assert "diverged" in diverged["undefined"]["geometric_mean_over_stream"]


SHARES = st.integers(0, 1000).map(lambda n: n / 1000)


@st.composite
def scores(draw: st.DrawFn) -> tuple[Scores, Scores]:
    steps = draw(st.integers(2, 5))
    lists = st.lists(SHARES, min_size=steps, max_size=steps)
    adapted = draw(st.lists(lists, min_size=1, max_size=5))
    held_out = draw(st.lists(lists, min_size=1, max_size=5))
    return {f"a{i}": v for i, v in enumerate(adapted)}, {f"h{i}": v for i, v in enumerate(held_out)}


@QUICK
@given(scores())
def test_the_geometric_mean_lies_between(drawn: tuple[Scores, Scores]) -> None:
    metrics = of(table_of(*drawn))
    for entry, ka, zs, gm in zip(metrics["over_stream"], *plainly(*drawn), strict=True):
        assert (entry[KEYS[0]], entry[KEYS[1]], entry[KEYS[2]]) == pytest.approx((ka, zs, gm))
        assert min(ka, zs) - 1e-12 <= entry["geometric_mean"] <= max(ka, zs) + 1e-12
    assert metrics["heldout_forgetting"] >= -metrics["zero_shot_retention_change"] - 1e-12


@QUICK
@given(scores(), st.randoms(use_true_random=False))
def test_order_names_and_sizes_of_sets_do_not_matter(drawn: tuple[Scores, Scores], rng: random.Random) -> None:
    first = of(table_of(*drawn))
    shuffled = []
    for sets in drawn:
        values = list(sets.values())
        rng.shuffle(values)
        shuffled.append({f"{'x' * (i + 3)}{id(sets) % 7}": v for i, v in enumerate(values)})
    held_out = {f"other {name}": values for name, values in shuffled[1].items()}
    rows = table_of(shuffled[0], held_out)
    rng.shuffle(rows)
    second = of(rows)
    for key in (*KEYS, "geometric_mean_over_stream", "zero_shot_retention_ratio", "heldout_forgetting"):
        assert first[key] == second[key] or first[key] == pytest.approx(second[key], abs=1e-12), key


# -- the gap of held-out sets ------------------------------------------------------------------------------------------


def traced() -> list[Row]:
    """Two tasks of 10 steps; the held-out set falls in both and comes back a little, the adapted one rises."""
    rows = table_of({"a": [0.1, 0.4, 0.8]}, {"h": [0.9, 0.7, 0.8]}, own=[[0.1, 0.1], [0.5, 0.1], [0.4, 0.6]])
    for name, role, lines in (
        ("a", "adaptation", [(0, 0, 0.1), (5, 0, 0.3), (10, 0, 0.4), (10, 1, 0.4), (15, 1, 0.2), (20, 1, 0.8)]),
        ("h", "held-out", [(0, 0, 0.9), (5, 0, 0.5), (10, 0, 0.7), (10, 1, 0.7), (15, 1, 0.4), (20, 1, 0.8)]),
    ):
        rows += [Row(s, seen, name, v, belongs_to=None, kind="trace", role=role) for s, seen, v in lines]  # type: ignore
    return rows


def test_gaps_of_held_out_sets_after_each_switch_and_over_the_run() -> None:
    metrics = of(traced())
    assert {(gap["switch"], gap["eval_set"], gap["held_out"]) for gap in metrics["gap"]} == {
        (0, "h", True),
        (1, "h", True),
        (1, "task0", False),
    }
    assert metrics["gap_heldout_depth"] == pytest.approx((0.4 + 0.3) / 2) and metrics["gap_heldout_pairs"] == 2
    (whole,) = metrics["gap_stream"]
    assert (whole["switch"], whole["step"], whole["horizon"], whole["m0"]) == (0, 0, 20, 0.9)
    assert whole["depth"] == metrics["gap_stream_depth"] == pytest.approx(0.5)
    assert (whole["trough_steps"], whole["evaluations"], whole["status"]) == (15, 4, "not_recovered")
    assert whole["final"] == pytest.approx(0.1) and whole["transient"] == pytest.approx(0.4)
    assert whole["area"] == pytest.approx(5 * 0.2 + 5 * 0.3 + 5 * 0.35 + 5 * 0.3)


def test_roles_change_nothing_in_what_they_do_not_concern() -> None:
    """Held-out sets alone, with the role and without: every older number is the same."""
    rows = [row for row in traced() if row.role != "adaptation"]
    with_roles, without = of(rows), of([dataclasses.replace(row, role="") for row in rows])
    for key in (set(DEFINITIONS) - ADDED_BY_ROLE) | {"gap", "by_task", "grid", "noise_floor", "gap_stream_depth"}:
        assert with_roles[key] == without[key], key


def test_a_strategy_that_cannot_predict_between_task_ends_has_no_gap() -> None:
    metrics = compute(EvaluationTable(traced()), predicts_between_boundaries=False)
    assert metrics["gap_stream"] == [] and "cannot predict" in metrics["undefined"]["gap_stream_depth"]


# -- MTIL --------------------------------------------------------------------------------------------------------------


def matrices() -> st.SearchStrategy[list[list[float]]]:
    return st.integers(2, 5).flatmap(
        lambda T: st.lists(st.lists(SHARES, min_size=T, max_size=T), min_size=T + 1, max_size=T + 1)
    )


def own_sets(a: list[list[float]]) -> list[Row]:
    """a[0] is the zero-shot row."""
    return [Row(10 * i, i, f"set{j}", v, belongs_to=j) for i, row in enumerate(a) for j, v in enumerate(row)]


@QUICK
@given(matrices())
def test_mtil_by_column(a: list[list[float]]) -> None:
    K = len(a) - 1
    metrics = of(own_sets(a))
    transfer, average, last = [], [], []
    for j in range(1, K + 1):  # tasks from 1, as published; a[i][j-1] after training task i
        if j > 1:
            transfer.append(sum(a[i][j - 1] for i in range(1, j)) / (j - 1))
        average.append(sum(a[i][j - 1] for i in range(1, K + 1)) / K)
        last.append(a[K][j - 1])
    columns = metrics["by_column"]
    assert [column["transfer"] for column in columns[1:]] == pytest.approx(transfer)
    assert columns[0]["transfer"] is None and "first" in columns[0]["undefined"]["transfer"]
    assert [column["average_over_time"] for column in columns] == pytest.approx(average)
    assert [column["average"] for column in columns] == pytest.approx(last)
    assert metrics["transfer"] == pytest.approx(sum(transfer) / len(transfer))
    assert metrics["average_over_time"] == pytest.approx(sum(average) / K)
    assert metrics["average"] == pytest.approx(sum(last) / K)


@QUICK
@given(matrices(), st.randoms(use_true_random=False))
def test_transfer_ignores_the_diagonal_what_is_below_and_the_zero_shot_row(
    a: list[list[float]], rng: random.Random
) -> None:
    other = [[v if 1 <= i <= j else rng.random() for j, v in enumerate(row)] for i, row in enumerate(a)]
    first, second = of(own_sets(a)), of(own_sets(other))
    assert first["transfer"] == second["transfer"]
    assert [c["transfer"] for c in first["by_column"]] == [c["transfer"] for c in second["by_column"]]


def test_columns_of_a_head_that_grows_say_why_they_are_undefined() -> None:
    rows = own_sets([[0.1, 0.1], [0.8, 0.0], [0.7, 0.9]])
    hidden = [dataclasses.replace(r, value=None) if r.tasks_seen <= (r.belongs_to or 0) else r for r in rows]
    metrics = of(hidden)
    second = metrics["by_column"][1]
    assert second["transfer"] is None and "could not be scored" in second["undefined"]["transfer"]
    assert second["average"] == 0.9 and "average" not in second["undefined"]


# -- against joint training, in files, in older records ----------------------------------------------------------------


def test_accumulation_as_a_share_of_what_joint_training_gains() -> None:
    run = EvaluationTable(table_of({"a": [0.2, 0.3, 0.5], "b": [0.4, 0.4, 0.4]}, {"h": [0.9, 0.8, 0.7]}))
    joint = EvaluationTable(table_of({"b": [0.4, 0.6], "a": [0.2, 0.8]}, {"h": [0.9, 0.6]}))
    found = compute_with_references(run, "higher", {"joint": joint})
    assert found["knowledge_accumulation_norm"] == pytest.approx((0.45 - 0.3) / (0.7 - 0.3))
    assert compute_with_references(run, "higher", {})["undefined"]["knowledge_accumulation_norm"] == (
        "no joint reference run is given"
    )
    idle = EvaluationTable(table_of({"a": [0.2, 0.2], "b": [0.4, 0.4]}, {"h": [0.9, 0.9]}))
    reason = compute_with_references(run, "higher", {"joint": idle})["undefined"]["knowledge_accumulation_norm"]
    assert "gains nothing" in reason
    other = EvaluationTable(table_of({"c": [0.2, 0.8]}, {"h": [0.9, 0.6]}))
    reason = compute_with_references(run, "higher", {"joint": other})["undefined"]["knowledge_accumulation_norm"]
    assert reason.startswith("in the reference: no boundary row of set 'a'")


def test_roles_survive_files_and_streams_without_them_have_no_column(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    rows = traced()
    EvaluationTable(rows).write(tmp_path / "roles.parquet")
    assert EvaluationTable.read(tmp_path / "roles.parquet").rows == rows
    assert [Row.from_json(row.to_json()) for row in rows] == rows
    plain = [dataclasses.replace(row, role="") for row in rows]
    EvaluationTable(plain).write(tmp_path / "plain.parquet")
    assert "role" not in pq.ParquetFile(tmp_path / "plain.parquet").schema.names
    assert "role" not in plain[0].to_json() and EvaluationTable.read(tmp_path / "plain.parquet").rows == plain
    with (tmp_path / "log.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "tasks_seen", "eval_set", "value", "belongs_to", "role"])
        for row in table_of(ACCUMULATION, RETENTION):
            writer.writerow([row.step, row.tasks_seen, row.eval_set, row.value, "", row.role])
    assert compute(EvaluationTable.read(tmp_path / "log.csv"))["knowledge_accumulation"] == pytest.approx(1.4 / 3)


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([Row(0, 0, "a", 0.1, role="adapted")], "must be adaptation, held-out or empty"),  # type: ignore[arg-type]
        ([Row(0, 0, "a", 0.1, belongs_to=2, role="held-out")], "belongs to no task"),
        ([Row(0, 0, "a", 0.1, role="adaptation"), Row(5, 1, "a", 0.2, role="held-out")], "the same in every row"),
    ],
)
def test_contradictory_roles_are_refused(rows: list[Row], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        EvaluationTable(rows)


def test_a_record_from_before_roles_is_complete() -> None:
    now = of(traced())
    before = {k: v for k, v in now.items() if k not in ADDED_BY_ROLE and k not in ADDED_BY_ROLE_PARTS}
    for part in ("versions", "undefined"):
        before[part] = {key: value for key, value in now[part].items() if key not in ADDED_BY_ROLE}
    assert as_known_to(before, now) == before and as_known_to(now, now) == now
    partly = before | {"over_stream": []}
    assert as_known_to(partly, now) == now


@pytest.mark.parametrize("key", sorted(ADDED_BY_ROLE))
def test_every_key_is_explained(key: str) -> None:
    assert DEFINITIONS[key].formula in explain(key)
