"""BVCL: the KL's gradient, the moments of its layers, beta, the priors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from clbench.engine.session import Session
from clbench.errors import UserError
from clbench.strategies.binary_weights import BinaryLinear, binary_layers
from clbench.strategies.bvcl import BVCL

Drive = Callable[..., Session]
Final = Callable[[Session], float]
JOB = {
    "stream": "split-digits",
    "backbone": "mlp:16x1",
    "stream_settings": {"train_per_class": 30, "sizes": [3, 5, 2]},
}
DOMAINS = {"stream": "permuted-digits", "backbone": "mlp:100x1", "stream_settings": {"tasks": 3}}


def divergence(h: Tensor, prior: Tensor) -> Tensor:
    """KL by its definition, summed over the two values of each weight: P(w) = exp(h w) / (exp(h) + exp(-h))."""
    total = torch.zeros((), dtype=h.dtype)
    for w in (-1, 1):
        log_q = w * h - torch.logaddexp(h, -h)
        total = total + (log_q.exp() * (log_q - (w * prior - torch.logaddexp(prior, -prior)))).sum()
    return total


def added(session: Session, moved_by: float) -> tuple[dict[str, Tensor], int]:
    """What `after_backward` adds for a batch of 20, the fields moved by noise; the number of the task's samples."""
    with torch.no_grad():
        for p in session.model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(3)), alpha=moved_by)
    for p in session.model.parameters():
        p.grad = torch.zeros_like(p)
    task = session.stream.tasks[2].train
    session.strategy.after_backward(session.services.batch(task, torch.arange(20), "plain"))
    return {name: p.grad for name, p in session.model.named_parameters()}, len(task)


@pytest.mark.oracle("bvcl", "the gradient it adds is autograd's of the KL divergence, new rows left alone")
@pytest.mark.parametrize(("prior", "anchor"), [("fields", "task"), ("strength", "task"), ("fields", "step")])
def test_the_gradient_is_that_of_the_divergence(drive: Drive, prior: str, anchor: str) -> None:
    session = drive("bvcl", {"prior": prior, "anchor": anchor, "kl_weight": 2.0}, job=JOB)
    strategy, name = session.strategy, "head.linear.theta"
    strategy.state.anchor[name] = strategy.state.anchor[name][:8]
    anchors, anchor_beta = dict(strategy.state.anchor), strategy.state.anchor_beta
    strategy.set_beta(1.7)
    found, n = added(session, 0.3)
    weight = 2.0 if anchor == "step" else 2.0 * 20 / n
    for name, layer in binary_layers(session.model).items():
        theta = layer.theta.detach().double()[: len(anchors[name])].requires_grad_()
        prior_beta = 1.7 if prior == "fields" else anchor_beta
        kl = divergence(1.7 * theta, prior_beta * anchors[name].double())
        (expected,) = torch.autograd.grad(weight * kl, theta)
        torch.testing.assert_close(found[name][: len(theta)].double(), expected, rtol=1e-3, atol=1e-5)
        assert expected.abs().max() > 1e-3
    assert found["head.linear.theta"][8:].abs().max() == 0


@pytest.mark.oracle("bvcl", "no KL gradient at the prior itself")
def test_at_the_anchor_there_is_none(drive: Drive) -> None:
    found, _ = added(drive("bvcl", {"anchor": "task"}, job=JOB), 0.0)
    assert all(not gradient.any() for gradient in found.values())


@pytest.mark.oracle("bvcl", "mean and variance of a layer's sums are those of sampled binary weights")
def test_the_layers_moments_are_those_of_binary_weights() -> None:
    torch.manual_seed(0)
    layer = BinaryLinear(30, 4)
    layer.beta.fill_(0.8)
    a = torch.rand(1, 30) * 2
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        binary = torch.stack([layer.draw(generator) for _ in range(20_000)])
        exact = binary @ a[0] / math.sqrt(30)
        drawn = layer(a.expand(20_000, -1))
        mean = layer.eval()(a)[0]
    assert set(binary.unique().tolist()) == {-1.0, 1.0}
    for found in (drawn, exact):
        torch.testing.assert_close(found.mean(0), mean, rtol=0, atol=0.03)
    torch.testing.assert_close(drawn.var(0), exact.var(0), rtol=0.05, atol=0)
    assert exact.var(0).min() > 0.2


def test_beta_grows_over_the_run_as_in_the_official_code(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    original = BVCL.set_beta

    def noted(self: BVCL, beta: float) -> None:
        seen.append(beta)
        original(self, beta)

    monkeypatch.setattr(BVCL, "set_beta", noted)
    growing: dict[str, Any] = {"constant_beta": None}
    drive("bvcl", {**growing, "epochs": 5}, job={**JOB, "stream_settings": {"train_per_class": 30, "tasks": 5}})
    by_epoch = [10 * math.tanh(0.1 + 2 / 25 * (epoch + 1)) for epoch in range(25)]
    assert seen[:: len(seen) // 25] == pytest.approx(by_epoch) == sorted(set(seen))
    seen.clear()
    drive("bvcl", {**growing, "steps": 4}, job=JOB)
    assert seen == pytest.approx([10 * math.tanh(0.1 + 2 * (step + 1) / 12) for step in range(12)])
    seen.clear()
    drive("bvcl", {"steps": 2, "constant_beta": 0.7}, job=JOB)
    assert set(seen) == {0.7}


@pytest.mark.parametrize("anchor", ["task", "step"])
def test_the_prior_is_the_task_before_or_the_step_before(
    drive: Drive, monkeypatch: pytest.MonkeyPatch, anchor: str
) -> None:
    history: list[Tensor] = []
    original = BVCL.after_step

    def noted(self: BVCL, batch: Any) -> None:
        original(self, batch)
        history.append(self.model.backbone.layers[0].theta.detach().clone())

    monkeypatch.setattr(BVCL, "after_step", noted)
    session = drive("bvcl", {"steps": 3, "anchor": anchor}, job=JOB)
    expected = history[-1] if anchor == "task" else history[-2]
    assert torch.equal(session.strategy.state.anchor["backbone.layers.0.theta"], expected)


def test_binary_networks_are_the_same_for_every_input(drive: Drive) -> None:
    session = drive("bvcl", {"networks": 3}, job=JOB)
    session.model.eval()
    test = session.stream.eval_sets[0].data
    inputs = session.services.batch(test, torch.arange(64) % len(test), "plain").x
    with torch.no_grad():
        all_at_once = session.strategy.predict(inputs)
        backwards = session.strategy.predict(inputs.flip(0)).flip(0)
    assert torch.equal(all_at_once, backwards)
    torch.testing.assert_close(all_at_once.exp().sum(1), torch.ones(64))
    assert all(layer.drawn is None for layer in binary_layers(session.model).values())


@pytest.mark.slow
@pytest.mark.oracle("bvcl", "the divergence keeps old domains: above the same network without it, and finetuning")
def test_the_divergence_keeps_old_domains(drive: Drive, final: Final) -> None:
    job = {**DOMAINS, "backbone": "mlp:400x1"}
    long = {"batch_size": 16, "epochs": 10}
    kept = drive("bvcl", long, job=job)
    assert final(kept) > final(drive("bvcl", {**long, "kl_weight": 0.0}, job=job)) + 0.05
    assert on_first(kept) > on_first(drive("finetune", job=job)) + 0.05


@pytest.mark.slow
@pytest.mark.oracle("bvcl", "of the deep networks' form, above the same network without KL and with constant beta")
def test_the_published_form_keeps_old_domains(drive: Drive, final: Final) -> None:
    long = {"anchor": "step", "constant_beta": None, "batch_size": 16, "epochs": 10}
    both = final(drive("bvcl", long, job=DOMAINS))
    no_divergence = final(drive("bvcl", {**long, "kl_weight": 0.0}, job=DOMAINS))
    neither = final(drive("bvcl", {**long, "kl_weight": 0.0, "constant_beta": 1.0}, job=DOMAINS))
    assert both > no_divergence + 0.02 > neither + 0.04


def on_first(session: Session) -> float:
    """Accuracy on the first domain after the last."""
    rows = [r for r in session.table.table if r.kind == "boundary" and r.eval_set == session.stream.eval_sets[0].name]
    return float(max(rows, key=lambda r: r.tasks_seen).value)


def test_other_networks_are_refused(drive: Drive) -> None:
    with pytest.raises(UserError, match="use --backbone mlp"):
        drive("bvcl", job={**JOB, "backbone": "slim-resnet18?width=2"})
    with pytest.raises(UserError, match="use --tune full"):
        drive("bvcl", job={**JOB, "tune": "head"})


def test_every_weight_is_binary_and_there_are_no_biases(drive: Drive) -> None:
    shapes = {name: tuple(p.shape) for name, p in drive("bvcl", job=JOB).model.named_parameters()}
    assert shapes == {"backbone.layers.0.theta": (16, 64), "head.linear.theta": (10, 16)}
