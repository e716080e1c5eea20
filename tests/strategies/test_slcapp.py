"""SLCA++: what is trained and how fast, the symmetric loss, features scaled by age."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from clbench.engine.session import Session
from clbench.errors import UserError
from clbench.strategies.singular_lora import SingularLoRA, right_singular_vectors
from clbench.strategies.slcapp import SLCAPlusPlus, is_trained, reverse_cross_entropy

Drive = Callable[..., Session]
VIT = "timm:vit_tiny_patch16_224?img_size=16,patch_size=8,embed_dim=24,depth=1,num_heads=2"
JOB = {"stream": "split-digits", "backbone": VIT, "stream_settings": {"train_per_class": 10, "sizes": [3, 5, 2]}}
QUICK = {"epochs": 1, "batch_size": 16, "samples_per_class": 16, "ca_epochs": 1, "lr": 0.05}
SLICES = [[0, 1, 2], [3, 4, 5, 6, 7], [8, 9]]


@pytest.mark.oracle("slca++", "the LoRA starts on the leading right singular vectors, and changes no output at first")
@pytest.mark.parametrize("shape", [(12, 7), (7, 12)])
def test_the_lora_starts_on_singular_vectors(shape: tuple[int, int]) -> None:
    inner = nn.Linear(shape[1], shape[0])
    layer = SingularLoRA(inner, rank=3, scale=0.8)
    expected = torch.linalg.svd(inner.weight.double()).Vh[:3].float()
    signs = (layer.pet.a * expected).sum(1, keepdim=True).sign()
    torch.testing.assert_close(layer.pet.a.detach(), signs * expected, rtol=1e-4, atol=1e-5)
    x = torch.randn(5, 4, shape[1])
    assert torch.equal(layer(x), inner(x))
    with torch.no_grad():
        layer.pet.b.normal_()
    dense = inner.weight + 0.8 * layer.pet.b @ layer.pet.a
    torch.testing.assert_close(layer(x), nn.functional.linear(x, dense, inner.bias), rtol=1e-4, atol=1e-5)
    assert right_singular_vectors(torch.randn(2, 9), 1).shape == (1, 9)


@pytest.mark.oracle(
    "slca++", "LoRA, norms, biases, class token and head are trained; every other weight keeps its bits"
)
def test_what_is_trained(drive: Drive) -> None:
    untrained = drive("slca++", {**QUICK, "lr": 0.0, "ca_epochs": 0}, job=JOB).model.state_dict()
    trained = drive("slca++", {**QUICK, "ca_epochs": 0}, job=JOB).model.state_dict()
    moved = {name for name, value in trained.items() if not torch.equal(value, untrained[name])}
    bottom = {name for name in trained if name.endswith(("proj.weight", "inner.weight", "pos_embed"))}
    assert moved == trained.keys() - bottom
    assert {"backbone.net.cls_token", "backbone.net.blocks.0.attn.qkv.inner.bias"} < moved
    block = "backbone.net.blocks.0."
    loras = {f"{block}{layer}.pet.{factor}" for layer in ("attn.qkv", "mlp.fc1", "mlp.fc2") for factor in "ab"}
    assert loras == {name for name in moved if ".pet." in name}
    assert moved == {name for name in trained if is_trained(name)}


def test_learning_rates_by_group(drive: Drive) -> None:
    session = drive("slca++", {**QUICK, "lr": 0.01, "steps": 1}, job=JOB)
    strategy, tasks = session.strategy, session.stream.tasks
    parameters = {name: p for name, p in session.model.named_parameters() if is_trained(name)}
    for task, lora in ((tasks[0], 0.005), (tasks[1], 0.001)):
        groups = strategy.groups(task, parameters)
        assert all(group["min_lr"] == pytest.approx(1e-4) for group in groups)
        rates = {id(p): group["lr"] for group in groups for p in group["params"]}
        assert len(rates) == len(parameters)
        for name, p in parameters.items():
            expected = 0.01 if name.startswith("head.") else lora if ".pet." in name else 0.001
            assert rates[id(p)] == pytest.approx(expected), name


@pytest.mark.oracle("slca++", "the reverse cross-entropy by hand: (1 - p_y) log 10,000")
def test_the_symmetric_loss(drive: Drive) -> None:
    z, y = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 2])
    p = z.softmax(1)
    expected = math.log(1e4) * ((1 - p[0, 0]) + (1 - p[1, 2])) / 2
    torch.testing.assert_close(reverse_cross_entropy(z, y), expected)
    session = drive("slca++", {**QUICK, "ce": 0.5, "rce": 2.0}, job=JOB)
    batch = session.services.batch(session.stream.tasks[2].train, torch.arange(9), "plain")
    own = session.model(batch.x)[:, 8:]
    ce = nn.functional.cross_entropy(own, batch.y - 8)
    both = 0.5 * ce + 2.0 * reverse_cross_entropy(own, batch.y - 8)
    torch.testing.assert_close(session.strategy.loss(batch), both)


@pytest.mark.oracle("slca++", "draws are shortened by their class's age, each by its own random part, means are not")
def test_draws_are_shortened_by_age(drive: Drive) -> None:
    session = drive("slca++", QUICK, job=JOB)
    fitted = session.strategy.state.gaussians
    fitted.ridge, fitted.factors = 0.0, [factor * 0 for factor in fitted.factors]
    drawn = session.strategy.drawn(session.stream.tasks[2]).pool
    for label, mean in enumerate(fitted.means):
        age = next(2 - i for i, classes in enumerate(SLICES) if label in classes)
        lengths = drawn.inputs[drawn.labels == label] @ mean / mean.square().sum()
        u = (1 / lengths - 1) / max(age, 1)
        assert (u > 0.0099).all() and (u < 0.0301).all() if age else (u.abs() < 1e-6).all()
        assert len(lengths.unique()) > 8 or not age


@pytest.mark.oracle("slca++", "after alignment, and until the next task, old rows read longer features")
def test_old_rows_read_longer_features(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    aligned: list[bool] = []
    original = SLCAPlusPlus.phases

    def noted(self: SLCAPlusPlus, task: Any) -> Any:
        aligned.append(self.state.aligned)
        return original(self, task)

    monkeypatch.setattr(SLCAPlusPlus, "phases", noted)
    session = drive("slca++", QUICK, job=JOB)
    assert aligned == [False, False, False] and session.strategy.state.aligned
    model = session.model.eval()
    x = session.services.batch(session.stream.tasks[2].train, torch.arange(4), "plain").x
    with torch.no_grad():
        features, found = model.features(x), session.strategy.predict(x)
        for i, classes in enumerate(SLICES):
            expected = (features * (1 + 0.02 * (2 - i))) @ model.head.weight[classes].T + model.head.bias[classes]
            torch.testing.assert_close(found[:, classes], expected)
        session.strategy.state.aligned = False
        assert torch.equal(session.strategy.predict(x), model(x))


def test_it_needs_a_vision_transformer(drive: Drive) -> None:
    with pytest.raises(UserError, match=r"slca\+\+ needs a timm vision transformer"):
        drive("slca++", QUICK, job={**JOB, "backbone": "mlp:24x1"})
