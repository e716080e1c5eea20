"""LAE, APER and RanPAC beside plain loops, written from papers and official code, on the same weights and batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clbench.engine.session import Session
from clbench.engine.stepping import ActivePhase
from clbench.samples import Batch, Samples
from clbench.strategies.aper import APER
from clbench.strategies.lae import LAE
from clbench.strategies.ranpac import RanPAC
from clbench.stream import Task

from .plain_vit import Tensors, features

Drive = Callable[..., Session]
HEADS = 2
VIT = f"timm:vit_tiny_patch16_224?img_size=32,patch_size=16,embed_dim=24,depth=2,num_heads={HEADS}"
SIZES = [3, 5, 2]
JOB = {"stream": "split-digits", "backbone": VIT, "stream_settings": {"train_per_class": 24, "sizes": SIZES}}


@dataclass
class Seen:
    """What a run was given: the model when each task began, and the images and labels of each step that trained."""

    starts: list[Tensors] = field(default_factory=list)
    steps: list[list[tuple[Tensor, Tensor]]] = field(default_factory=list)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Of the run that follows."""
    found = Seen()
    for kind in (LAE, APER, RanPAC):

        def begin_task(self: Any, task: Task, original: Any = kind.begin_task) -> None:
            original(self, task)
            found.starts.append({name: value.detach().clone() for name, value in self.model.state_dict().items()})
            found.steps.append([])

        monkeypatch.setattr(kind, "begin_task", begin_task)

    def update(self: ActivePhase, batch: Batch, original: Any = ActivePhase.update) -> None:
        original(self, batch)
        if self.phase.optimizer is not None:
            found.steps[-1].append((batch.x.clone(), batch.y.clone()))

    monkeypatch.setattr(ActivePhase, "update", update)
    return found


def images(session: Session, samples: Samples) -> Tensor:
    raw, labels = samples.raw(torch.arange(len(samples))), samples.labels
    return session.objective.inputs(raw, labels, "plain", None)[0]


# -- LAE ---------------------------------------------------------------------------------------------------------------


def lae(seen: Seen, frozen: list[int], lr: float, ema: float) -> tuple[Tensors, Tensors, list[Tensors]]:
    """The backbone with online modules, the offline modules, and a linear layer for each task."""
    net = {name: value.clone() for name, value in seen.starts[0].items() if not name.startswith("head.")}
    pets = [name for name in net if ".pet." in name]
    offline: Tensors = {}
    layers: list[Tensors] = []
    for t, steps in enumerate(seen.steps):
        known = sum(SIZES[:t])
        layers.append({x: seen.starts[t][f"head.{x}"][known:].clone().requires_grad_() for x in ("weight", "bias")})
        if t == 1:
            offline = {name: net[name].detach().clone() for name in pets}
        tensors = [value for layer in layers for value in layer.values()] + [net[name] for name in pets]
        optimizer = torch.optim.Adam(tensors, lr=lr)
        for step, (x, y) in enumerate(steps):
            for name in pets:
                net[name].requires_grad_(step >= frozen[t])
            f = features(net, x, HEADS)
            logits = torch.cat([F.linear(f, layer["weight"], layer["bias"]) for layer in layers], dim=1)
            optimizer.zero_grad()
            F.cross_entropy(logits[:, known:], y - known).backward()
            optimizer.step()
            for name, value in offline.items():
                offline[name] = ema * value + (1 - ema) * net[name].detach()
    return net, offline, layers


@pytest.mark.oracle("lae", "weights, averages and scores are those of a plain loop after the official code")
@pytest.mark.parametrize("pet", ["adapter", "lora", "prefix"])
def test_lae(pet: str, drive: Drive, seen: Seen) -> None:
    settings = {"pet": pet, "pet_size": 3, "adapt_blocks": 1, "ema": 0.9, "batch_size": 12, "epochs": 5, "lr": 0.01}
    session = drive("lae", settings, job=JOB)
    assert [len(steps) for steps in seen.steps] == [30, 50, 20]
    net, offline, layers = lae(seen, [0, 30, 12], settings["lr"], settings["ema"])  # type: ignore[arg-type]
    ours = session.model.state_dict()
    for name in offline:
        torch.testing.assert_close(ours[name], net[name].detach(), rtol=1e-3, atol=2e-4)
        torch.testing.assert_close(session.strategy.state.offline[name], offline[name], rtol=1e-3, atol=2e-4)
    x = images(session, session.stream.tasks[1].train)[:30]
    weight, bias = (torch.cat([layer[part] for layer in layers]) for part in ("weight", "bias"))
    with torch.no_grad():
        session.model.eval()
        found = session.strategy.predict(x)
        both = [F.linear(features(net | p, x, HEADS), weight, bias).softmax(1) for p in ({}, offline)]
    torch.testing.assert_close(found, torch.stack(both).amax(0), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(*both, atol=1e-4)


# -- the first session of APER and RanPAC ------------------------------------------------------------------------------

FIRST = {"batch_size": 12, "epochs": 4, "schedule": "annealing:4", "lr": 3.0, "bottleneck": 4, "adapter_dropout": 0.0}


def first_session(seen: Seen) -> Tensors:
    """The adapted backbone: SGD on adapters, cosine classifier and its scale; a rate for each epoch, as in the code."""
    net = {name: value.clone() for name, value in seen.starts[0].items()}
    trained = [name for name in net if ".pet." in name or name.startswith("temporary_head.")]
    values = [net[name].requires_grad_() for name in trained]
    optimizer = torch.optim.SGD(values, lr=3.0, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4, eta_min=0.0)
    assert seen.starts[0]["temporary_head.scale"] == 1
    for step, (x, y) in enumerate(seen.steps[0]):
        f = F.normalize(features(net, x, HEADS), dim=1)
        logits = net["temporary_head.scale"] * f @ F.normalize(net["temporary_head.weight"], dim=1).T
        optimizer.zero_grad()
        F.cross_entropy(logits, y).backward()
        optimizer.step()
        if (step + 1) % (len(seen.steps[0]) // 4) == 0:
            scheduler.step()
    return {name: value.detach() for name, value in net.items()}


def rows(session: Session) -> tuple[Tensor, Tensor]:
    """All training images, un-augmented, in the order of tasks, and their labels."""
    parts = [task.train for task in session.stream.tasks]
    return torch.cat([images(session, part) for part in parts]), torch.cat([part.labels for part in parts])


@pytest.mark.oracle("aper", "adapters and scores are those of a plain loop after the official code")
def test_aper(drive: Drive, seen: Seen) -> None:
    session = drive("aper", FIRST, job=JOB)
    assert [len(steps) for steps in seen.steps] == [24, 0, 0]
    net = first_session(seen)
    for name, value in session.model.state_dict().items():
        if ".pet." in name:
            torch.testing.assert_close(value, net[name], rtol=1e-3, atol=1e-5)
    assert all(net[name].abs().max() > 1e-2 for name in net if name.endswith("up.weight"))
    pretrained = {name: value for name, value in net.items() if ".pet." not in name}
    x, y = rows(session)
    g = torch.cat([features(p, x, HEADS) for p in (pretrained, net)], dim=1)
    prototypes = torch.stack([g[y == c].mean(0) for c in range(10)])
    expected = F.normalize(g, dim=1) @ F.normalize(prototypes, dim=1).T
    session.model.eval()
    with torch.no_grad():
        found = session.strategy.predict(session.strategy.extract(x))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.oracle("ranpac", "adapters, ridge and scores are those of a plain loop after the official code")
def test_ranpac(drive: Drive, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """The random features and the order of each task's samples are ours."""
    order = torch.Generator()
    monkeypatch.setattr(RanPAC, "generator", lambda self, concern: order.manual_seed(len(concern)))
    session = drive("ranpac", {**FIRST, "projection": 60}, job=JOB)
    net, state = first_session(seen), session.strategy.state
    gram, products, ridges = torch.zeros(60, 60, dtype=torch.float64), torch.zeros(60, 10, dtype=torch.float64), []
    for task in session.stream.tasks:
        f = features(net, images(session, task.train), HEADS).double()
        h, y = (f @ state.projection).relu(), F.one_hot(task.train.labels, 10).double()
        gram, products = gram + h.T @ h, products + h.T @ y
        shuffled = torch.randperm(len(h), generator=order.manual_seed(len("ridge")))
        fit, held = shuffled[: int(0.8 * len(h))], shuffled[int(0.8 * len(h)) :]
        errors = []
        for ridge in 10.0 ** np.arange(-8, 9):
            own = h[fit].T @ h[fit] + ridge * torch.eye(60, dtype=torch.float64)
            weights = torch.linalg.solve(own, h[fit].T @ y[fit])
            errors.append(float(F.mse_loss(h[held] @ weights, y[held])))
        ridges.append(10.0 ** np.arange(-8, 9)[int(np.argmin(errors))])
    weights = torch.linalg.solve(gram + ridges[-1] * torch.eye(60, dtype=torch.float64), products)
    assert state.ridge == pytest.approx(ridges[-1]) and 1e-6 < ridges[-1] < 1e6
    x, _ = rows(session)
    session.model.eval()
    with torch.no_grad():
        found = session.strategy.predict(session.strategy.extract(x))
    expected = ((features(net, x, HEADS).double() @ state.projection).relu() @ weights).float()
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)
    assert (found.argmax(1) == expected.argmax(1)).all()
