"""Rank-selective LoRA: what survives, what is merged, what is left of a task, and what a control must keep."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clbench.engine.session import Session
from clbench.errors import Interrupted, UserError
from clbench.models.rank_one import components, soft_threshold
from clbench.schedules import factor
from clbench.state import pack
from clbench.strategies.adalora import layers, non_orthogonality, spans
from clbench.strategies.chosen_classes import among
from clbench.strategies.codyra import threshold
from clbench.strategies.sora import gates_apart

WATCHED = f"{Path(__file__).with_name('rank_watchers.py')}:Watched"
VIT = {
    "stream": "split-digits",
    "backbone": "timm:vit_tiny_patch16_224?img_size=16,patch_size=8,embed_dim=12,depth=1,num_heads=3",
    "stream_settings": {"train_per_class": 12, "sizes": [3, 5, 2]},
}
TEXT = {
    "stream": "text-shift",
    "backbone": "byte-gpt?d=16,layers=1,ctx=16",
    "stream_settings": {"context": 16, "tokens": 800, "eval_blocks": 16},
}
SHORT: dict[str, dict[str, Any]] = {
    "codyra": {"steps": 8, "kappa_max": 0.2, "rank": 6},
    "random": {"steps": 8, "kappa_max": 0.2, "rank": 6, "selection": "random"},
    "sora": {"steps": 8, "xi": 0.05},
    "adalora": {"steps": 8, "rank": 6, "target_rank": 3},
}
NAMES = {"codyra": "CoDyRA", "random": "CoDyRA", "sora": "SoRA", "adalora": "AdaLoRA"}
Drive = Callable[..., Session]


def ranks(session: Session) -> list[dict[str, int]]:
    """Of each task."""
    return [told["values"]["effective_rank"] for told in session.diagnostics]


# -- thresholds ------------------------------------------------------------------------------------------------------


@pytest.mark.oracle("codyra", "the published thresholds: none for half the steps, 50 values, 0.65 in sum")
def test_the_published_thresholds() -> None:
    found = [threshold(step, 500, 0.005, 50, 0.5) for step in range(500)]
    assert found[:251] == [None] * 251 and None not in found[251:]
    values = [kappa for kappa in found if kappa is not None]
    assert values == sorted(values) and values[0] == pytest.approx(0.005 / 49) and values[-1] == 0.005
    assert len(set(values)) == 49 and sum(values) == pytest.approx(0.650, abs=5e-4)


def test_thresholds_move_on_as_in_the_released_loop() -> None:
    """Also where the sparse phase does not begin at a multiple of the steps that a threshold has."""
    for steps in (100, 125, 350, 700, 1001):
        place, values = 0, []
        for step in range(steps):
            place += step >= 0.5 * steps and step % int(0.5 * steps // 50) == 0
            values.append(0.49 * min(place, 49) / 49 if step > 0.5 * steps else None)
        assert [threshold(step, steps, 0.49, 50, 0.5) for step in range(steps)] == pytest.approx(values)


@pytest.mark.parametrize("steps", range(2, 40))
def test_short_phases_reach_the_largest_threshold(steps: int) -> None:
    found = [threshold(step, steps, 0.005, 50, 0.5) for step in range(steps)]
    assert found[-1] == 0.005 or steps <= 2
    assert threshold(steps - 1, steps, 0.005, 50, 1.0) is None


def survivors(drive: Drive, **settings: Any) -> Session:
    """A run of the published schedule, in which nothing learns: 1,500 components of one layer."""
    job = {"stream": "split-digits", "backbone": "mlp:8x1", "stream_settings": {"train_per_class": 8, "sizes": [10]}}
    return drive(f"{WATCHED}CoDyRA", {"rank": 1500, "lr": 0.0, "batch_size": 8, **settings}, job=job)


@pytest.mark.oracle("codyra", "with no gradient, N(0, 1) weights keep 8.25 of 16 components (8.20 as released)")
@pytest.mark.parametrize("operator", ["paper", "released"])
def test_the_draws_alone_decide_half_of_the_selection(drive: Drive, operator: str) -> None:
    """Kept is what was above the sum of the thresholds, 0.650 (released: 0.655, the last one counts twice)."""
    session = survivors(drive, operator=operator)
    kept = 16 * ranks(session)[0]["layers.0"] / 1500
    assert kept == pytest.approx(8.2, abs=0.3)
    total = sum(threshold(step, 500, 0.005, 50, 0.5) or 0 for step in range(500))
    least = total + (0.005 if operator == "released" else 0)
    first = session.strategy.state.starts[0]["layers.0"]
    assert ranks(session)[0]["layers.0"] == pytest.approx(int((first.abs() > least).sum()), abs=1)
    assert kept == pytest.approx(16 * math.erfc(least / 2**0.5), abs=0.3)


@pytest.mark.oracle("codyra", "the control silences as many components as the rule, whatever their weights")
def test_the_control_has_the_same_ranks_and_chooses_at_random(drive: Drive) -> None:
    learned, control = survivors(drive), survivors(drive, selection="random")
    assert ranks(learned) == ranks(control)
    first, last = (kept[0]["layers.0"] for kept in watched(control))
    kept = last != 0
    assert torch.equal(last[kept], first[kept])
    assert float(first[kept].abs().mean()) == pytest.approx(math.sqrt(2 / math.pi), abs=0.08)
    chosen = learned.strategy.state.ends[0]["layers.0"] != 0
    assert float((chosen & kept).sum() / kept.sum()) == pytest.approx(float(chosen.float().mean()), abs=0.08)


def watched(session: Session) -> tuple[list[dict[str, torch.Tensor]], list[dict[str, torch.Tensor]]]:
    return session.strategy.state.starts, session.strategy.state.ends


def test_without_thresholds_the_rank_is_full(drive: Drive) -> None:
    session = drive("codyra", {"steps": 8, "kappa_max": 0, "rank": 5}, job=VIT)
    assert [set(told.values()) for told in ranks(session)] == [{5}] * 3


def test_weights_start_at_one_or_from_a_normal_distribution(drive: Drive) -> None:
    ones = drive(f"{WATCHED}CoDyRA", {**SHORT["codyra"], "start": "ones"}, job=VIT).strategy.state.starts
    assert all(torch.equal(w, torch.ones(6)) for start in ones for w in start.values())
    drawn = drive(f"{WATCHED}CoDyRA", SHORT["codyra"], job=VIT).strategy.state.starts
    every = torch.cat([w for start in drawn for w in start.values()])
    assert len(every.unique()) == len(every) and 0.7 < float(every.std()) < 1.3


# -- SoRA and AdaLoRA ------------------------------------------------------------------------------------------------


@pytest.mark.oracle("sora", "without a gradient, gates are soft-thresholded by the sum of the steps' thresholds")
@pytest.mark.parametrize("operator", ["paper", "released"])
def test_gates_shrink_by_the_proximal_operator(drive: Drive, operator: str) -> None:
    settings = {"steps": 10, "xi": 0.05, "lr": 0.0, "operator": operator}
    for start, end in zip(*watched(drive(f"{WATCHED}SoRA", settings, job=VIT)), strict=True):
        for name, gates in start.items():
            total = sum(0.05 * (factor("linear", s, 10) if operator == "paper" else 1) for s in range(10))
            if operator == "paper":
                torch.testing.assert_close(end[name], soft_threshold(gates, total), atol=1e-6, rtol=0)
            else:
                closed = gates.abs() < total + 0.05
                expected = (gates - gates.sign() * total).masked_fill(closed, 0)
                torch.testing.assert_close(end[name], expected, atol=1e-6, rtol=0)


def test_gates_and_biases_have_no_weight_decay() -> None:
    shapes = {"x.rank_one.a": (2, 3), "x.rank_one.w": (2,), "head.weight": (4, 3), "head.bias": (4,)}
    named = {name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()}
    matrices, others = gates_apart(named)
    assert [p.shape for p in others["params"]] == [(2,), (4,)] and others["weight_decay"] == 0
    assert [p.shape for p in matrices["params"]] == [(2, 3), (4, 3)] and "weight_decay" not in matrices


def test_the_l1_term_is_the_mean_of_all_gates(drive: Drive) -> None:
    session = drive("sora", {"steps": 1, "l1": 10.0}, job=VIT)
    strategy, task = session.strategy, session.stream.tasks[2]
    batch = next(strategy.batches(task.train))
    for i, part in enumerate(components(session.model).values()):
        torch.nn.init.constant_(part.w, 0.5 if i else -2.0)
    total = strategy.task_loss(task.classes, batch)
    plain = session.objective.mean_loss(*among(session.model(batch.x), batch.y, task.classes))
    n = len(components(session.model))
    assert (total - plain).item() == pytest.approx(10 * (2 + 0.5 * (n - 1)) / n, rel=1e-4)


@pytest.mark.oracle("adalora", "at the end of each task the ranks of all layers sum to the budget")
@pytest.mark.parametrize("steps", [1, 2, 4, 25])
def test_ranks_end_at_the_budget_in_every_task(drive: Drive, steps: int) -> None:
    session = drive("adalora", {"steps": steps, "rank": 6, "target_rank": 3, "lr": 0.01}, job=VIT)
    for told in ranks(session):
        assert sum(told.values()) == 3 * len(told)
    if steps == 25:
        assert any(len(set(told.values())) > 1 for told in ranks(session)), "every layer has the same rank"


@pytest.mark.parametrize("steps", range(1, 30))
def test_the_budget_always_reaches_its_target(steps: int) -> None:
    for warmup, final in [(0.1, 0.58), (0.0, 0.0), (0.9, 0.9), (0.5, 0.5)]:
        first, last = spans(steps, warmup, final)
        assert 0 <= first < steps - last <= steps and last >= 0


def test_equal_ranks_at_start_and_end_prune_nothing(drive: Drive) -> None:
    session = drive("adalora", {"steps": 6, "rank": 3, "target_rank": 3}, job=VIT)
    assert {rank for told in ranks(session) for rank in told.values()} == {3}


def test_orthogonality_by_hand() -> None:
    model = torch.nn.Module()
    model.lora_A = torch.nn.ParameterDict({"default": torch.eye(3)[:2] * 2})  # Gram matrix 4 I
    model.lora_B = torch.nn.ParameterDict({"default": torch.eye(3)[:, :2]})
    holder = torch.nn.Sequential(model)
    assert float(non_orthogonality(holder).detach()) == pytest.approx((18**0.5 + 0) / 2)


# -- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.oracle("codyra", "the merged model gives the adapted model's outputs; nothing of the task remains")
@pytest.mark.oracle("sora", "the merged model gives the adapted model's outputs; nothing of the task remains")
@pytest.mark.oracle("adalora", "the merged model gives the adapted model's outputs; nothing of the task remains")
@pytest.mark.parametrize("kind", SHORT)
def test_merging_keeps_the_outputs_and_leaves_nothing_behind(drive: Drive, kind: str) -> None:
    session = drive(f"{WATCHED}{NAMES[kind]}", {**SHORT[kind], "lr": 0.01, "weight_decay": 0.1}, job=VIT)
    state = session.strategy.state
    for before, after in state.outputs:
        torch.testing.assert_close(after, before, atol=2e-5, rtol=1e-4)
    assert any(told["values"]["update_norm"] > 1e-3 for told in session.diagnostics)
    for part in components(session.model).values():
        assert not any(p.any() for p in part.parameters())
    for layer in layers(session.model).values():
        assert not any(p["default"].any() for p in (layer.lora_A, layer.lora_B, layer.lora_E))
    tensors: dict[str, torch.Tensor] = {}
    pack({k: v for k, v in vars(state).items() if k not in ("starts", "ends", "outputs", "heads")}, "", tensors)
    assert not tensors
    for earlier, later in zip(state.heads, state.heads[1:], strict=False):
        assert torch.equal(earlier, later[: len(earlier)]), "the task changed the classifier of another"


@pytest.mark.parametrize("kind", SHORT)
def test_an_interrupted_run_ends_with_the_same_bits(drive: Drive, tmp_path: Path, kind: str) -> None:
    name, settings = NAMES[kind].lower(), {**SHORT[kind], "lr": 0.01}
    whole = drive(name, settings, job=VIT)
    folder = tmp_path / "stopped"
    for stop_at in (2, 4, 7):  # while the budget falls, while thresholds grow, and in the second task
        torch.rand(3)
        with pytest.raises(Interrupted):
            drive(name, settings, job=VIT, stop_at=stop_at, folder=folder)
    again = drive(name, settings, job=VIT, folder=folder)
    expected, found = whole.model.state_dict(), again.model.state_dict()
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
    assert whole.diagnostics == again.diagnostics and list(whole.table.table) == list(again.table.table)
    if kind != "adalora":
        assert any(min(told.values()) < 6 for told in ranks(whole)), "no component was silenced"


@pytest.mark.parametrize("kind", ["random", "sora", "adalora"])
def test_they_train_language_models(drive: Drive, final: Callable[[Session], float], kind: str) -> None:
    session = drive(NAMES[kind].lower(), {**SHORT[kind], "lr": 0.01}, job=TEXT)
    assert 0 < final(session) < 5.6 and len(ranks(session)) == len(session.stream.tasks)


@pytest.mark.parametrize("kind", ["codyra", "adalora"])
def test_backbones_without_linear_layers_are_refused(drive: Drive, kind: str) -> None:
    with pytest.raises(UserError, match="changes linear layers, and this backbone has none"):
        drive(kind, job={**VIT, "backbone": "slim-resnet18?width=2"})


def test_a_head_that_nothing_trains_is_refused(drive: Drive) -> None:
    with pytest.raises(UserError, match="SoRA trains the head: use --head linear or cosine"):
        drive("sora", job={**VIT, "head": "prototype"})


def test_domain_incremental_streams_use_all_classes(drive: Drive, final: Callable[[Session], float]) -> None:
    settings = {"steps": 60, "lr": 0.01, "kappa_max": 0.002}
    job = {"stream": "rotated-digits", "backbone": "mlp:32x1", "stream_settings": {"train_per_class": 30}}
    assert final(drive("codyra", settings, job=job)) > 0.4


def test_what_is_trained_is_counted_and_nothing_else(drive: Drive) -> None:
    session = drive("codyra", SHORT["codyra"], job=VIT)
    parts = sum(p.numel() for part in components(session.model).values() for p in part.parameters())
    assert session.cost()["parameters_trained"] == parts + sum(p.numel() for p in session.model.head.parameters())
    assert session.cost()["parameters"] > 1.5 * session.cost()["parameters_trained"] > 0
