"""The same strategies on images with captions: they run, keep their relations to one another, and resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clbench.engine.session import Session
from clbench.errors import Interrupted, UserError
from clbench.models.rank_one import components
from clbench.strategies.codyra import threshold

Drive = Callable[..., Session]
Job = dict[str, Any]
SLOW = pytest.mark.slow
SCALE = "backbone.logit_scale"
FEW: dict[str, dict[str, Any]] = {
    "replay": {"memory_size": 8},
    "der": {"memory_size": 8},
    "der++": {"memory_size": 8},
    "ewc": {},
    "si": {},
    "lwf": {},
    "rwalk": {},
    "zscl": {"average_every": 1},
    "ema-merge": {},
    "ft-merge": {},
    "zs-merge": {},
    "wise-ft": {},
    "soup": {},
    "greedy-soup": {"memory_size": 8, "held_out": 0.3},
    "task-arithmetic": {},
    "ties": {},
    "dare": {},
    "codyra": {"rank": 4, "kappa_max": 0.2},
    "sora": {"rank": 4},
    "adalora": {"rank": 4, "target_rank": 2},
    "rewarm": {},
    "joint": {},
    "cumulative": {},
    "gdumb": {"memory_size": 8, "epochs": 1},
}
IN_SHORT = ("der", "ewc", "lwf", "greedy-soup", "sora", "adalora")
ZERO: dict[str, dict[str, Any]] = {
    "replay": {"replay_batch_size": 0},
    "der": {"alpha": 0},
    "ewc": {"ewc_lambda": 0},
    "si": {"c": 0},
    "lwf": {"alpha": 0},
    "ema-merge": {"weight": 0},
    "wise-ft": {"alpha": 1},
}


@pytest.fixture
def pairs(pairs_stream: Any, tmp_path: Path) -> Job:
    job: Job = pairs_stream.job(tmp_path)
    return job


def deployed(session: Session) -> dict[str, Tensor]:
    """The model's tensors as they are evaluated."""
    return session.model.state_dict() | (session.strategy.deploy() or {})


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture
def untrained(pairs: Job, drive: Drive) -> dict[str, Tensor]:
    """The weights before the stream."""
    return drive("finetune", {"steps": 1, "lr": 0.0, "weight_decay": 0.0}, job=pairs).model.state_dict()


def settings(name: str, **more: Any) -> dict[str, Any]:
    return {**({} if name == "gdumb" else {"steps": 3}), **FEW.get(name, {}), **more}


@pytest.mark.parametrize("name", [n if n in IN_SHORT else pytest.param(n, marks=SLOW) for n in FEW])
def test_a_strategy_of_images_and_text_learns_from_pairs(name: str, pairs: Job, drive: Drive) -> None:
    session = drive(name, settings(name), job=pairs)
    rows = [row for row in session.table.table if row.kind == "boundary" and row.tasks_seen == 2]
    assert {row.eval_set for row in rows} == {"task0", "task1", "colours", "stripes", "columns"}
    assert all(row.value is not None and 0 <= row.value <= 1 for row in rows)
    found = {key.replace(".base_layer", ""): value for key, value in deployed(session).items()}
    assert all(torch.isfinite(value).all() for value in found.values() if value.is_floating_point())
    start = drive("finetune", {"steps": 1, "lr": 0.0, "weight_decay": 0.0}, job=pairs).model.state_dict()
    moved = [key for key, value in start.items() if not torch.equal(value, found[key])]
    assert any("visual" in key for key in moved) and any(key.startswith("backbone.transformer") for key in moved)


@pytest.mark.parametrize("name", ["nmc", "slca", "icarl", "lae"])
def test_methods_with_a_classifier_are_refused(name: str, pairs: Job, drive: Drive) -> None:
    with pytest.raises(UserError, match="works with classification"):
        drive(name, job=pairs)


@pytest.mark.parametrize("name", [n if n in ("der", "lwf", "ema-merge") else pytest.param(n, marks=SLOW) for n in ZERO])
def test_at_zero_strength_it_is_finetuning_bit_for_bit(name: str, pairs: Job, drive: Drive) -> None:
    expected = drive("finetune", {"steps": 3}, job=pairs).model.state_dict()
    assert same(deployed(drive(name, {"steps": 3, **ZERO[name]}, job=pairs)), expected)


@pytest.mark.parametrize("tune", ["full", pytest.param("lora:2", marks=SLOW)])
@pytest.mark.parametrize(
    "name", [n if n in ("der", "ema-merge", "codyra") else pytest.param(n, marks=SLOW) for n in FEW]
)
def test_an_interrupted_run_ends_with_the_same_bits(
    name: str, tune: str, pairs: Job, drive: Drive, tmp_path: Path
) -> None:
    """Stopped within the first task and within the second."""
    if tune != "full" and name in ("codyra", "sora", "adalora"):
        pytest.skip("it decides itself what trains")
    job = {**pairs, "tune": tune}
    whole = drive(name, settings(name), job=job)
    folder = tmp_path / "stopped"
    for stop_at in (2, 2):
        torch.rand(3)
        with pytest.raises(Interrupted):
            drive(name, settings(name), job=job, stop_at=stop_at, folder=folder)
    again = drive(name, settings(name), job=job, folder=folder)
    assert same(whole.model.state_dict(), again.model.state_dict()) and same(deployed(whole), deployed(again))
    assert list(whole.table.table) == list(again.table.table) and whole.diagnostics == again.diagnostics


# -- outputs and weights that are kept ---------------------------------------------------------------------------------


def test_der_keeps_both_embeddings(pairs: Job, drive: Drive) -> None:
    session = drive("der", settings("der"), job=pairs)
    kept = session.strategy.state.memory.all().extra["outputs"]
    width = session.model.feature_dim  # type: ignore[union-attr]
    assert kept.shape == (8, 2 * width)
    torch.testing.assert_close(kept.unflatten(1, (2, -1)).norm(dim=-1), torch.ones(8, 2))


@pytest.mark.parametrize(("mode", "still"), [("locked-image", "visual"), ("locked-text", "transformer")])
def test_a_locked_tower_does_not_move(
    mode: str, still: str, pairs: Job, drive: Drive, untrained: dict[str, Tensor]
) -> None:
    session = drive("ema-merge", {"steps": 3}, job={**pairs, "tune": mode})
    locked = session.model.tower(mode.removeprefix("locked-"))  # type: ignore[union-attr, operator]
    found = deployed(session)
    assert any(still in name for name in locked)
    assert all(torch.equal(found[name], untrained[name]) for name in locked)
    others = untrained.keys() - locked
    assert any(not torch.equal(found[name], untrained[name]) for name in others if name in found)


# -- merging -----------------------------------------------------------------------------------------------------------


@pytest.mark.oracle("ema-merge", "of images and texts: all weight on the old deploys theta0, none is finetuning")
def test_a_moving_average_at_its_ends(pairs: Job, drive: Drive, untrained: dict[str, Tensor]) -> None:
    old = drive("ema-merge", {"weight": 1, "steps": 3}, job=pairs)
    assert same(deployed(old), untrained) and not same(old.model.state_dict(), untrained)
    new = drive("ema-merge", {"weight": 0, "steps": 3}, job=pairs)
    assert same(deployed(new), drive("finetune", {"steps": 3}, job=pairs).model.state_dict())


@pytest.mark.oracle("soup", "of images and texts: the mean of identical checkpoints is that checkpoint, bit for bit")
def test_the_mean_of_identical_checkpoints(pairs: Job, drive: Drive, untrained: dict[str, Tensor]) -> None:
    found = drive("soup", {"steps": 2, "lr": 0.0, "weight_decay": 0.0}, job=pairs)
    assert same(deployed(found), untrained)


@pytest.mark.oracle("greedy-soup", "of images and texts: on held-out data at least as good as the best checkpoint")
def test_the_greedy_soup_is_no_worse_than_the_best_checkpoint(pairs: Job, drive: Drive) -> None:
    session = drive("greedy-soup", {"steps": 4, "held_out": 0.4, "memory_size": 16}, job=pairs)
    strategy: Any = session.strategy
    final = deployed(session)
    alone = [strategy.score(weights) for weights in strategy.state.checkpoints]
    chosen, soup, score = strategy.greedy()
    assert chosen == strategy.state.chosen and score == strategy.score(soup) >= max(alone) == alone[chosen[0]]
    assert same({name: final[name] for name in soup}, soup)


@pytest.mark.oracle("ties", "of images and texts: one untrimmed vector is task arithmetic, bit for bit")
@pytest.mark.oracle("dare", "of images and texts: nothing dropped is task arithmetic, bit for bit")
def test_rules_of_task_vectors_meet(pairs: Job, drive: Drive) -> None:
    """Most entries of a vector are zero, those of words that no caption has: trimming begins below their share."""

    def run(name: str, **rule: Any) -> Session:
        return drive(name, {"steps": 2, "scale": 0.7, **rule}, job=pairs)

    def of_one(session: Session) -> dict[str, Tensor]:
        session.strategy.state.vectors = []
        return deployed(session)

    plain, nothing_dropped = run("task-arithmetic"), run("dare", drop=0)
    assert same(deployed(plain), deployed(nothing_dropped))
    one = of_one(plain)
    assert same(of_one(run("ties", density=1)), one) and not same(of_one(run("ties", density=1e-3)), one)


def test_the_scale_is_in_the_merge_or_out_of_it(pairs: Job, drive: Drive, untrained: dict[str, Tensor]) -> None:
    """`merge_only` says which: it is in by default."""
    inside = drive("ema-merge", {"weight": 1, "steps": 3}, job=pairs)
    outside = drive("ema-merge", {"weight": 1, "steps": 3, "merge_only": "^(?!.*logit_)"}, job=pairs)
    trained = outside.model.state_dict()[SCALE]
    assert not torch.equal(trained, untrained[SCALE])
    assert torch.equal(deployed(inside)[SCALE], untrained[SCALE]) and torch.equal(deployed(outside)[SCALE], trained)
    rest = untrained.keys() - {SCALE}
    assert all(torch.equal(deployed(outside)[name], untrained[name]) for name in rest)


# -- ranks -------------------------------------------------------------------------------------------------------------


@pytest.mark.oracle("codyra", "of images and texts: without thresholds all layers of both towers keep rank 16")
def test_without_thresholds_every_rank_is_full(pairs: Job, drive: Drive) -> None:
    session = drive("codyra", {"steps": 4, "kappa_max": 0}, job=pairs)
    for told in session.diagnostics:
        ranks = told["values"]["effective_rank"]
        towers = [name.startswith("visual.") for name in ranks]
        assert set(ranks.values()) == {16} and towers.count(True) == towers.count(False) == 6


@pytest.mark.oracle(
    "codyra", "of images and texts: with no gradient 8.2 +- 0.3 of 16 components are left, as of the control"
)
def test_without_a_gradient_the_draws_decide(pairs: Job, drive: Drive) -> None:
    """The published schedule, at 1,024 components a layer, so that chance has little to say."""
    left: dict[str, dict[str, int]] = {}
    for selection in ("learned", "random"):
        session = drive("codyra", {"steps": 1, "rank": 1024, "selection": selection}, job=pairs)
        strategy: Any = session.strategy
        torch.manual_seed(3)
        with torch.no_grad():
            strategy.begin_task(session.stream.tasks[0])
            for step in range(500):
                if threshold(step, 500, 0.005, 50, 0.5) is not None:
                    strategy.reweigh(step, 500)
        left[selection] = {name: int(part.w.count_nonzero()) for name, part in components(session.model).items()}
    assert left["learned"] == left["random"] and len(left["learned"]) == 12
    for tower in ("visual.", "transformer."):
        kept = [n for name, n in left["learned"].items() if name.startswith(tower)]
        assert 16 * sum(kept) / (1024 * len(kept)) == pytest.approx(8.2, abs=0.3)
