"""Squared per-sample gradients against a plain loop over samples."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clbench import gradients
from clbench.errors import UserError
from clbench.gradients import squared_gradients
from clbench.models import build_model
from clbench.objectives.classification import Classification
from clbench.objectives.language_modeling import LanguageModeling
from clbench.samples import Batch
from clbench.stream import Stream


def stream(objective: str, shape: tuple[int, ...], vocabulary: int | None = None) -> Stream:
    channels = shape[0] if objective == "classification" else 0
    return Stream(
        "s", objective, (), (), "", "", shape, mean=(0.5,) * channels, std=(0.5,) * channels, vocabulary=vocabulary
    )


CLASSIFICATION = Classification(stream("classification", (3, 8, 8)))


def batch_of(x: Tensor, y: Tensor) -> Batch:
    return Batch(x=x, y=y, raw=x, labels=torch.zeros(len(x), dtype=torch.int64), index=torch.arange(len(x)))


def by_plain_loop(model: nn.Module, objective, x: Tensor, y: Tensor) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
    """One sample, one backward pass, in eval mode."""
    model.eval()
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters() if p.requires_grad}
    for i in range(len(x)):
        model.zero_grad()
        objective.losses(model(x[i : i + 1]), y[i : i + 1]).sum().backward()
        for name, p in model.named_parameters():
            if p.requires_grad and p.grad is not None:
                total[name] += p.grad**2
    model.zero_grad()
    return {name: value / len(x) for name, value in total.items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.abs().max().item()
        torch.testing.assert_close(
            found[name], value, rtol=2e-4, atol=1e-6 * scale + 1e-12, msg=lambda m, name=name: f"{name}: {m}"
        )
    assert any(value.abs().sum() > 0 for value in found.values())


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def trained_norms(model: nn.Module) -> nn.Module:
    """Running statistics and affine parameters that are not the neutral ones."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


class InPlace(nn.Module):
    """Convolutions with strides and dilations, in-place operations on layer outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.wide = nn.Conv2d(6, 5, (3, 2), padding=(2, 0), dilation=2)
        self.grouped = nn.Conv2d(5, 10, 1, groups=5)
        self.fc = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu_(self.norm(self.conv(x)))
        h = self.wide(h)
        h *= 2
        return self.fc(self.grouped(h).relu_().mean((2, 3)))


class Shared(nn.Module):
    """A layer used twice, a weight used outside its layer, a bare parameter, an unused layer."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(12, 12)
        self.outside = nn.Linear(12, 12)
        self.norm = nn.LayerNorm(12)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.unused = nn.Linear(3, 3)
        self.out = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.twice(self.twice(x.flatten(1)[:, :12]).tanh())
        h = self.outside(h).tanh() @ self.outside.weight
        return self.out(self.norm(h)) * self.scale


class DataDependent(nn.Module):
    """Cannot be vmapped: branches on a value."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 12))

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(1)[:, :12]
        if h.sum().item() > 0:
            h = h * 2
        return h @ self.weight.T


class Sequence(nn.Module):
    """Linear and LayerNorm over positions, then a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 16)
        self.norm = nn.LayerNorm((3, 16))
        self.out = nn.Linear(16, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.fc(x).permute(0, 2, 1, 3)).relu()
        return self.out(h.mean((1, 2)))


@pytest.mark.parametrize("kind", [InPlace, Shared, DataDependent, Sequence])
def test_small_nets_equal_the_loop(kind: type[nn.Module]) -> None:
    model = trained_norms(kind())
    x, y = torch.randn(9, 3, 8, 8), torch.randint(0, 4, (9,))
    found = squared_gradients(model, CLASSIFICATION, [batch_of(x[:5], y[:5]), batch_of(x[5:], y[5:])])
    assert_same(found, by_plain_loop(model, CLASSIFICATION, x, y))


@pytest.mark.parametrize("spec", ["mlp:30x2", "slim-resnet18?width=4"])
@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_classifiers_equal_the_loop(spec: str, head: str) -> None:
    model = build_model(spec, channels=3, size=8, mean=(0.5,) * 3, std=(0.5,) * 3, head=head)
    model.grow(5)
    trained_norms(model)
    x, y = torch.randn(7, 3, 8, 8), torch.randint(0, 5, (7,))
    found = squared_gradients(model, CLASSIFICATION, [batch_of(x, y)])
    assert_same(found, by_plain_loop(model, CLASSIFICATION, x, y))


@pytest.mark.parametrize("labels", ["true", "predicted", "sampled"])
def test_a_language_model_equals_the_loop(labels: str) -> None:
    model = build_model("byte-gpt?d=16,layers=1", channels=0, size=12, mean=(), std=(), vocab_size=40)
    objective = LanguageModeling(stream("language_modeling", (12,), vocabulary=40))
    x, y = torch.randint(0, 40, (5, 12)), torch.randint(0, 40, (5, 12))
    generator = torch.Generator().manual_seed(3)
    found = squared_gradients(model, objective, [batch_of(x, y)], labels, generator)
    model.eval()
    if labels != "true":
        drawing = torch.Generator().manual_seed(3) if labels == "sampled" else None
        y = objective.decide(model(x).detach(), drawing)
    assert_same(found, by_plain_loop(model, objective, x, y))


def test_closed_forms_are_used_where_they_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    generic = gradients._PerSample.generic

    def watched(self, names, x, y):  # type: ignore[no-untyped-def]
        if len(x) > 2:
            asked.extend(names)
        return generic(self, names, x, y)

    monkeypatch.setattr(gradients._PerSample, "generic", watched)
    x, y = torch.randn(8, 3, 8, 8), torch.randint(0, 4, (8,))
    squared_gradients(trained_norms(InPlace()), CLASSIFICATION, [batch_of(x, y)])
    assert asked == ["grouped.weight", "grouped.bias"]
    asked.clear()
    text = build_model("byte-gpt?d=16,layers=1", channels=0, size=12, mean=(), std=(), vocab_size=40)
    tokens = torch.randint(0, 40, (2, 4, 12))
    objective = LanguageModeling(stream("language_modeling", (12,), vocabulary=40))
    squared_gradients(text, objective, [batch_of(*tokens)])
    assert asked == []
    squared_gradients(Shared(), CLASSIFICATION, [batch_of(x, y)])
    assert set(asked) == {"twice.weight", "twice.bias", "outside.weight", "scale", "unused.weight", "unused.bias"}


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained_norms(InPlace())
    x, y = torch.randn(11, 3, 8, 8), torch.randint(0, 4, (11,))
    whole = squared_gradients(model, CLASSIFICATION, [batch_of(x, y)])
    monkeypatch.setattr(gradients, "LARGEST_CHUNK", 3)
    monkeypatch.setattr(gradients, "CHUNK_ELEMENTS", 40)
    assert_same(squared_gradients(model, CLASSIFICATION, [batch_of(x, y)]), whole)


@pytest.mark.slow
def test_a_compiled_model_gives_the_same() -> None:
    model = trained_norms(InPlace())
    x, y = torch.randn(6, 3, 8, 8), torch.randint(0, 4, (6,))
    expected = squared_gradients(model, CLASSIFICATION, [batch_of(x, y)])
    model.eval().compile(backend="aot_eager")
    model(x)
    found = squared_gradients(model, CLASSIFICATION, [batch_of(x, y)])
    assert_same(found, expected)


def test_frozen_parameters_are_left_out_and_everything_is_as_it_was() -> None:
    model = trained_norms(InPlace())
    model.conv.weight.requires_grad_(False)
    model.train()
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = torch.randn(6, 3, 8, 8), torch.randint(0, 4, (6,))
    with torch.no_grad():
        found = squared_gradients(model, CLASSIFICATION, [batch_of(x, y)])
    assert model.training and model.conv.training and not model.norm.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert_same(found, by_plain_loop(model, CLASSIFICATION, x, y))
    assert "conv.weight" not in found


def test_sampled_labels_follow_the_generator_and_the_fisher() -> None:
    """Softmax regression: the Fisher's diagonal is the mean of x_j^2 p_k (1 - p_k)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    x = torch.randn(2, 1, 2, 2)
    many = batch_of(x.repeat(6000, 1, 1, 1), torch.zeros(12000, dtype=torch.int64))
    found = squared_gradients(model, CLASSIFICATION, [many], "sampled", torch.Generator().manual_seed(1))
    again = squared_gradients(model, CLASSIFICATION, [many], "sampled", torch.Generator().manual_seed(1))
    p = model(x).softmax(1).detach()
    expected = ((p * (1 - p))[:, :, None] * x.flatten(1).square()[:, None, :]).mean(0)
    torch.testing.assert_close(found["1.weight"], expected, rtol=0.1, atol=1e-3)
    assert torch.equal(found["1.weight"], again["1.weight"])


def test_mistakes() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(UserError, match="use true, sampled, predicted"):
        squared_gradients(model, CLASSIFICATION, [], "best")
    with pytest.raises(ValueError, match="generator"):
        squared_gradients(model, CLASSIFICATION, [], "sampled")
    assert squared_gradients(model, CLASSIFICATION, [])["1.bias"].tolist() == [0.0, 0.0, 0.0]
