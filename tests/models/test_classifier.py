from __future__ import annotations

import copy
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from clbench.errors import UserError
from clbench.models import build_model, model_info
from clbench.models.heads import HEADS, CosineHead, LinearHead, PrototypeHead
from clbench.models.modes import set_mode

Build = Callable[..., nn.Module]
TINY_VIT = "timm:test_vit?img_size=16,patch_size=4"
SMALL = ["slim-resnet18?width=4", "mlp:12x2", "pixels", TINY_VIT]


def images(model: nn.Module, count: int = 4, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    side = model.input.size or 16
    return torch.randn(count, model.input.channels, side, side, generator=generator)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("head", ["linear", "cosine", "prototype"])
@pytest.mark.parametrize("spec", SMALL)
def test_shapes(image_model: Build, spec: str, head: str, channels: int) -> None:
    model = image_model(spec, channels=channels, head=head)
    x = images(model)
    assert model.features(x).shape == (4, model.feature_dim)
    assert model(x).shape == (4, 0)
    for expected in (3, 4):
        model.grow(expected - model.n_classes)
        assert model(x).shape == (4, expected) and model.n_classes == expected
        torch.testing.assert_close(model(x), model.head(model.features(x)))


def test_slim_resnet18_has_the_published_size(image_model: Build) -> None:
    """1,094,750 parameters with ten classes, counted here layer by layer, and the paper's 4x4 map before pooling."""

    def block(n_in: int, n_out: int) -> int:
        shortcut = 0 if n_in == n_out else n_in * n_out + 2 * n_out
        return 9 * n_in * n_out + 9 * n_out * n_out + 4 * n_out + shortcut

    widths = [20, 20, 20, 40, 40, 80, 80, 160, 160]
    blocks = sum(block(a, b) for a, b in pairwise(widths))
    expected = 27 * 20 + 40 + blocks + 160 * 10 + 10
    model = image_model("slim-resnet18", size=32, classes=10)
    assert sum(p.numel() for p in model.parameters()) == expected == 1_094_750
    assert model.feature_dim == 160
    stem = torch.relu(model.backbone.bn1(model.backbone.conv1(torch.zeros(1, 3, 32, 32))))
    assert model.backbone.stages(stem).shape == (1, 160, 4, 4)


def test_pixels_are_the_flattened_input(image_model: Build) -> None:
    model = image_model("pixels")
    x = images(model)
    assert torch.equal(model.features(x), x.reshape(4, -1))
    assert torch.equal(model.features(x.to(memory_format=torch.channels_last)), x.reshape(4, -1))
    assert model.input.mean == (0.4, 0.4, 0.4)


@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=5), kind=st.sampled_from(sorted(HEADS)))
@settings(max_examples=30, deadline=None)
def test_growth_keeps_old_rows_and_names(sizes: list[int], kind: str) -> None:
    head = HEADS[kind](6)
    names = set(head.state_dict())
    for size in sizes:
        for tensor in head.state_dict().values():
            tensor.normal_()
        before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
        head.grow(size)
        after = head.state_dict()
        assert set(after) == names
        for name, tensor in before.items():
            kept = after[name][: tensor.shape[0]] if tensor.ndim else after[name]
            assert torch.equal(kept, tensor)
    assert head.n_classes == sum(sizes)
    assert head(torch.randn(5, 6)).shape == (5, sum(sizes))


def test_new_rows_are_those_of_a_fresh_linear_layer() -> None:
    head = LinearHead(7)
    head.grow(2)
    torch.manual_seed(5)
    head.grow(3)
    torch.manual_seed(5)
    fresh = nn.Linear(7, 3)
    assert torch.equal(head.weight[2:], fresh.weight) and torch.equal(head.bias[2:], fresh.bias)


def test_growth_keeps_what_is_frozen_and_the_type() -> None:
    head = LinearHead(3).double()
    head.requires_grad_(False)
    head.grow(2)
    assert head.weight.dtype == torch.float64 and not head.weight.requires_grad
    with pytest.raises(ValueError, match="cannot grow"):
        head.grow(-1)


def test_cosine_head_ignores_lengths() -> None:
    head = CosineHead(5)
    head.grow(3)
    x = torch.randn(4, 5)
    torch.testing.assert_close(head(x), head(7 * x))
    assert head(x).abs().max() <= 10 + 1e-4
    head(x).sum().backward()
    assert head.scale.grad is not None


def test_prototype_head_ranks_by_distance() -> None:
    head = PrototypeHead(5)
    head.grow(4)
    head.means[:] = torch.randn(4, 5)
    x = torch.randn(20, 5)
    assert torch.equal(head(x).argmax(1), torch.cdist(x, head.means).argmin(1))
    assert not list(head.parameters())


@pytest.mark.parametrize("spec", SMALL)
def test_a_seed_gives_the_same_bytes(image_model: Build, spec: str) -> None:
    one, two, other = (image_model(spec, classes=3, seed=seed) for seed in (3, 3, 4))
    torch.rand(10)
    assert model_info(one) == model_info(two)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name
    assert any(not torch.equal(t, other.state_dict()[n]) for n, t in one.state_dict().items())


def test_record_entry(image_model: Build) -> None:
    model = image_model("slim-resnet18?width=4", classes=2)
    info = model_info(model)
    assert json.loads(json.dumps(info)) == info
    assert info["checkpoint"] is None and info["head"] == "LinearHead" and info["feature_dim"] == 32
    assert info["input"]["mean"] == [0.4] * 3 and info["input"]["range"] == [0.0, 1.0]
    with torch.no_grad():
        model.backbone.conv1.weight += 1
    model.grow(1)
    assert model_info(copy.deepcopy(model)) == info, "the entry is that of the weights as they were built"
    assert model_info(image_model("slim-resnet18?width=4", seed=9))["weights_sha256"] != info["weights_sha256"]


@pytest.mark.parametrize("spec", ["slim-resnet18?width=4", "mlp:12x2", TINY_VIT])
def test_layouts_precision_and_copies(image_model: Build, spec: str) -> None:
    model = image_model(spec, classes=3).eval()
    x = images(model)
    plain = model(x)
    copied = copy.deepcopy(model).to(memory_format=torch.channels_last)
    torch.testing.assert_close(copied(x.to(memory_format=torch.channels_last)), plain, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(x).dtype == torch.bfloat16
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert torch.equal(functional_call(model, state, (x,)), plain)
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(compiled(x), plain)


def test_modes(image_model: Build) -> None:
    model = image_model("slim-resnet18?width=4", classes=2)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    x = images(model)
    before = norms[0].running_mean.clone()
    set_mode(model, "frozen_norms")
    model(x)
    assert model.training and not any(m.training for m in norms)
    assert torch.equal(norms[0].running_mean, before)
    set_mode(model, "train")
    model(x)
    assert all(m.training for m in norms) and not torch.equal(norms[0].running_mean, before)
    set_mode(model, "eval")
    assert not any(m.training for m in model.modules())
    with pytest.raises(ValueError, match="frozen_norms"):
        set_mode(model, "half")


@pytest.mark.parametrize("spec", ["slim-resnet18?width=4", TINY_VIT])
def test_per_sample_gradients(image_model: Build, spec: str) -> None:
    model = image_model(spec, classes=3)
    set_mode(model, "frozen_norms")
    x, y = images(model), torch.tensor([0, 2, 1, 1])
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def loss(values: dict[str, Tensor], one: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, (values, buffers), (one[None],)), label[None])

    together = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    for i in range(4):
        model.zero_grad()
        F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(together[name][i], parameter.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("spec", ["slim-resnet18?width=4", "mlp:12x2"])
def test_local_weights_of_the_small_models(image_model: Build, spec: str, tmp_path: Path) -> None:
    trained = image_model(spec, seed=7)
    path = tmp_path / "weights.safetensors"
    save_file(trained.backbone.state_dict(), path)
    family, _, options = spec.partition("?")
    loaded = image_model(f"{family}@{path}" + (f"?{options}" if options else ""), seed=8)
    assert model_info(loaded)["weights_sha256"] == model_info(trained)["weights_sha256"]
    assert model_info(loaded)["checkpoint"] == "file:weights.safetensors"
    with pytest.raises(UserError, match="do not fit the model"):
        image_model(f"mlp:5x1@{path}")


def test_bad_weight_files(image_model: Build, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{not a header}}}")
    (tmp_path / "old.bin").write_bytes(b"x")
    for name, part in (("bad.safetensors", "not a readable"), ("old.bin", "only .safetensors"), ("no.bin", "no such")):
        with pytest.raises(UserError, match=part) as caught:
            image_model(f"mlp@{tmp_path / name}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("slim-resnet18?wdith=4", "unknown option 'wdith'; did you mean width"),
        ("slim-resnet18?width=0", "whole number >= 1"),
        ("mlp:400", "HIDDENxDEPTH"),
        ("byte-gpt", "takes text, but the stream gives images"),
    ],
)
def test_bad_options(image_model: Build, spec: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        image_model(spec)


def test_bad_head_and_statistics() -> None:
    with pytest.raises(UserError, match="did you mean cosine"):
        build_model("mlp", channels=1, size=8, mean=[0.5], std=[0.5], head="cosin")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="1 means"):
        build_model("mlp", channels=3, size=8, mean=[0.5], std=[0.5])
