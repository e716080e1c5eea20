"""RWalk: its penalty, its running Fisher and scores, computed again from the steps that were taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clbench.engine.session import Session
from clbench.errors import Interrupted
from clbench.growing import known_part, padded
from clbench.samples import Batch
from clbench.strategies.rwalk import RWalk

Drive = Callable[..., Session]
Final = Callable[[Session], float]
JOB = {
    "stream": "split-digits",
    "backbone": "mlp:24x1",
    "stream_settings": {"train_per_class": 30, "sizes": [3, 5, 2]},
}
DOMAINS = {"stream": "permuted-digits", "backbone": "mlp:64x1", "stream_settings": {"tasks": 3}}
Step = dict[str, tuple[Tensor, Tensor, Tensor]]


def last_batch(session: Session) -> Batch:
    return session.services.batch(session.stream.tasks[2].train, torch.arange(20), "plain")


def moved(session: Session) -> Session:
    """The weights somewhere else than at the anchor."""
    with torch.no_grad():
        for p in session.model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)), alpha=0.05)
    return session


@pytest.mark.oracle("rwalk", "the gradient it adds is autograd's of its penalty, new rows left alone")
def test_the_gradient_is_that_of_the_penalty(drive: Drive) -> None:
    session = moved(drive("rwalk", {"rwalk_lambda": 3.0}, job=JOB))
    state, model = session.strategy.state, session.model
    for name in ("head.weight", "head.bias"):
        state.importance[name], state.anchor[name] = state.importance[name][:8], state.anchor[name][:8]
    penalty = sum(
        (state.importance[name] * (known_part(p, state.anchor[name]) - state.anchor[name]).square()).sum()
        for name, p in model.named_parameters()
    )
    expected = torch.autograd.grad(3.0 * penalty, list(model.parameters()))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    session.strategy.after_backward(last_batch(session))
    for p, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient)
    head = model.head.weight.grad
    assert head[:8].abs().max() > 1e-4 and head[8:].abs().max() == 0


@pytest.mark.oracle("rwalk", "Fisher and scores equal those recomputed from the raw gradients of all steps")
@pytest.mark.parametrize("delta_t", [1, 4])
def test_fisher_and_scores_of_the_steps_taken(drive: Drive, monkeypatch: pytest.MonkeyPatch, delta_t: int) -> None:
    """9, 15 and 6 steps: a stretch of `delta_t`, or what is left at a task's end."""
    tasks: list[list[Step]] = []
    before: dict[str, tuple[Tensor, Tensor]] = {}
    begin, backward, after = RWalk.begin_task, RWalk.after_backward, RWalk.after_step

    def begun(self: RWalk, task: Any) -> None:
        tasks.append([])
        begin(self, task)

    def backwarded(self: RWalk, batch: Batch) -> None:
        before.update({name: (p.grad.clone(), p.detach().clone()) for name, p in self.model.named_parameters()})
        backward(self, batch)

    def stepped(self: RWalk, batch: Batch) -> None:
        tasks[-1].append({name: (*before[name], p.detach().clone()) for name, p in self.model.named_parameters()})
        after(self, batch)

    for name, hook in (("begin_task", begun), ("after_backward", backwarded), ("after_step", stepped)):
        monkeypatch.setattr(RWalk, name, hook)
    settings = {"delta_t": delta_t, "rwalk_lambda": 1.0, "alpha": 0.7, "epochs": 1, "batch_size": 10, "epsilon": 1e-5}
    session = drive("rwalk", settings, job=JOB)
    assert [len(steps) for steps in tasks] == [9, 15, 6]
    state = session.strategy.state
    for name, p in session.model.named_parameters():
        fisher, scores = by_definition([[step[name] for step in steps] for steps in tasks], 0.7, delta_t, 1e-5, p)
        torch.testing.assert_close(state.fisher[name], fisher)
        torch.testing.assert_close(state.scores[name], scores, rtol=1e-3, atol=1e-3)


def by_definition(
    tasks: list[list[tuple[Tensor, Tensor, Tensor]]], alpha: float, delta_t: int, epsilon: float, p: Tensor
) -> tuple[Tensor, Tensor]:
    """F and the averaged scores of one parameter from (gradient, value before, value after) of each step."""
    fisher: Tensor | None = None
    scores: Tensor | None = None
    for steps in tasks:
        score = torch.zeros_like(steps[0][0])
        for start in range(0, len(steps), delta_t):
            stretch = steps[start : start + delta_t]
            for gradient, _, _ in stretch:
                squared = gradient**2
                fisher = squared if fisher is None else alpha * squared + (1 - alpha) * padded(fisher, squared)
            assert fisher is not None
            gain = -sum(gradient * (now - before) for gradient, before, now in stretch)
            distance = stretch[-1][2] - stretch[0][1]
            score += gain / (0.5 * fisher * distance**2 + epsilon)
        scores = score if scores is None else 0.5 * (padded(scores, score) + score)
    assert fisher is not None and scores is not None
    return fisher, scores


@pytest.mark.oracle("rwalk", "gains add up to the drop of the loss")
def test_the_gains_are_the_drop_of_the_loss(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full batches and a small rate, one stretch: -sum g dtheta is what the loss fell by (to first order)."""
    gains: list[float] = []
    original = RWalk.end_task

    def noted(self: RWalk, task: Any) -> None:
        gains.append(sum(gain.sum().item() for gain in self.state.gain.values()))
        original(self, task)

    monkeypatch.setattr(RWalk, "end_task", noted)
    job = {**JOB, "stream_settings": {"train_per_class": 12, "tasks": 1}}
    settings = {"batch_size": 120, "steps": 60, "lr": 0.01, "momentum": 0.0, "delta_t": 1000}
    losses = []
    for lr in (0.0, 0.01):
        session = drive("rwalk", {**settings, "lr": lr}, job=job)
        everything = session.services.batch(session.stream.tasks[0].train, torch.arange(120), "plain")
        losses.append(session.objective.loss(session.model, everything).item())
    assert gains[0] == 0
    assert gains[1] == pytest.approx(losses[0] - losses[1], rel=0.05)


def test_both_terms_lie_between_zero_and_one(drive: Drive) -> None:
    state = drive("rwalk", {"momentum": 0.9}, job=JOB).strategy.state
    values = torch.cat([value.flatten() for value in state.importance.values()])
    assert values.min() >= 0 and 0.9 < values.max() <= 2
    fisher = torch.cat([value.flatten() for value in state.fisher.values()])
    scores = torch.cat([value.flatten() for value in state.scores.values()])
    assert scores.min() < 0  # weights whose moves raised the loss do not count
    expected = fisher / fisher.max() + scores.clamp(min=0) / scores.max()
    torch.testing.assert_close(values, expected)


@pytest.mark.oracle("rwalk", "above finetuning on domains")
def test_it_keeps_old_domains(drive: Drive, final: Final) -> None:
    assert final(drive("rwalk", job=DOMAINS)) > final(drive("finetune", job=DOMAINS)) + 0.02


def test_the_official_form_resumes_inside_a_stretch(drive: Drive, tmp_path: Path) -> None:
    settings = {"form": "official", "delta_t": 4, "epochs": 1, "batch_size": 10}
    whole = drive("rwalk", settings, job=JOB)
    folder = tmp_path / "stopped"
    with pytest.raises(Interrupted):
        drive("rwalk", settings, job=JOB, stop_at=15, folder=folder)
    resumed = drive("rwalk", settings, job=JOB, folder=folder)
    assert resumed.step == whole.step
    for name, value in whole.strategy.state.importance.items():
        assert torch.equal(value, resumed.strategy.state.importance[name])
