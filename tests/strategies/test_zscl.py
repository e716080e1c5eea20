"""ZSCL: nothing to distil where nothing has moved, a plain running mean, and finetuning at zero."""

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
from clbench.samples import Batch

Drive = Callable[..., Session]
Job = dict[str, Any]
TEXT = {
    "stream": "text-shift",
    "backbone": "byte-gpt?d=16,layers=1,ctx=16",
    "stream_settings": {"context": 16, "tokens": 800, "eval_blocks": 16},
}
NOTHING = {"distillation": 0, "l2": 0, "average_every": 0, "train_scale": True}


@pytest.fixture
def pairs(pairs_stream: Any, tmp_path: Path) -> Job:
    job: Job = pairs_stream.job(tmp_path)
    return job


def deployed(session: Session) -> dict[str, Tensor]:
    return session.model.state_dict() | (session.strategy.deploy() or {})


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.oracle("zscl", "at zero weights, without an average: finetuning, bit for bit")
@pytest.mark.parametrize("kind", ["pairs", "text"])
def test_with_nothing_on_it_is_finetuning(kind: str, pairs: Job, drive: Drive) -> None:
    job = pairs if kind == "pairs" else TEXT
    found = drive("zscl", {**NOTHING, "steps": 3}, job=job)
    assert same(deployed(found), drive("finetune", {"steps": 3}, job=job).model.state_dict())


@pytest.mark.oracle(
    "zscl", "no gradient of the distillation while the model is its teacher, and one as soon as it moves"
)
@pytest.mark.parametrize("texts", ["initial", "current"])
def test_the_teacher_itself_has_nothing_to_learn(texts: str, pairs: Job, drive: Drive) -> None:
    session = drive("zscl", {"steps": 1, "lr": 0.0, "weight_decay": 0.0, "texts": texts}, job=pairs)
    strategy: Any = session.strategy
    parameters = [p for name, p in session.model.named_parameters() if strategy.is_trained(name)]

    def gradients() -> list[Tensor | None]:
        value = strategy.divergence(strategy.draw(8))
        return list(torch.autograd.grad(value, parameters, allow_unused=True))

    assert max(float(g.abs().max()) for g in gradients() if g is not None) < 1e-5
    with torch.no_grad():
        for p in parameters:
            p.add_(0.1 * torch.randn_like(p))
    found = dict(zip((id(p) for p in parameters), gradients(), strict=True))
    model: Any = session.model
    moved = {
        side: any(found.get(id(p)) is not None and bool(found[id(p)].any()) for p in _of(model, side))  # type: ignore[union-attr]
        for side in ("image", "text")
    }
    assert moved == {"image": True, "text": texts == "current"}


def _of(model: Any, side: str) -> list[Tensor]:
    names = model.tower(side)
    return [p for name, p in model.named_parameters() if name in names]


@pytest.mark.oracle("zscl", "what is deployed is a plain mean of the task's start and the weights at every interval")
def test_the_average_is_a_plain_mean(pairs: Job, drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    kind: Any = load_strategy("zscl")
    seen: list[list[Tensor]] = []
    begin, after = kind.begin_task, kind.after_update

    def vector(self: Any) -> Tensor:
        return torch.cat([p.detach().double().flatten() for p in self.model.parameters()])

    def begun(self: Any, task: Any) -> None:
        begin(self, task)
        seen.append([vector(self)])

    def updated(self: Any, interval: int, batch: Batch) -> None:
        after(self, interval, batch)
        assert interval == 2
        seen[-1].append(vector(self))

    monkeypatch.setattr(kind, "begin_task", begun)
    monkeypatch.setattr(kind, "after_update", updated)
    session = drive("zscl", {"steps": 7, "average_every": 0.3}, job=pairs)
    means = [torch.stack(weights[::2]).mean(0) for weights in seen]
    assert [len(weights[::2]) for weights in seen] == [4, 4]
    torch.testing.assert_close(seen[1][0], means[0], atol=1e-6, rtol=1e-5)
    average = deployed(session)
    found = torch.cat([average[name].double().flatten() for name, _ in session.model.named_parameters()])
    torch.testing.assert_close(found, means[1], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(found, seen[1][-1], atol=1e-4)


@pytest.mark.oracle("zscl", "the weight constraint's gradient is that of its formula")
def test_the_weight_constraint(pairs: Job, drive: Drive) -> None:
    """Far from the start, with no gradient but its own."""
    session = drive("zscl", {"steps": 1, "l2": 0.25}, job=pairs)
    strategy: Any = session.strategy
    trained = {name: p for name, p in session.model.named_parameters() if name in strategy.state.start}
    distance = sum((0.25 * (p - strategy.state.start[name]).square()).sum() for name, p in trained.items())
    expected = torch.autograd.grad(distance, list(trained.values()))  # type: ignore[arg-type]
    assert any(bool(g.any()) for g in expected)
    for p in trained.values():
        p.grad = torch.zeros_like(p)
    strategy.after_backward(None)
    for p, wanted in zip(trained.values(), expected, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, wanted)


def test_reference_data_are_the_pool_or_the_task(pairs: Job, drive: Drive) -> None:
    session = drive("zscl", {"steps": 1}, job=pairs)
    strategy: Any = session.strategy
    assert strategy._reference is session.stream.tasks[1].train
    assert strategy.draw(5).labels.tolist() and set(strategy.draw(30).labels.tolist()) <= {2, 3}


@pytest.mark.slow
def test_the_scale_stays_unless_told_otherwise(pairs: Job, drive: Drive) -> None:
    values = {}
    for train in (False, True):
        session = drive("zscl", {"steps": 2, "train_scale": train}, job=pairs)
        values[train] = float(deployed(session)["backbone.logit_scale"])
    start = float(drive("zscl", {"steps": 1}, job=pairs).strategy.teacher("initial").scale.log())  # type: ignore[union-attr, operator]
    assert values[False] == pytest.approx(start) != values[True]


@pytest.mark.parametrize("kind", ["pairs", pytest.param("text", marks=pytest.mark.slow)])
def test_an_interrupted_run_ends_with_the_same_bits(kind: str, pairs: Job, drive: Drive, tmp_path: Path) -> None:
    job, settings = (pairs if kind == "pairs" else TEXT), {"steps": 4, "average_every": 2}
    whole = drive("zscl", settings, job=job)
    folder = tmp_path / "stopped"
    for stop_at in (3, 4):
        torch.rand(3)
        with pytest.raises(Interrupted):
            drive("zscl", settings, job=job, stop_at=stop_at, folder=folder)
    again = drive("zscl", settings, job=job, folder=folder)
    assert same(deployed(whole), deployed(again)) and same(whole.model.state_dict(), again.model.state_dict())
    assert list(whole.table.table) == list(again.table.table)


def test_classifiers_are_refused(drive: Drive) -> None:
    with pytest.raises(UserError, match="works with contrastive, language_modeling"):
        drive("zscl")
