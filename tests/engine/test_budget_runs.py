"""Budgets that bind: what a rehearsal measures, by hand; runs that keep to it; killed and resumed ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from clbench.engine.cost import FlopCount
from clbench.errors import UserError
from clbench.launch import Prepared, start_run

from .conftest import result

FLOAT = 4
SIZES = (3, 8, 10)  # classes seen in the three tasks
NEW = (3, 5, 2)
EPOCHS = 5  # what split-digits recommends
BATCH = {"batch_size": 16}
MLP: dict[str, Any] = {
    "backbone": "mlp:32x1",
    "eval_grid": "none",
    "stream_settings": {"sizes": [3, 5, 2], "train_per_class": 32},
}
TEXT: dict[str, Any] = {
    "stream": "text-shift",
    "stream_settings": {"domains": "prose,cipher", "context": 16, "tokens": 1200, "eval_blocks": 8},
    "backbone": "byte-gpt?d=16,layers=1,ctx=16",
    "eval_grid": "none",
}


def record_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "record.json").read_text())
    return found


def perceptron_step(classes: int, batch: int = 16) -> int:
    """64 inputs, 32 hidden units: both layers forward and for their weights, the second one for its input."""
    return 2 * batch * (2 * 64 * 32 + 3 * 32 * classes)


def test_a_convolution_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(5 * 4 * 4, 2))
    with FlopCount() as count:
        model(torch.randn(2, 3, 8, 8)).sum().backward()
    first, second = 2 * 2 * 6 * 6 * 4 * 3 * 9, 2 * 2 * 4 * 4 * 5 * 4 * 9
    assert count.flops == 2 * first + 3 * second + 3 * (2 * 2 * 80 * 2)


def test_a_perceptron_by_hand(runs: Any) -> None:
    found = Prepared(runs.spec("finetune", strategy_settings=BATCH, budget={"maf": 1.0}, **MLP)).allowance
    assert found is not None and found.ratio == 1
    assert [task.phases[0].flops for task in found.cost.tasks] == [perceptron_step(n) for n in SIZES]
    assert [task.extra for task in found.cost.tasks] == [0, 0, 0]
    weights = FLOAT * (64 * 32 + 32 + 32 * 10 + 10)
    saved = FLOAT * 16 * (64 + 32 + 10) + 8 * 16 + FLOAT
    assert found.cost.memory == {"parameters": weights, "gradients": weights, "optimizer": 0, "activations": saved}
    assert found.steps == tuple(EPOCHS * classes * 32 // 16 for classes in NEW)


def test_full_fine_tuning_under_its_own_cost_is_the_run_without_a_budget(runs: Any) -> None:
    plain = runs.finish("plain", runs.spec("finetune", **MLP), every=None)
    folder = runs.finish("full", runs.spec("finetune", budget={"maf": 1.0}, **MLP), every=None)
    assert result(folder) == result(plain)
    cost, budget = record_of(folder)["cost"], record_of(folder)["budget"]
    assert cost["flops_train"] == cost["maf_train"] <= budget["limits"]["maf"]
    assert "budget" not in record_of(plain)


@pytest.mark.parametrize(
    ("strategy", "fields", "rehearsals"),
    [
        ("finetune", {}, 1),
        ("finetune", {"strategy_settings": {"epochs": 7}}, 2),
        ("finetune", {"tune": "bias"}, 2),
        ("si", {}, 2),
    ],
)
def test_what_is_full_fine_tuning_itself_is_rehearsed_once(
    runs: Any, monkeypatch: pytest.MonkeyPatch, strategy: str, fields: dict[str, Any], rehearsals: int
) -> None:
    from clbench.cli.cost import find
    from clbench.engine.allowance import full_fine_tuning
    from clbench.engine.measuring import MeasureSession
    from clbench.strategy import Strategy

    class NotEmpty(Strategy):
        paper = "a test"

    started = []
    start = MeasureSession.start
    monkeypatch.setattr(MeasureSession, "start", lambda self: (started.append(1), start(self)))
    built = Prepared(runs.spec(strategy, **{**MLP, **fields}))
    found = find(built)
    assert len(started) == rehearsals
    rehearsed = full_fine_tuning(built.spec, built.stream, NotEmpty, built.config, found.cost)
    assert len(started) == rehearsals + 1 and found.full == rehearsed


def test_a_first_task_learned_elsewhere_has_no_share(runs: Any) -> None:
    fields = {**MLP, "upstream": "shared", "strategy_settings": BATCH}
    plain = runs.finish("plain", runs.spec("finetune", **fields), every=None)
    folder = runs.finish("full", runs.spec("finetune", budget={"maf": 1.0}, **fields), every=None)
    assert result(folder) == result(plain)
    budget = record_of(folder)["budget"]
    assert [task["share_maf"] > 0 for task in budget["tasks"]] == [False, True, True]
    assert [task["steps"] for task in budget["tasks"]] == [None, *(EPOCHS * new * 32 // 16 for new in NEW[1:])]
    assert budget["flops_per_step_full"] == [0, *(perceptron_step(n) for n in SIZES[1:])]


@pytest.mark.parametrize(
    ("strategy", "settings"), [("ewc", {"fisher_samples": 20}), ("lwf", {}), ("replay", {"memory_size": 20})]
)
def test_every_task_gets_what_its_share_pays_for(runs: Any, strategy: str, settings: dict[str, Any]) -> None:
    spec = runs.spec(strategy, strategy_settings={**BATCH, **settings}, budget={"maf": 2.0}, **MLP)
    record = record_of(runs.finish("run", spec, every=None))
    cost, budget = record["cost"], record["budget"]
    ratio = cost["memory_deterministic_bytes"] / cost["memory_full_bytes"]
    assert budget["memory_ratio"] == pytest.approx(ratio)
    for task, classes, new in zip(budget["tasks"], SIZES, NEW, strict=True):
        share = 2 * perceptron_step(classes) * EPOCHS * new * 32 // 16
        per_step = task["phases"][0]["flops_per_step"]
        assert task["share_maf"] == share
        assert task["steps"] == int((share / ratio - task["flops_extra"]) // per_step)
    assert cost["steps"] == sum(task["steps"] for task in budget["tasks"])
    planned = sum(task["flops_planned"] for task in budget["tasks"])
    if strategy == "replay":  # its first step has nothing to replay
        planned -= perceptron_step(SIZES[0])
    assert cost["flops_train"] == planned
    assert cost["maf_train"] == pytest.approx(cost["flops_train"] * ratio)
    assert cost["maf_train"] <= budget["limits"]["maf"]
    assert not record["warnings"]


def test_what_is_frozen_is_paid_out_in_steps(runs: Any) -> None:
    spec = runs.spec("finetune", tune="head", strategy_settings=BATCH, budget={"flops": 1.0}, **MLP)
    found = Prepared(spec).allowance
    assert found is not None
    step = 2 * 16 * (64 * 32 + 2 * 32 * 3)  # forward, and the gradient of the head alone
    assert found.cost.tasks[0].phases[0].flops == step
    assert found.steps[0] == 6 * EPOCHS * perceptron_step(3) // step > 6 * EPOCHS


@pytest.mark.parametrize("fault", ["phase:9", "end_task:2"])
def test_a_killed_run_keeps_to_the_same_steps(runs: Any, fault: str) -> None:
    spec = runs.spec("lwf", strategy_settings=BATCH, budget={"maf": 1.0}, **{**MLP, "eval_grid": "full"})
    whole = runs.finish("whole", spec, every=None)
    folder = runs.finish("killed", spec, fault)
    assert runs.resume(folder) == 0
    assert result(folder) == result(whole)
    assert record_of(folder)["budget"] == record_of(whole)["budget"]
    for key in ("flops_train", "maf_train", "memory_deterministic_bytes"):
        assert record_of(folder)["cost"][key] == record_of(whole)["cost"][key]


@pytest.mark.slow
def test_a_killed_run_of_pairs_with_merged_adapters(runs: Any, pairs_stream: Any, tmp_path: Path) -> None:
    """Killed within the second task: between the last checkpoint and the kill steps are taken again."""
    job = pairs_stream.job(tmp_path, tune="lora:4", budget={"maf": 0.5})
    spec = runs.spec("ema-merge", strategy_settings={"batch_size": 8}, **job)
    whole = runs.finish("whole", spec, every=None)
    tasks = record_of(whole)["budget"]["tasks"]
    assert [task["steps"] for task in tasks] == [6, 6]
    folder = runs.finish("killed", spec, "phase:11")
    assert runs.resume(folder) == 0
    assert result(folder) == result(whole)
    one, other = record_of(folder), record_of(whole)
    assert one["budget"] == other["budget"]
    for key in ("flops_train", "maf_train", "memory_deterministic_bytes", "caption_collisions"):
        assert one["cost"][key] == other["cost"][key]


def test_text_has_budgets_too(runs: Any) -> None:
    settings = {"steps": 4, "batch_size": 8}
    spec = runs.spec("finetune", strategy_settings=settings, budget={"maf": 0.5}, **TEXT)
    record = record_of(runs.finish("run", spec, every=None))
    block = 2 * 8 * 16 * 12 * 16 * 16 + 2 * 2 * 8 * 16 * 16 * 16  # projections and MLP; attention's two products
    vocabulary = Prepared(spec).stream.vocabulary
    assert vocabulary is not None
    head = 2 * 8 * 16 * 16 * vocabulary
    per_step = record["budget"]["tasks"][0]["phases"][0]["flops_per_step"]
    assert per_step == 3 * (block + head)
    full = record["budget"]["flops_per_step_full"]
    assert full[0] == per_step and record["budget"]["memory_ratio"] == 1
    assert record["cost"]["flops_train"] <= record["budget"]["limits"]["maf"]


def test_a_budget_that_is_too_small_leaves_nothing_behind(runs: Any, tmp_path: Path) -> None:
    spec = runs.spec("ewc", strategy_settings=BATCH, budget={"maf": 0.1}, **MLP)
    with pytest.raises(UserError, match=r"budget maf=0.1: not one step of ewc fits into task 0 .*maf=.*x would do"):
        start_run(spec, tmp_path / "results")
    assert not list((tmp_path / "results").glob("runs/*/*/*"))


def test_an_online_stream_gives_a_task_one_pass_at_most(runs: Any) -> None:
    settings = {**MLP["stream_settings"], "online": True}
    spec = runs.spec("finetune", strategy_settings=BATCH, budget={"maf": 9.0}, **{**MLP, "stream_settings": settings})
    found = Prepared(spec).allowance
    assert found is not None and found.steps == (6, 10, 4)
