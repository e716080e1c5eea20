"""LAE: two experts that agree at first, a slow average, a frozen backbone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from clbench.engine.session import Session
from clbench.errors import Interrupted, UserError
from clbench.models.pet import pet_parameters
from clbench.samples import Batch
from clbench.state import pack
from clbench.strategies.lae import LAE
from clbench.stream import Task

Drive = Callable[..., Session]
Tensors = dict[str, Tensor]
VIT = "timm:vit_tiny_patch16_224?img_size=32,patch_size=16,embed_dim=24,depth=2,num_heads=2"
JOB = {"stream": "split-digits", "backbone": VIT, "stream_settings": {"train_per_class": 12, "sizes": [3, 5, 2]}}
QUICK = {"batch_size": 12, "epochs": 2, "freeze": 0.5, "lr": 0.02}


def tensors(session: Session) -> Tensors:
    found: Tensors = {}
    pack(vars(session.strategy.state), "", found)
    return found | session.model.state_dict()


def copied(values: dict[str, Any]) -> Tensors:
    return {name: p.detach().clone() for name, p in values.items()}


def images(session: Session) -> Tensor:
    samples = session.stream.tasks[0].train
    return session.services.batch(samples, torch.arange(20), "plain").x


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Tensors, Tensors]]:
    """(when, online, offline) after each `begin_task` and each step of the runs that follow."""
    seen: list[tuple[str, Tensors, Tensors]] = []

    def record(when: str, strategy: LAE) -> None:
        seen.append((when, copied(pet_parameters(strategy.model)), copied(strategy.state.offline)))

    def begin_task(self: LAE, task: Task, original: Any = LAE.begin_task) -> None:
        original(self, task)
        record(f"task {task.index}", self)

    def after_step(self: LAE, batch: Batch, original: Any = LAE.after_step) -> None:
        original(self, batch)
        record("step", self)

    monkeypatch.setattr(LAE, "begin_task", begin_task)
    monkeypatch.setattr(LAE, "after_step", after_step)
    return seen


@pytest.mark.oracle(
    "lae", "the offline modules are the average that n steps give in closed form, frozen steps included"
)
def test_the_offline_modules(drive: Drive, modules: list[tuple[str, Tensors, Tensors]]) -> None:
    session = drive("lae", {**QUICK, "ema": 0.9}, job=JOB)
    starts = {when: i for i, (when, _, _) in enumerate(modules) if when != "step"}
    first = modules[: starts["task 1"]]
    assert all(not offline for _, _, offline in first)
    _, online, offline = modules[starts["task 1"]]
    assert online.keys() == offline.keys() and all(torch.equal(online[name], offline[name]) for name in online)

    history = [online for when, online, _ in modules[starts["task 1"] :] if when == "step"]
    assert len(history) == 2 * 5 + 2 * 2
    for name, start in offline.items():
        n = len(history)
        expected = 0.9**n * start.double() + sum(0.1 * 0.9 ** (n - 1 - i) * h[name] for i, h in enumerate(history))
        torch.testing.assert_close(session.strategy.state.offline[name].double(), expected, rtol=1e-4, atol=1e-6)

    last = [online for _, online, _ in modules[starts["task 2"] :]]  # two frozen steps, two others
    moved = [any(not torch.equal(a[name], b[name]) for name in a) for a, b in pairwise(last)]
    assert moved == [False, False, True, True]
    assert any(not torch.equal(first[0][1][name], first[1][1][name]) for name in online)  # not frozen in the first task


@pytest.mark.oracle("lae", "both experts give the same scores when the second task begins")
@pytest.mark.parametrize("pet", ["adapter", "lora", "prefix"])
def test_at_the_start_of_the_second_task_the_experts_agree(
    pet: str, drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores: dict[int, list[Tensor]] = {}

    def begin_task(self: LAE, task: Task, original: Any = LAE.begin_task) -> None:
        original(self, task)
        self.model.eval()
        x = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        found = []
        for expert in ("online", "offline"):
            monkeypatch.setattr(self, "config", self.config.model_copy(update={"expert": expert}))
            with torch.no_grad():
                found.append(self.predict(x))
        scores[task.index] = found
        self.model.train()

    monkeypatch.setattr(LAE, "begin_task", begin_task)
    drive("lae", {**QUICK, "pet": pet, "ema": 0.5}, job=JOB)
    assert scores[0][0].shape == (8, 3) and scores[1][0].shape == (8, 8)
    assert torch.equal(*scores[1])
    assert not torch.allclose(*scores[2], atol=1e-4)


@pytest.mark.oracle("lae", "without averaging (ema = 0) it is its online expert alone")
def test_without_averaging_it_is_the_online_expert(drive: Drive) -> None:
    both = drive("lae", {**QUICK, "ema": 0}, job=JOB)
    online = drive("lae", {**QUICK, "ema": 0, "expert": "online"}, job=JOB)
    averaged = drive("lae", {**QUICK, "ema": 0.9, "expert": "online"}, job=JOB)
    x = images(both)
    for other in (online, averaged):
        assert all(torch.equal(v, other.model.state_dict()[k]) for k, v in both.model.state_dict().items())
        assert [row.value for row in other.table.table] == [row.value for row in both.table.table]
    assert torch.equal(both.strategy.predict(x), online.strategy.predict(x))


@pytest.mark.oracle("lae", "scores are the larger of both experts' probabilities; predicting changes no weight")
def test_the_ensemble(drive: Drive) -> None:
    session = drive("lae", {**QUICK, "ema": 0.9}, job=JOB)
    model, x = session.model.eval(), images(session)
    before = copied(model.state_dict())
    with torch.no_grad():
        found = session.strategy.predict(x)
        online = model(x).softmax(1)
        offline = functional_call(model, session.strategy.state.offline, (x,)).softmax(1)
    assert found.shape == (20, 10)
    assert torch.equal(found, torch.where(online > offline, online, offline))
    assert not torch.allclose(online, offline, atol=1e-4)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_only_the_head_and_the_modules_move(drive: Drive) -> None:
    whole = drive("lae", QUICK, job=JOB)
    still = drive("lae", {**QUICK, "lr": 0.0}, job=JOB)
    same = {k: torch.equal(v, still.model.state_dict()[k]) for k, v in whole.model.state_dict().items()}
    assert {k for k, equal in same.items() if not equal} == {*pet_parameters(whole.model), "head.weight", "head.bias"}


def test_old_rows_of_the_head_rest(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Tensor] = []
    original: Any = LAE.end_task

    def end_task(self: LAE, task: Task) -> None:
        original(self, task)
        rows.append(self.model.head.weight.detach().clone())  # type: ignore[union-attr, operator]

    monkeypatch.setattr(LAE, "end_task", end_task)
    drive("lae", QUICK, job=JOB)
    assert torch.equal(rows[2][:8], rows[1]) and torch.equal(rows[1][:3], rows[0])


@pytest.mark.parametrize(("unit", "whole"), [({"epochs": 3}, [9, 21]), ({"steps": 5}, [5, 5])])
def test_lengths_of_the_frozen_part(unit: dict[str, Any], whole: list[int], drive: Drive) -> None:
    """Three steps in an epoch of the first task, seven in one of the second: both parts together are the whole."""
    job = {**JOB, "stream_settings": {"train_per_class": 12, "sizes": [3, 7]}}
    for freeze, frozen in ((0, 0), (0.6, round(0.6 * whole[1])), (1, whole[1])):
        session = drive("lae", {**QUICK, **unit, "freeze": freeze}, job=job)
        first, second = (session.strategy.phases(task) for task in session.stream.tasks)
        assert [(p.name, p.optimizer_state) for p in first] == [("tune", "reset")]
        expected = [("head", "reset")] if frozen else []
        expected += [("tune", "keep" if frozen else "reset")] if frozen < whole[1] else []
        assert [(p.name, p.optimizer_state) for p in second] == expected
        assert session.step == sum(whole)
        assert not frozen or second[0].steps == frozen


def test_new_rows_of_the_head_start_near_zero(drive: Drive) -> None:
    """As in the official code: N(0, 0.001^2), biases zero; the sum of a task's rows then hardly ever moves."""
    job = {**JOB, "backbone": VIT.replace("embed_dim=24", "embed_dim=192")}
    head: Any = drive("lae", {**QUICK, "lr": 0.0}, job=job).model.head
    assert 0.0009 < head.weight.std() < 0.0011 and not head.bias.any()
    head = drive("lae", {**QUICK, "lr": 0.0, "head_std": None}, job=job).model.head
    assert head.weight.std() > 0.03 and head.bias.any()


@pytest.mark.parametrize("pet", ["lora", "prefix"])
def test_an_interrupted_run_ends_with_the_same_bits(pet: str, drive: Drive, tmp_path: Path) -> None:
    """Stopped in the first task, in the frozen and in the other phase of the second, and in the third."""
    settings = {**QUICK, "pet": pet, "ema": 0.9}
    whole = drive("lae", settings, job=JOB)
    folder = tmp_path / "stopped"
    for stop_at in (2, 6, 5, 3):
        with pytest.raises(Interrupted):
            drive("lae", settings, job=JOB, stop_at=stop_at, folder=folder)
    again = drive("lae", settings, job=JOB, folder=folder)
    expected, found = tensors(whole), tensors(again)
    assert expected.keys() == found.keys() and len(expected) > len(whole.model.state_dict())
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert list(whole.table.table) == list(again.table.table)


def test_domains(drive: Drive) -> None:
    """The same classes again: all of them are the task's own."""
    job = {"stream": "permuted-digits", "backbone": VIT, "stream_settings": {"tasks": 2}}
    session = drive("lae", {"steps": 3, "batch_size": 8, "ema": 0.9}, job=job)
    assert session.strategy.predict(images(session)).shape == (20, 10)


def test_a_backbone_without_transformer_is_refused(drive: Drive) -> None:
    with pytest.raises(UserError, match=r"LAE needs a timm vision transformer.*--backbone"):
        drive("lae", QUICK, job={**JOB, "backbone": "mlp:8x1"})


def test_a_head_without_parameters_is_refused(drive: Drive) -> None:
    with pytest.raises(UserError, match="LAE trains the head: use --head linear or cosine"):
        drive("lae", QUICK, job={**JOB, "head": "prototype"})
