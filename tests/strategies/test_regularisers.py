"""EWC, SI and LwF: their gradients are those of their penalties, their importances what the papers define."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from clbench.engine.session import Session
from clbench.growing import known_part, padded
from clbench.samples import Batch
from clbench.strategies.ewc import EWC
from clbench.strategies.lwf import LwF, without_old
from clbench.strategies.si import SI

Drive = Callable[..., Session]
Final = Callable[[Session], float]
JOB = {
    "stream": "split-digits",
    "backbone": "mlp:24x1",
    "stream_settings": {"train_per_class": 30, "sizes": [3, 5, 2]},
}
DOMAINS = {"stream": "permuted-digits", "backbone": "mlp:64x1", "stream_settings": {"tasks": 3}}


def some_batch(session: Session, task: int) -> Batch:
    return session.services.batch(session.stream.tasks[task].train, torch.arange(20), "plain")


def added_gradient(session: Session, batch: Batch) -> dict[str, Tensor]:
    """What `after_backward` adds to the data's gradient."""
    model = session.model
    model.zero_grad()
    session.strategy.loss(batch).backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    session.strategy.after_backward(batch)
    return {name: p.grad - before[name] for name, p in model.named_parameters()}


def moved(session: Session) -> Session:
    """The weights somewhere else than at the anchor."""
    with torch.no_grad():
        for p in session.model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)), alpha=0.05)
    return session


def penalty_gradient(session: Session, weights: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    """autograd of factor * sum weights * (theta - anchor)^2 over what the weights cover."""
    model, anchor = session.model, session.strategy.state.anchor
    model.zero_grad()
    penalty = sum(
        (w * (known_part(p, w) - known_part(anchor[name], w)).square()).sum()
        for name, p in model.named_parameters()
        if (w := weights.get(name)) is not None
    )
    (factor * penalty).backward()  # type: ignore[union-attr]
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def before_the_last_task(session: Session) -> Session:
    """As inside the last task, whose two classes the importances do not know yet."""
    state = session.strategy.state
    for values in (getattr(state, "fisher", None), getattr(state, "importance", None), state.anchor):
        for name in ("head.weight", "head.bias"):
            if values is not None:
                values[name] = values[name][:8].clone()
    return session


@pytest.mark.oracle("ewc", "the gradient it adds is autograd's of its penalty, new rows left alone")
@pytest.mark.parametrize("grown", [False, True])
def test_ewcs_gradient_is_that_of_its_penalty(drive: Drive, grown: bool) -> None:
    session = moved(drive("ewc", {"ewc_lambda": 40.0}, job=JOB))
    session = before_the_last_task(session) if grown else session
    found = added_gradient(session, some_batch(session, 2))
    expected = penalty_gradient(session, session.strategy.state.fisher, 40.0 / 2)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-6)
    assert found["head.weight"][:8].abs().max() > 1e-4
    assert (found["head.weight"][8:].abs().max() == 0) == grown


@pytest.mark.oracle("ewc", "after three tasks F is gamma^2 F_0 + gamma F_1 + F_2")
def test_ewcs_importances_add_up(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    """F after three tasks is gamma^2 F_0 + gamma F_1 + F_2, zero where a parameter was not there yet."""
    kept: list[dict[str, Tensor]] = []
    original = EWC.squared_gradients

    def noted(self: EWC, *args: Any, **named: Any) -> dict[str, Tensor]:
        kept.append(original(self, *args, **named))
        return kept[-1]

    monkeypatch.setattr(EWC, "squared_gradients", noted)
    session = drive("ewc", {"gamma": 0.5, "fisher_samples": 25}, job=JOB)
    assert [fisher["head.weight"].shape[0] for fisher in kept] == [3, 8, 10]
    for name, p in session.model.named_parameters():
        expected = 0.25 * padded(kept[0][name], p) + 0.5 * padded(kept[1][name], p) + kept[2][name]
        torch.testing.assert_close(session.strategy.state.fisher[name], expected)
        assert torch.equal(session.strategy.state.anchor[name], p)


@pytest.mark.oracle("ewc", "above finetuning on domains")
@pytest.mark.oracle("si", "above finetuning on domains")
@pytest.mark.oracle("lwf", "above finetuning on domains")
def test_penalties_keep_old_domains(drive: Drive, final: Final) -> None:
    forgetful = final(drive("finetune", job=DOMAINS))
    assert final(drive("ewc", job=DOMAINS)) > forgetful + 0.02
    assert final(drive("si", {"c": 1.0}, job=DOMAINS)) > forgetful + 0.02
    assert final(drive("lwf", job=DOMAINS)) > forgetful + 0.02


# -- SI ----------------------------------------------------------------------------------------------------------------


@pytest.mark.oracle("si", "the gradient it adds is autograd's of its penalty, new rows left alone")
@pytest.mark.parametrize("grown", [False, True])
def test_sis_gradient_is_that_of_its_penalty(drive: Drive, grown: bool) -> None:
    session = moved(drive("si", {"c": 2.0}, job=JOB))
    if grown:
        for name in ("head.weight", "head.bias"):
            importance = session.strategy.state.importance
            importance[name] = importance[name][:8].clone()
    found = added_gradient(session, some_batch(session, 2))
    expected = penalty_gradient(session, session.strategy.state.importance, 2.0)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-6)
    assert found["head.weight"][:8].abs().max() > 1e-5
    assert (found["head.weight"][8:].abs().max() == 0) == grown


@pytest.mark.oracle("si", "the path integral is the drop of the loss, at small rates")
def test_the_path_integral_is_the_drop_of_the_loss(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full batches and a small rate: -sum g dtheta is what the loss fell by (to first order)."""
    ends: list[float] = []
    original = SI.end_task

    def noted(self: SI, task: Any) -> None:
        ends.append(sum(path.sum().item() for path in self.state.path.values()))
        original(self, task)

    monkeypatch.setattr(SI, "end_task", noted)
    job = {**JOB, "stream_settings": {"train_per_class": 12, "tasks": 1}}
    settings = {"batch_size": 120, "steps": 60, "lr": 0.01, "momentum": 0.0}
    trained = drive("si", settings, job=job)
    untrained = drive("si", {**settings, "lr": 0.0}, job=job)
    losses = []
    for session in (untrained, trained):
        everything = session.services.batch(session.stream.tasks[0].train, torch.arange(120), "plain")
        losses.append(session.objective.loss(session.model, everything).item())
    assert ends[0] == pytest.approx(losses[0] - losses[1], rel=0.05)
    assert losses[0] - losses[1] > 0.1
    assert ends[1] == 0.0


@pytest.mark.oracle("si", "the path is of the data's gradient, without the penalty's")
def test_the_path_is_of_the_datas_gradient_alone(drive: Drive) -> None:
    """With a huge penalty and no data gradient nothing is added to the path."""
    session = moved(drive("si", {"c": 1.0}, job=JOB))
    state, model = session.strategy.state, session.model
    paths = {name: path.clone() for name, path in state.path.items()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    batch = some_batch(session, 2)
    session.strategy.after_backward(batch)
    assert any(p.grad.abs().max() > 0 for p in model.parameters())  # type: ignore[union-attr]
    with torch.no_grad():
        for p in model.parameters():
            p.sub_(0.1 * p.grad)  # type: ignore[operator]
        session.strategy.after_step(batch)
    assert all(torch.equal(path, paths[name]) for name, path in state.path.items())


def test_importances_are_never_negative_and_grow(drive: Drive) -> None:
    importance = drive("si", job=JOB).strategy.state.importance
    assert all((value >= 0).all() for value in importance.values())
    assert importance["head.weight"].shape[0] == 10 and importance["head.weight"].max() > 0


# -- LwF ---------------------------------------------------------------------------------------------------------------


@pytest.mark.oracle("lwf", "the teacher is the model as it was before the task, in eval mode")
def test_the_teacher_is_the_model_as_it_was(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken before the head grows, in eval mode, and left alone by training: here the one of tasks 0 and 1."""
    taken: list[dict[str, Tensor]] = []
    original = LwF.end_task

    def noted(self: LwF, task: Any) -> None:
        taken.append({name: value.clone() for name, value in self.model.state_dict().items()})
        if task.index < 2:
            original(self, task)

    monkeypatch.setattr(LwF, "end_task", noted)
    session = drive("lwf", job={**JOB, "backbone": "slim-resnet18?width=2"})
    teacher = session.strategy.teacher("previous")
    assert teacher is not None and not teacher.training and teacher.n_classes == 8
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    found = teacher.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in taken[1].items())
    trained = session.model.state_dict()
    assert not torch.equal(trained["head.weight"][:8], found["head.weight"])
    assert not torch.equal(trained["backbone.bn1.running_mean"], found["backbone.bn1.running_mean"])


@pytest.mark.oracle("lwf", "the loss by hand: cross-entropy + alpha T^2 KL(teacher, student)")
@pytest.mark.parametrize("everything", [False, True])
def test_lwfs_loss(drive: Drive, everything: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cross-entropy over the new outputs (or all) + alpha T^2 KL(teacher || student) over the teacher's outputs."""
    original = LwF.end_task
    monkeypatch.setattr(LwF, "end_task", lambda self, task: original(self, task) if task.index < 2 else None)
    session = drive("lwf", {"alpha": 3.0, "temperature": 2.5, "only_new": not everything}, job=JOB)
    batch = some_batch(session, 2)
    teacher = session.strategy.teacher("previous")
    with torch.no_grad():
        outputs, wanted = session.model(batch.x), teacher(batch.x)
        p, log_q = (wanted / 2.5).softmax(1), (outputs[:, :8] / 2.5).log_softmax(1)
        divergence = (p * (p.log() - log_q)).sum(1).mean() * 2.5**2
        new = torch.nn.functional.cross_entropy(outputs[:, 8:], batch.y - 8)
        expected = (torch.nn.functional.cross_entropy(outputs, batch.y) if everything else new) + 3.0 * divergence
    torch.testing.assert_close(session.strategy.loss(batch).detach(), expected)


def test_old_outputs_are_left_out_for_new_classes_alone() -> None:
    found = without_old(torch.zeros(2, 4), torch.tensor([1, 3]), n_old=2)
    assert found[0].tolist() == [0, 0, 0, 0]
    assert found[1].tolist() == [float("-inf"), float("-inf"), 0, 0]
    tokens = torch.randn(2, 3, 5)
    assert torch.equal(without_old(tokens, torch.randint(0, 5, (2, 3)), n_old=5), tokens)


@pytest.mark.oracle("lwf", "above finetuning on new classes")
def test_lwf_keeps_old_classes(drive: Drive, final: Final) -> None:
    job = {"stream": "split-digits", "backbone": "mlp:64x1"}
    assert final(drive("lwf", job=job)) > final(drive("finetune", job=job)) + 0.15
