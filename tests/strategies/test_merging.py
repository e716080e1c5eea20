"""Merging along a stream: identities between the rules, growing heads, buffers, adapters, and resuming."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clbench.engine.session import Session
from clbench.errors import Interrupted, UserError
from clbench.registry import load_strategy
from clbench.state import pack

Drive = Callable[..., Session]
SLOW = pytest.mark.slow
NAMES = ("ema-merge", "ft-merge", "zs-merge", "wise-ft", "soup", "greedy-soup", "task-arithmetic", "ties", "dare")
QUICKER = (
    "ft-merge",
    "zs-merge",
    "wise-ft",
    "soup",
    "task-arithmetic",
    "ties",
)  # nothing to save that the others have not
UNEQUAL = {
    "stream": "split-digits",
    "backbone": "mlp:16x1",
    "stream_settings": {"train_per_class": 20, "sizes": [3, 5, 2]},
}
KNOWN_TASK = {**UNEQUAL, "stream_settings": {"train_per_class": 20, "sizes": [3, 5, 2], "scenario": "task"}}
ROTATED = {"stream": "rotated-digits", "backbone": "mlp:16x1", "stream_settings": {"tasks": 3}}
TEXT = {
    "stream": "text-shift",
    "backbone": "byte-gpt?d=16,layers=1,ctx=16",
    "stream_settings": {"context": 16, "tokens": 800, "eval_blocks": 16},
}
ROWS = (slice(0, 3), slice(3, 8), slice(8, 10))
BLURRED = {
    **UNEQUAL,
    "stream_settings": {"train_per_class": 20, "sizes": [3, 5, 2], "disjoint": 0.5, "blur": 0.2},
}
ONE_TASK = {**UNEQUAL, "stream_settings": {"train_per_class": 20, "sizes": [10]}}
SEEN = {"loss_over": "seen"}
PULLING = {"momentum": 0.9, "weight_decay": 0.1, "optimizer_state": "keep"}
NORMED = {**UNEQUAL, "backbone": "slim-resnet18?width=2"}


def deployed(session: Session) -> dict[str, Tensor]:
    """The model's tensors as they are evaluated."""
    return session.model.state_dict() | (session.strategy.deploy() or {})


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.fixture
def checkpoints(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """What every task of a run of `soup` or `ema-merge` ended with, but the last."""
    found: list[dict[str, Tensor]] = []
    for name in ("soup", "ema-merge"):
        kind = load_strategy(name)
        fold = kind.fold

        def noted(self: Any, trained: dict[str, Tensor], fold: Any = fold) -> None:
            found.append({key: value.clone() for key, value in trained.items()})
            fold(self, trained)

        monkeypatch.setattr(kind, "fold", noted)
    return found


# -- identities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "job"),
    [("ema-merge", {"weight": 0, "steps": 2}, "text"), ("wise-ft", {"alpha": 1, **SEEN}, "images")],
)
@pytest.mark.oracle("ema-merge", "no weight on the old: finetuning, bit for bit")
def test_without_weight_on_the_old_it_is_finetuning(
    name: str, settings: dict[str, Any], job: str, drive: Drive
) -> None:
    chosen = TEXT if job == "text" else UNEQUAL
    same_length = {"steps": settings["steps"]} if "steps" in settings else {}
    expected = drive("finetune", same_length, job=chosen).model.state_dict()
    session = drive(name, settings, job=chosen)
    assert same(session.model.state_dict(), expected)
    assert same(deployed(session), expected)


@pytest.mark.parametrize(
    "name", ["ema-merge", pytest.param("ft-merge", marks=SLOW), pytest.param("zs-merge", marks=SLOW)]
)
@pytest.mark.oracle("ema-merge", "all weight on the old deploys theta0, bit for bit")
def test_all_weight_on_the_old_deploys_theta0(name: str, drive: Drive) -> None:
    """On a stream that knows its classes the deployed scores never change; the trained ones do."""
    session = drive(name, {"weight": 1}, job=ROTATED)
    rows = [r for r in session.table.table if r.metric == "accuracy"]
    for eval_set in {r.eval_set for r in rows}:
        assert len({r.value for r in rows if r.eval_set == eval_set and r.weights == "deploy"}) == 1
    assert len({r.value for r in rows if r.weights == "train"}) > 2


@pytest.mark.oracle("ema-merge", "a class's row enters the average as it was after its first task")
def test_rows_of_new_classes_are_not_mixed_with_untrained_values(
    drive: Drive, checkpoints: list[dict[str, Tensor]]
) -> None:
    session = drive("ema-merge", {"weight": 1}, job=UNEQUAL)
    final, trained = deployed(session), session.model.state_dict()
    head, after_first, after_second = "head.weight", *(c["head.weight"] for c in checkpoints)
    assert [len(after_first), len(after_second), len(final[head])] == [3, 8, 10]
    assert torch.equal(final[head][:3], after_first)
    assert torch.equal(final[head][3:8], after_second[3:8])
    assert torch.equal(final[head][8:], trained[head][8:])


@pytest.mark.parametrize("init", ["theta0", "last"])
@pytest.mark.oracle("soup", "the mean of all checkpoints, but each class's row as its own task trained it, bit for bit")
def test_a_class_s_row_is_averaged_over_its_own_tasks(
    init: str, drive: Drive, checkpoints: list[dict[str, Tensor]]
) -> None:
    session = drive("soup", {"init": init, **PULLING}, job=UNEQUAL)
    members = [*checkpoints, session.model.state_dict()]
    final = deployed(session)
    for name, value in final.items():
        if name.startswith("backbone"):
            torch.testing.assert_close(value, torch.stack([m[name] for m in members]).mean(0))
        else:
            own = [member[name][rows] for member, rows in zip(members, ROWS, strict=True)]
            assert torch.equal(value, torch.cat(own))


@pytest.mark.oracle("ema-merge", "a task's training leaves the rows of other tasks' classes as they were")
def test_rows_of_other_classes_stand_still(drive: Drive, checkpoints: list[dict[str, Tensor]]) -> None:
    """Against momentum that is kept and weight decay; the merge, too, leaves them alone."""
    session = drive("ema-merge", {"weight": 0.5, **PULLING}, job=UNEQUAL)
    first, second, last = (m["head.weight"] for m in [*checkpoints, session.model.state_dict()])
    assert torch.equal(second[:3], first)
    assert torch.equal(last[:8], second)
    assert torch.equal(deployed(session)["head.weight"], last)


@pytest.mark.oracle("soup", "a class that comes again: the mean over the tasks that had it")
def test_a_class_that_comes_again_is_averaged_over_its_tasks(
    drive: Drive, checkpoints: list[dict[str, Tensor]]
) -> None:
    session = drive("soup", {"init": "last"}, job=BLURRED)
    members = [*checkpoints, session.model.state_dict()]
    weight = deployed(session)["head.weight"]
    votes = [[task.index for task in session.stream.tasks if c in task.classes] for c in range(10)]
    assert {len(tasks) for tasks in votes} > {1}
    for c, tasks in enumerate(votes):
        torch.testing.assert_close(weight[c], torch.stack([members[i]["head.weight"][c] for i in tasks]).mean(0))


@pytest.mark.parametrize("name", ["task-arithmetic", "ties", "dare"])
def test_new_rows_are_deployed_as_their_tasks_trained_them(name: str, drive: Drive) -> None:
    """theta0 lacks them: no vector to scale, trim or drop. From each task's start on, rows stand still afterwards."""
    session = drive(name, {"init": "last", **PULLING}, job=UNEQUAL)
    final, trained = deployed(session), session.model.state_dict()
    assert torch.equal(final["head.weight"], trained["head.weight"])
    assert torch.equal(final["head.bias"], trained["head.bias"])
    assert all(len(vector["head.weight"]) == 0 for vector in session.strategy.state.vectors)


def test_over_all_classes_seen_rows_are_averaged_since_their_class_arrived(
    drive: Drive, checkpoints: list[dict[str, Tensor]]
) -> None:
    session = drive("soup", SEEN, job=UNEQUAL)
    members = [*checkpoints, session.model.state_dict()]
    final = deployed(session)
    for since, rows in enumerate(ROWS):
        expected = torch.stack([m["head.weight"][rows] for m in members[since:]]).mean(0)
        torch.testing.assert_close(final["head.weight"][rows], expected)


@pytest.mark.oracle("zs-merge", "every task starts from theta0")
@pytest.mark.parametrize("name", ["task-arithmetic", pytest.param("dare", marks=SLOW)])
def test_from_theta0_both_origins_are_one(name: str, drive: Drive) -> None:
    """A task's start is theta0, new rows included; were it not, the two vectors would differ."""
    settings = {"scale": 0.5}
    first = drive(name, settings, job=UNEQUAL)
    second = drive(name, {**settings, "origin": "task_start"}, job=UNEQUAL)
    assert same(deployed(first), deployed(second))
    assert same(first.model.state_dict(), second.model.state_dict())


@pytest.mark.parametrize("init", ["last", "merged"])
@pytest.mark.oracle("task-arithmetic", "vectors from each task's start telescope to the trained weights")
def test_vectors_from_task_starts_add_up_to_the_trained_weights(init: str, drive: Drive) -> None:
    session = drive("task-arithmetic", {"init": init, "origin": "task_start", "scale": 1}, job=UNEQUAL)
    close(deployed(session), session.model.state_dict())
    other = deployed(drive("task-arithmetic", {"init": init, "origin": "theta0", "scale": 1}, job=UNEQUAL))
    name = "backbone.layers.0.weight"
    assert not torch.allclose(other[name], deployed(session)[name], atol=1e-3)


@pytest.mark.oracle("ties", "one vector at density 1: task arithmetic, bit for bit")
def test_one_untrimmed_vector_is_task_arithmetic(drive: Drive) -> None:
    job = ONE_TASK
    expected = deployed(drive("task-arithmetic", {"scale": 0.7}, job=job))
    assert same(deployed(drive("ties", {"scale": 0.7, "density": 1}, job=job)), expected)
    assert not same(deployed(drive("ties", {"scale": 0.7, "density": 0.5}, job=job)), expected)


@pytest.mark.oracle("dare", "nothing dropped: task arithmetic, bit for bit")
def test_dropping_nothing_is_task_arithmetic(drive: Drive) -> None:
    expected = deployed(drive("task-arithmetic", job=UNEQUAL))
    assert same(deployed(drive("dare", {"drop": 0, "scale": 0.3}, job=UNEQUAL)), expected)
    assert not same(deployed(drive("dare", {"drop": 0.5, "scale": 0.3}, job=UNEQUAL)), expected)


@pytest.mark.oracle("dare", "electing signs with nothing dropped: TIES without trimming")
def test_dare_with_election_is_ties_without_trimming(drive: Drive) -> None:
    expected = deployed(drive("ties", {"density": 1, "scale": 1}, job=UNEQUAL))
    assert same(deployed(drive("dare", {"drop": 0, "combine": "elect", "scale": 1}, job=UNEQUAL)), expected)


@pytest.mark.oracle("wise-ft", "EMA-merge with the other weight")
def test_wise_ft_along_a_stream_is_a_moving_average(drive: Drive) -> None:
    wise, ema = drive("wise-ft", job=UNEQUAL), drive("ema-merge", {"weight": 0.2}, job=UNEQUAL)
    close(deployed(wise), deployed(ema))
    initial = drive("wise-ft", {"reference": "theta0", "alpha": 0.5}, job=UNEQUAL)
    close(deployed(initial), deployed(drive("ft-merge", {"weight": 0.5}, job=UNEQUAL)))


@pytest.mark.parametrize(
    ("name", "settings"),
    [("ties", {}), ("task-arithmetic", {}), pytest.param("dare", {"combine": "elect"}, marks=SLOW)],
)
def test_a_running_merge_keeps_one_vector(name: str, settings: dict[str, Any], drive: Drive) -> None:
    session = drive(name, {**settings, "merge_of": "running"}, job=UNEQUAL)
    assert len(session.strategy.state.vectors) == 1
    whole = drive(name, {**settings, "merge_of": "all"}, job=UNEQUAL)
    assert len(whole.strategy.state.vectors) == (1 if name == "task-arithmetic" else 2)


# -- what is merged --------------------------------------------------------------------------------------------------


def test_running_statistics_are_averaged_and_counters_are_not(
    drive: Drive, checkpoints: list[dict[str, Tensor]]
) -> None:
    session = drive("ema-merge", {"weight": 0.5, "init": "last", "steps": 2}, job=NORMED)
    trained, final = session.model.state_dict(), deployed(session)
    variance = next(name for name in trained if name.endswith("running_var"))
    initial = torch.ones_like(trained[variance])
    first, second = (c[variance] for c in checkpoints)
    torch.testing.assert_close(final[variance], initial / 8 + first / 8 + second / 4 + trained[variance] / 2)
    counter = next(name for name in trained if name.endswith("num_batches_tracked"))
    assert final[counter] == trained[counter] > 0
    assert counter not in (session.strategy.deploy() or {})


@pytest.mark.parametrize("name", ["ties"])
def test_sums_of_vectors_leave_running_statistics_alone(name: str, drive: Drive) -> None:
    session = drive(name, {"scale": 2, "steps": 2}, job=NORMED)
    parameters = {n for n, _ in session.model.named_parameters()}
    assert set(session.strategy.deploy() or {}) == parameters


@pytest.mark.parametrize("name", ["ema-merge", "ties"])
def test_chosen_parameters_alone(name: str, drive: Drive) -> None:
    session = drive(name, {"merge_only": "^backbone", "init": "last"}, job=UNEQUAL)
    assert all(key.startswith("backbone") for key in session.strategy.deploy() or {})
    assert same(session.model.state_dict(), drive("soup", {"init": "last"}, job=UNEQUAL).model.state_dict())


def test_patterns_that_cannot_be_meant(drive: Drive) -> None:
    with pytest.raises(UserError, match="matches no parameter"):
        drive("soup", {"merge_only": "logit_scale"}, job=UNEQUAL)
    with pytest.raises(UserError, match="not a regular expression"):
        drive("soup", {"merge_only": "("}, job=UNEQUAL)


@pytest.mark.parametrize("name", ["ema-merge", "ties"])
def test_adapters_are_merged(name: str, drive: Drive) -> None:
    session = drive(name, {"steps": 2}, job=TEXT, tune="lora:2")
    weights = session.strategy.deploy()
    assert weights and all(".lora_" in key for key in weights)
    trained = session.model.state_dict()
    assert any(not torch.equal(value, trained[key]) for key, value in weights.items())


@SLOW
def test_adapters_of_an_image_model_with_all_weight_on_the_old(drive: Drive) -> None:
    job = {**ROTATED, "backbone": "timm:vit_tiny_patch16_224?img_size=32,patch_size=8,embed_dim=24,depth=1,num_heads=3"}
    session = drive("ema-merge", {"weight": 1, "steps": 2}, job=job, tune="lora:2")
    weights = session.strategy.deploy()
    assert weights and {".lora_" in key or key.startswith("head.") for key in weights} == {True}
    assert all(float(value.abs().sum()) == 0 for key, value in weights.items() if ".lora_B" in key)


# -- greedy soup -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", ["images", pytest.param("text", marks=SLOW), pytest.param("task", marks=SLOW)])
@pytest.mark.oracle("greedy-soup", "on held-out data at least as good as the best checkpoint")
def test_the_greedy_soup_is_no_worse_than_the_best_checkpoint(job: str, drive: Drive) -> None:
    chosen = {"images": UNEQUAL, "text": TEXT, "task": KNOWN_TASK}[job]
    session = drive("greedy-soup", {"held_out": 0.3, "memory_size": 60, "init": "last"}, job=chosen)
    strategy: Any = session.strategy
    final = deployed(session)
    alone = [strategy.score(weights) for weights in strategy.state.checkpoints]
    found, soup, score = strategy.greedy()
    assert found == strategy.state.chosen
    assert score == strategy.score(soup) >= max(alone)
    assert alone[found[0]] == max(alone)
    assert strategy.score({name: final[name] for name in soup}) == score


def test_what_is_held_out_is_not_trained_on(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = load_strategy("greedy-soup")
    trained: set[int] = set()
    held: set[int] = set()
    monkeypatch.setattr(kind, "after_step", lambda self, batch: trained.update(batch.index.tolist()))
    collect = kind.collect

    def noted(self: Any, batch: Any) -> None:
        held.update(batch.index.tolist())
        collect(self, batch)

    monkeypatch.setattr(kind, "collect", noted)
    session = drive("greedy-soup", {"held_out": 0.25, "memory_size": 20}, job=UNEQUAL)
    assert len(held) == 50 and len(trained) == 150
    assert not held & trained
    assert len(session.strategy.state.memory) <= 20


# -- the frame -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["soup", "greedy-soup"])
def test_both_kinds_of_weights_are_scored(name: str, drive: Drive) -> None:
    session = drive(name, job=UNEQUAL)
    rows = [r for r in session.table.table if r.value is not None]
    counts = [len([r for r in rows if r.weights == weights]) for weights in ("deploy", "train")]
    assert counts[0] == counts[1] > 0


def test_the_weights_last_trained_can_be_deployed(drive: Drive) -> None:
    session = drive("ema-merge", {"deploy": "last"}, job=UNEQUAL)
    assert session.strategy.deploy() is None


@pytest.mark.parametrize("name", [pytest.param(n, marks=SLOW if n in QUICKER else ()) for n in NAMES])
def test_an_interrupted_run_ends_with_the_same_bits(name: str, drive: Drive, tmp_path: Path) -> None:
    settings = {"batch_size": 20, **({"combine": "elect"} if name == "dare" else {})}
    whole = drive(name, settings, job=UNEQUAL)
    folder = tmp_path / "stopped"
    for stop_at in (2, whole.step // 2):
        with pytest.raises(Interrupted):
            drive(name, settings, job=UNEQUAL, stop_at=stop_at, folder=folder)
    again = drive(name, settings, job=UNEQUAL, folder=folder)
    assert same(tensors(again), tensors(whole))
    assert same(deployed(again), deployed(whole))
    assert list(whole.table.table) == list(again.table.table)


def tensors(session: Session) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, value in vars(session.strategy.state).items():
        pack(value, name, found)
    return found | session.model.state_dict()
