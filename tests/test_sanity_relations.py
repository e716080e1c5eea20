"""The sanity relations of continual multimodal pre-training, and where each of them is a test.

They hold for every seed, whatever the data. `WHERE` names the tests; those of runs of whole streams are here.

| | relation |
|---|---|
| 1 | at learning rate 0, batches of the task alone: accumulation and retention never change |
| 2 | one task, in random order, is the oracle (all data at once), up to the rule for the first task's batches |
| 3 | a random order and its reversal end alike |
| 4 | a moving average with all weight on the old deploys theta0, with none it is finetuning |
| 5 | the mean of identical checkpoints is that checkpoint |
| 6 | recursive ridge regression (RAIL) is that of all data at once |
| 7 | the greedy soup is no worse on held-out data than the best checkpoint |
| 8 | TIES that trims nothing of one vector, and DARE that drops nothing, are task arithmetic |
| 9 | full fine-tuning gets back its own steps from its own cost; the published ratios of costs come out |
| 10 | neighbours in the order by similarity are nearer to each other than in a random one |
| 11 | a subset is the same in every evaluation, and the same number comes out; the data stay as they are |
| 12 | CoDyRA without thresholds keeps rank 16; as published and without a gradient it keeps 8.2 +- 0.3 of 16 |
| 13 | peaks of the schedules that know the task are the published ones |
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clbench.class_statistics import GramStatistics
from clbench.engine.reporter import Reporter
from clbench.engine.session import Session
from clbench.launch import Prepared, start_run
from clbench.run import run
from clbench.spec import make_spec
from clbench.stream import EvalSet

HERE = "test_sanity_relations.py"
WHERE = {
    1: [f"{HERE}::test_without_a_rate_nothing_changes", f"{HERE}::test_without_a_rate_the_weights_stay"],
    2: [
        f"{HERE}::test_one_task_is_the_oracle_up_to_the_first_tasks_rule",
        "engine/test_pools.py::test_one_task_is_the_oracle_up_to_the_first_tasks_rule",
    ],
    3: [
        f"{HERE}::test_an_order_and_its_reversal_end_alike",
        "streams/test_fomo_orders.py::test_a_random_stream_and_its_reversal_hold_the_same",
    ],
    4: [
        "strategies/test_pairs.py::test_a_moving_average_at_its_ends",
        "strategies/test_merging.py::test_all_weight_on_the_old_deploys_theta0",
        "strategies/test_merging.py::test_without_weight_on_the_old_it_is_finetuning",
    ],
    5: [
        "strategies/test_pairs.py::test_the_mean_of_identical_checkpoints",
        "test_merging.py::test_the_running_mean_is_the_mean_and_keeps_equal_members",
    ],
    6: [
        f"{HERE}::test_the_recursion_of_rail_is_ridge_regression_on_all_data",
        "strategies/test_ranpac.py::test_weights_are_ridge_regression_on_all_tasks",
    ],
    7: [
        "strategies/test_pairs.py::test_the_greedy_soup_is_no_worse_than_the_best_checkpoint",
        "strategies/test_merging.py::test_the_greedy_soup_is_no_worse_than_the_best_checkpoint",
    ],
    8: [
        "strategies/test_pairs.py::test_rules_of_task_vectors_meet",
        "strategies/test_merging.py::test_one_untrimmed_vector_is_task_arithmetic",
        "strategies/test_merging.py::test_dropping_nothing_is_task_arithmetic",
    ],
    9: [
        "test_budgets.py::test_the_total_of_the_published_runs",
        "test_budgets.py::test_full_fine_tuning_gets_back_its_own_steps",
        "test_budgets.py::test_the_steps_of_the_published_table",
        "engine/test_budget_runs.py::test_full_fine_tuning_under_its_own_cost_is_the_run_without_a_budget",
        "engine/test_published_costs.py::test_ratios_to_full_fine_tuning",
    ],
    10: [
        "streams/test_fomo_orders.py::test_neighbours_are_nearer_than_in_a_random_order",
        "streams/test_fomo_scores.py::test_a_streams_similarity_order_has_nearer_neighbours",
    ],
    11: [f"{HERE}::test_a_subset_is_fixed_and_changes_no_data", f"{HERE}::test_a_subset_has_as_many_of_each_class"],
    12: [
        "strategies/test_pairs.py::test_without_thresholds_every_rank_is_full",
        "strategies/test_pairs.py::test_without_a_gradient_the_draws_decide",
        "strategies/test_rank_lora.py::test_the_draws_alone_decide_half_of_the_selection",
    ],
    13: [
        "schedules/test_recovery.py::test_peaks_of_cosines",
        "schedules/test_recovery.py::test_peaks_of_inverse_square_roots",
    ],
}


def test_every_relation_is_a_test() -> None:
    assert list(WHERE) == list(range(1, 14))
    assert all(f"| {number} | " in (__doc__ or "") for number in WHERE)
    for place in (place for places in WHERE.values() for place in places):
        file, _, name = place.partition("::")
        assert f"def {name}(" in (Path(__file__).parent / file).read_text(encoding="utf-8"), place


# -- runs on a small collection ----------------------------------------------------------------------------------------

SMALL = {
    "sets": ["shapes:inverted@0/4", "digits:inverted@0/4"],
    "held_out": ["shapes:outline@0/4"],
    "pretraining": ["shapes:clean@0/4"],
    "train_per_concept": 8,
    "test_per_concept": 5,
    "pool_per_concept": 8,
    "size": 8,
    "tasks": 3,
}
Job = Callable[..., Any]
Finished = Callable[..., Session]


@pytest.fixture(autouse=True)
def _one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def job(pairs_stream: Any, tmp_path: Path) -> Job:
    """`job(strategy, settings, fields={...}, **stream settings)`: the specification of a run on six concepts."""

    def made(
        strategy: str = "finetune",
        settings: dict[str, Any] | None = None,
        fields: dict[str, Any] | None = None,
        **stream: Any,
    ) -> Any:
        values = {
            "strategy": strategy,
            "strategy_settings": {"steps": 3, "batch_size": 12, "lr": 0.003, **(settings or {})},
            "stream": "fomo",
            "stream_settings": {**SMALL, **stream},
            "backbone": pairs_stream.tiny_clip(tmp_path),
            "eval_grid": "none",
            "threads": 1,
        }
        return make_spec({**values, **(fields or {})})

    return made


@pytest.fixture
def finished(tmp_path: Path) -> Finished:
    """A session of a specification, run to its end."""
    numbers = count()

    def go(spec: Any) -> Session:
        folder = tmp_path / f"run{next(numbers)}"
        folder.mkdir()
        session = Prepared(spec).session(folder, Reporter(), None)
        try:
            run(session)
        finally:
            session.close()
        return session

    return go


@pytest.mark.parametrize(("strategy", "seed"), [("finetune", 3), ("ema-merge", 11)])
def test_without_a_rate_nothing_changes(job: Job, tmp_path: Path, strategy: str, seed: int) -> None:
    spec = job(strategy, {"lr": 0.0}, {"seed": seed, "order_seed": seed}, mixture=[0.0, 1.0, 0.0])
    _, record = start_run(spec, tmp_path / "results")
    series = record["metrics"]["over_stream"]
    assert [point["tasks_seen"] for point in series] == [0, 1, 2, 3]
    for quantity in ("knowledge_accumulation", "zero_shot_retention", "geometric_mean"):
        values = {point[quantity] for point in series}
        assert len(values) == 1 and None not in values
    for key in ("knowledge_accumulation_change", "zero_shot_retention_change", "forgetting", "heldout_forgetting"):
        assert record["metrics"][key] == 0


@pytest.mark.parametrize("seed", [3, 11])
def test_without_a_rate_the_weights_stay(job: Job, finished: Finished, tmp_path: Path, seed: int) -> None:
    """Scores of a handful of images can stay though weights move."""
    spec = job(settings={"lr": 0.0}, fields={"seed": seed}, mixture=[0.0, 1.0, 0.0])
    start = Prepared(spec).session(tmp_path, Reporter(), None).model.state_dict()
    assert all(torch.equal(value, start[name]) for name, value in finished(spec).model.state_dict().items())
    moved = finished(job(fields={"seed": seed}, mixture=[0.0, 1.0, 0.0])).model.state_dict()
    assert any(not torch.equal(value, start[name]) for name, value in moved.items())


@pytest.mark.parametrize("seed", [0, 7])
def test_one_task_is_the_oracle_up_to_the_first_tasks_rule(job: Job, finished: Finished, seed: int) -> None:
    """The buffer's share, of which the first task has none, is halved between the pool and the task."""

    def end(*mixture: float) -> tuple[Session, dict[str, Tensor]]:
        session = finished(job(fields={"seed": seed, "order_seed": seed}, tasks=1, mixture=list(mixture)))
        return session, session.model.state_dict()

    one, weights = end(0.25, 0.25, 0.5)
    oracle, expected = end(0.5, 0.5, 0.0)
    assert all(torch.equal(value, expected[name]) for name, value in weights.items())
    assert [row.value for row in one.table.table] == [row.value for row in oracle.table.table]
    assert any(not torch.equal(value, expected[name]) for name, value in end(0.25, 0.75, 0.0)[1].items())
    (task,) = one.stream.tasks
    assert Counter(task.train.labels.tolist()) == dict.fromkeys(range(6), 8)


def test_a_subset_is_fixed_and_changes_no_data(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clbench.engine import grid

    monkeypatch.setattr(grid, "SMALLEST", 4)
    session = Prepared(job(fields={"eval_grid": "full"}, tasks=2)).session(tmp_path, Reporter(), None)
    try:
        session.start()
        pool = session.stream.tasks[0].train.pool
        images, labels = pool.inputs.clone(), pool.labels.clone()
        sizes = {s.name: len(s.data) for s in session.stream.eval_sets}
        whole = session.evaluator.boundary(0, 0, False, session.line)
        first, again = session.evaluator.trace(0, 0), session.evaluator.trace(0, 0)
        assert [(row.eval_set, row.value, row.n) for row in first] == [(r.eval_set, r.value, r.n) for r in again]
        expected = {s.name: min(len(s.data), max(2 * len(s.classes), 4)) for s in session.stream.eval_sets}
        assert {row.eval_set: row.n for row in first}.items() <= expected.items()
        assert any(row.n < sizes[row.eval_set] for row in first)
        assert session.evaluator.boundary(0, 0, False, session.line) == whole
        assert {s.name: len(s.data) for s in session.stream.eval_sets} == sizes
        assert torch.equal(pool.inputs, images) and torch.equal(pool.labels, labels)
    finally:
        session.close()


def test_a_subset_has_as_many_of_each_class() -> None:
    from clbench.engine.evaluation import _subset
    from clbench.samples import Pool, Samples

    labels = torch.tensor([0] * 50 + [1] * 9 + [2] * 30)
    data = Samples(Pool(torch.zeros(len(labels), 1), labels))
    chosen = _subset("content", EvalSet("s", data, None, (0, 1, 2)), 40, True)
    assert Counter(labels[chosen].tolist())[1] == 9
    assert sorted(Counter(labels[chosen].tolist()).values()) == [9, 15, 16] and len(chosen.unique()) == 40
    assert torch.equal(_subset("content", EvalSet("s", data, None, (0, 1, 2)), 40, True), chosen)
    assert not torch.equal(_subset("another", EvalSet("s", data, None, (0, 1, 2)), 40, True), chosen)


def test_the_recursion_of_rail_is_ridge_regression_on_all_data() -> None:
    """RAIL (arXiv 2406.18868), section 4: R and M batch by batch, classes coming as they do; against the sums of
    `ranpac`, and against one solution for all data."""
    random = torch.Generator().manual_seed(5)
    h = torch.randn(90, 12, generator=random, dtype=torch.float64).relu()
    y = torch.arange(90) * 6 // 90
    ridge, sums = 0.1, GramStatistics(12)
    r, m = torch.eye(12, dtype=torch.float64) / ridge, torch.zeros(12, 0, dtype=torch.float64)
    for start in range(0, 90, 10):
        rows, labels = h[start : start + 10], y[start : start + 10]
        m = torch.nn.functional.pad(m, (0, max(0, int(labels.max()) + 1 - m.shape[1])))
        hot = torch.nn.functional.one_hot(labels, m.shape[1]).double()
        gain = torch.linalg.solve(torch.eye(10, dtype=torch.float64) + rows @ r @ rows.T, rows @ r)
        r = r - r @ rows.T @ gain
        m = m + r @ rows.T @ (hot - rows @ m)
        sums.add(rows, labels)
    at_once = torch.linalg.solve(
        h.T @ h + ridge * torch.eye(12, dtype=torch.float64), h.T @ torch.nn.functional.one_hot(y).double()
    )
    torch.testing.assert_close(m, at_once, rtol=0, atol=1e-4)
    torch.testing.assert_close(sums.solve(ridge).T, at_once, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_an_order_and_its_reversal_end_alike(job: Job, finished: Finished) -> None:
    """The embedded model, five draws of the order: the same concepts the other way round, no difference beyond what its
    own spread explains (three standard errors)."""
    steps = {"steps": 8, "batch_size": 24, "lr": 0.0003}
    images = {"train_per_concept": 20, "test_per_concept": 20, "pool_per_concept": 20, "size": 32}

    def ends(seed: int, ordering: str) -> tuple[float, float]:
        """Accumulation and retention."""
        fields = {"order_seed": seed, "backbone": "micro-clip"}
        rows = finished(job(settings=steps, fields=fields, ordering=ordering, **images)).table.table
        last = [row for row in rows if row.tasks_seen == 3 and row.kind == "boundary"]
        values = {role: [row.value or 0.0 for row in last if row.role == role] for role in ("adaptation", "held-out")}
        assert len(values["adaptation"]) == 2 and len(values["held-out"]) == 1
        return sum(values["adaptation"]) / 2, sum(values["held-out"])

    ends_of = {kind: [ends(seed, kind) for seed in range(1, 6)] for kind in ("random", "reverse:random")}
    for quantity in (0, 1):
        differences = [a[quantity] - b[quantity] for a, b in zip(*ends_of.values(), strict=True)]
        spread = statistics.stdev(differences) / math.sqrt(len(differences))
        assert abs(statistics.mean(differences)) < 3 * spread + 0.01
        assert abs(statistics.mean(differences)) < 0.2
