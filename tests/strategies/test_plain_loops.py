"""WA, iCaRL, RWalk and BVCL beside plain loops written from their papers: same start, batches and noise, same end."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.engine.session import Session
from clbench.samples import Samples
from clbench.strategies.bvcl import BVCL
from clbench.strategies.icarl import ICaRL
from clbench.strategies.rwalk import RWalk
from clbench.strategies.wa import WA

from .recording import Recorded, Weights, grown, record

Drive = Callable[..., Session]
JOB = {
    "stream": "split-digits",
    "backbone": "mlp:12x1",
    "stream_settings": {"train_per_class": 20, "sizes": [1, 6, 3]},
}
SGD = {"optimizer": "sgd", "lr": 0.03, "momentum": 0.9, "weight_decay": 0.001, "epochs": 2, "batch_size": 8}
DECAY = 0.001


def features(weights: Weights, x: Tensor) -> Tensor:
    return F.relu(F.linear(x.flatten(1), weights["backbone.layers.0.weight"], weights["backbone.layers.0.bias"]))


def scores(weights: Weights, x: Tensor) -> Tensor:
    return F.linear(features(weights, x), weights["head.weight"], weights["head.bias"])


def descend(weights: Weights, loss: Tensor, moments: Weights) -> None:
    """A step of SGD at 0.03 with momentum 0.9 and weight decay."""
    for (name, p), g in zip(weights.items(), gradient(loss, weights), strict=True):
        g = g + DECAY * p.detach()
        moments[name] = 0.9 * moments[name] + g if name in moments else g
        p.data -= 0.03 * moments[name]


def assert_same(found: Weights, session: Session) -> None:
    for name, p in session.model.named_parameters():
        torch.testing.assert_close(found[name].detach(), p.detach(), rtol=1e-3, atol=1e-5)


def plain(session: Session, samples: Samples) -> Tensor:
    """All of them, as the model gets them."""
    return session.services.batch(samples, torch.arange(len(samples)), "plain").x


def herded(weights: Weights, x: Tensor, m: int) -> list[int]:
    """Algorithm 4 of iCaRL, sample by sample."""
    with torch.no_grad():
        phi = F.normalize(features(weights, x).double(), dim=1)
    chosen: list[int] = []
    for k in range(1, min(m, len(x)) + 1):
        left = [i for i in range(len(x)) if i not in chosen]
        distances = [(phi.mean(0) - (phi[i] + phi[chosen].sum(0)) / k).norm().item() for i in left]
        chosen.append(left[distances.index(min(distances))])
    return chosen


def of_class(session: Session, task: int, label: int) -> Tensor:
    train = session.stream.tasks[task].train
    return plain(session, train.subset((train.labels == label).nonzero()[:, 0]))


def assert_same_exemplars(sets: dict[int, Tensor], session: Session) -> None:
    exemplars = session.strategy.state.exemplars
    assert sorted(sets) == sorted(exemplars.labels)
    for label, images in sets.items():
        assert torch.equal(images, plain(session, exemplars.samples(label)))


@pytest.mark.oracle("wa", "ends where a plain loop written from the paper ends")
def test_wa(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    session, tasks = record(monkeypatch, WA, drive, "wa", {**SGD, "memory_size": 45}, job=JOB)
    weights: Weights = {}
    sets: dict[int, Tensor] = {}
    teacher: Weights = {}
    for index, task in enumerate(tasks):
        old, weights = len(weights.get("head.bias", ())), grown(weights, task.start)
        moments: Weights = {}
        for x, y, _ in task.steps:
            z = scores(weights, x)
            loss = F.cross_entropy(z, y)
            if old:
                with torch.no_grad():
                    q = (scores(teacher, x) / 2).softmax(1)
                kept = -(q * (z[:, :old] / 2).log_softmax(1)).sum() / len(x)
                loss = (1 - old / len(z[0])) * loss + old / len(z[0]) * kept
            descend(weights, loss, moments)
            weights["head.weight"].data.clamp_(min=0)
        if old:
            norms = weights["head.weight"].detach().norm(dim=1)
            weights["head.weight"].data[old:] *= norms[:old].mean() / norms[old:].mean()
        share = 45 // (old + len(task.classes))
        sets = {label: images[:share] for label, images in sets.items()}
        for label in task.classes:
            images = of_class(session, index, label)
            sets[label] = images[herded(weights, images, share)]
        teacher = {name: p.detach().clone() for name, p in weights.items()}
    assert_same(weights, session)
    assert_same_exemplars(sets, session)


@pytest.mark.oracle("icarl", "ends where a plain loop written from the paper ends, and predicts the same")
def test_icarl(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    session, tasks = record(monkeypatch, ICaRL, drive, "icarl", {**SGD, "memory_size": 45}, job=JOB)
    weights: Weights = {}
    sets: dict[int, Tensor] = {}
    teacher: Weights = {}
    for index, task in enumerate(tasks):
        old, weights = len(weights.get("head.bias", ())), grown(weights, task.start)
        moments: Weights = {}
        for x, y, _ in task.steps:
            z = scores(weights, x)
            q = F.one_hot(y, len(z[0])).float()
            if old:
                q[:, :old] = scores(teacher, x).sigmoid().detach()
            log_g, log_not_g = F.logsigmoid(z), F.logsigmoid(-z)
            descend(weights, -(q * log_g + (1 - q) * log_not_g).sum() / len(x), moments)
        share = 45 // (old + len(task.classes))
        sets = {label: images[:share] for label, images in sets.items()}
        for label in task.classes:
            images = of_class(session, index, label)
            sets[label] = images[herded(weights, images, share)]
        teacher = {name: p.detach().clone() for name, p in weights.items()}
    assert_same(weights, session)
    assert_same_exemplars(sets, session)
    with torch.no_grad():
        unit = [F.normalize(features(weights, sets[k]), dim=1).mean(0) for k in range(10)]
        means = torch.stack([mean / mean.norm() for mean in unit])
        for held in session.stream.eval_sets:
            x = plain(session, held.data)
            nearest = torch.cdist(F.normalize(features(weights, x), dim=1), means).argmin(1)
            assert torch.equal(session.strategy.predict(x).argmax(1), nearest)


@pytest.mark.oracle("rwalk", "ends where plain loops written from the paper and from the authors' code end")
@pytest.mark.parametrize("form", ["paper", "official"])
def test_rwalk(drive: Drive, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """6, 30 and 18 steps, and stretches of 4; nothing can be learned of the first task's only class."""
    settings = {**SGD, "rwalk_lambda": 0.5, "delta_t": 4, "epsilon": 1e-4, "momentum": 0.0, "weight_decay": 0.0}
    session, tasks = record(monkeypatch, RWalk, drive, "rwalk", {**settings, "form": form}, job=JOB)
    weights: Weights = {}
    fisher: Weights = {}
    scored: Weights = {}
    penalty: dict[str, tuple[Tensor, Tensor]] = {}
    for task in tasks:
        weights = grown(weights, task.start)
        fisher, scored = zeros_added(fisher, weights), zeros_added(scored, weights)
        path = {name: torch.zeros_like(p) for name, p in weights.items()}
        for first in range(0, len(task.steps), 4):
            stretch = task.steps[first : first + 4]
            start = {name: p.detach().clone() for name, p in weights.items()}
            drop = {name: torch.zeros_like(p) for name, p in weights.items()}
            squares = {name: torch.zeros_like(p) for name, p in weights.items()}
            for x, y, _ in stretch:
                data = dict(zip(weights, gradient(loss_of(weights, x, y), weights), strict=True))
                full = loss_of(weights, x, y) + 0.5 * drift(weights, penalty)
                before = {name: p.detach().clone() for name, p in weights.items()}
                for (name, p), g in zip(weights.items(), gradient(full, weights), strict=True):
                    p.data -= 0.03 * g
                    drop[name] -= data[name] * (p.detach() - before[name])
                    squares[name] += data[name] ** 2 / 4
                    if form == "paper":
                        new, old = data[name] ** 2, fisher.get(name)
                        fisher[name] = new if old is None else 0.9 * new + 0.1 * old
            if form == "official" and len(stretch) < 4:
                continue
            for name, p in weights.items():
                at = fisher.get(name, torch.zeros_like(p))
                gained = drop[name] / (0.5 * at * (p.detach() - start[name]) ** 2 + 1e-4)
                path[name] += gained if form == "paper" else gained.clamp(min=0)
                if form == "official":
                    fisher[name] = 0.1 * at + 0.9 * squares[name]
        scored = {name: path[name] if name not in scored else (scored[name] + path[name]) / 2 for name in weights}
        highest = [max(float(v.max()) for v in values.values()) or 1.0 for values in (fisher, scored)]
        penalty = {
            name: (fisher[name] / highest[0] + scored[name].clamp(min=0) / highest[1], p.detach().clone())
            for name, p in weights.items()
        }
    assert_same(weights, session)


def gradient(loss: Tensor, weights: Weights) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, list(weights.values()))


def loss_of(weights: Weights, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(scores(weights, x), y)


def drift(weights: Weights, penalty: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
    terms = [(strength * (weights[name][: len(at)] - at) ** 2).sum() for name, (strength, at) in penalty.items()]
    return torch.stack(terms).sum() if terms else torch.zeros(())


def zeros_added(values: Weights, weights: Weights) -> Weights:
    """The values in the shape of today's weights."""
    found = {}
    for name, value in values.items():
        found[name] = torch.zeros_like(weights[name])
        found[name][: len(value)] = value
    return found


def binary_scores(fields: list[Tensor], beta: float, x: Tensor, noise: list[Tensor]) -> Tensor:
    """Two layers of binary weights, their sums drawn from Gaussians."""
    for place, theta in enumerate(fields):
        mu = torch.tanh(beta * theta)
        n = theta.shape[1]
        v = (x**2 @ (1 - mu**2).T / n + 1e-30).sqrt()
        x = x @ mu.T / math.sqrt(n) + v * noise[place]
        x = F.relu(x) if place == 0 else x
    return x


@pytest.mark.oracle("bvcl", "ends where a plain loop written from the paper, and one from the official code, ends")
@pytest.mark.parametrize("anchor", ["task", "step"])
def test_bvcl(drive: Drive, monkeypatch: pytest.MonkeyPatch, anchor: str) -> None:
    """`step` with growing beta as in the official deep networks; there an epoch's first prior has the last beta."""
    growing = anchor == "step"
    settings: dict[str, Any] = {"anchor": anchor, "epochs": 3, "batch_size": 8, "lr": 0.02}
    settings["constant_beta"] = None if growing else 0.9
    job = {**JOB, "stream": "permuted-digits", "stream_settings": {"train_per_class": 6, "tasks": 3}}
    session, tasks = record(monkeypatch, BVCL, drive, "bvcl", settings, job=job)
    names = ["backbone.layers.0.theta", "head.linear.theta"]
    fields = [tasks[0].start[name].clone().requires_grad_() for name in names]
    prior: list[Tensor] | None = None
    m, s = ([torch.zeros_like(theta) for theta in fields] for _ in range(2))
    t = 0
    for index, task in enumerate(tasks):
        for number, (x, y, noise) in enumerate(task.steps):
            epoch = number // 8
            beta = 10 * math.tanh(0.1 + 2 * (3 * index + epoch + 1) / 9) if growing else 0.9
            loss = F.cross_entropy(binary_scores(fields, beta, x, noise), y, reduction="sum")
            gradients = list(torch.autograd.grad(loss, fields))
            before = [theta.detach().clone() for theta in fields]
            t += 1
            for place, theta in enumerate(fields):
                if prior is not None:
                    s2 = 1 - torch.tanh(beta * before[place]) ** 2
                    share = 1 if growing else len(x) / 60
                    gradients[place] += share * beta**2 * s2 * (before[place] - prior[place])
                m[place] = 0.9 * m[place] + 0.1 * gradients[place]
                s[place] = 0.99 * s[place] + 0.01 * gradients[place] ** 2
                step = (m[place] / (1 - 0.9**t)) / ((s[place] / (1 - 0.99**t)) ** 0.5 + 1e-8)
                theta.data -= 0.02 * step
            prior = before if growing else prior
        prior = prior if growing else [theta.detach().clone() for theta in fields]
    assert_same(dict(zip(names, fields, strict=True)), session)


def test_the_recorded_tasks_are_those_of_the_stream(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    _, tasks = record(monkeypatch, WA, drive, "wa", {**SGD, "memory_size": 45}, job=JOB)
    assert [len(task.classes) for task in tasks] == [1, 6, 3]
    assert all(isinstance(task, Recorded) and len(task.steps) > 4 for task in tasks)
