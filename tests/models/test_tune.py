from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from clbench.errors import UserError
from clbench.models.tune import apply_tuning, parse_tuning, trainable_names

Build = Callable[..., nn.Module]
TINY_VIT = "timm:test_vit?img_size=16,patch_size=4"


@pytest.fixture(params=["vit", "byte-gpt"])
def case(request: pytest.FixtureRequest, image_model: Build, text_model: Build) -> tuple[nn.Module, Tensor]:
    if request.param == "vit":
        return image_model(TINY_VIT, classes=3), torch.randn(4, 3, 16, 16)
    return text_model(), torch.randint(0, 257, (4, 16))


def trained(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("mode", ["full", "head", "norm", "bias", "lora:3"])
def test_what_is_trained_is_what_moves(case: tuple[nn.Module, Tensor], mode: str) -> None:
    model, x = case
    apply_tuning(model, mode)
    assert trained(model) == trainable_names(model, mode) != set()
    for name, parameter in model.named_parameters():  # LoRA starts at zero, which hides half of the gradients
        if "lora_B" in name:
            nn.init.normal_(parameter)
    model(x).square().sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.any(), name
        else:
            assert parameter.grad is None, name


def test_lora_starts_as_the_identity_and_has_the_right_layers(case: tuple[nn.Module, Tensor]) -> None:
    model, x = case
    linear = [n for n, m in model.backbone.named_modules() if isinstance(m, nn.Linear) and n != "lm_head"]
    before = model(x)
    apply_tuning(model, "lora:3")
    torch.testing.assert_close(model(x), before)
    factors = [name for name, _ in model.named_parameters() if ".lora_" in name]
    assert len(factors) == 2 * len(linear) > 0
    assert {min(dict(model.named_parameters())[name].shape) for name in factors} == {3}
    assert model.training


def test_lora_is_seeded_and_survives_growth(image_model: Build) -> None:
    states = []
    for _ in range(2):
        model = image_model(TINY_VIT, classes=3)
        torch.manual_seed(11)
        apply_tuning(model, "lora")
        model.grow(2)
        states.append(model.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert {"head.weight", "head.bias"} <= trained(model) and model.n_classes == 5


def test_a_layer_that_is_never_called_gets_no_factors(image_model: Build) -> None:
    """nn.MultiheadAttention uses the weight of its output projection without calling the layer."""
    model = image_model("mlp:16x1", classes=2)

    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3 * 16 * 16, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.first(x.flatten(1))[:, None]
            return self.attention(tokens, tokens, tokens)[0][:, 0].repeat(1, 2)

    model.backbone = Attend()
    apply_tuning(model, "lora:2")
    factors = [name for name in trained(model) if "lora_" in name]
    assert factors and all(name.startswith("backbone.first") for name in factors)


def test_norm_and_bias_choose_by_kind(image_model: Build) -> None:
    model = image_model("slim-resnet18?width=4", classes=2)
    head = {"head.weight", "head.bias"}
    norms = {n for n, p in model.backbone.named_parameters(prefix="backbone") if p.ndim == 1}
    assert trainable_names(model, "norm") == head | norms
    assert trainable_names(model, "bias") == head | {n for n in norms if n.endswith(".bias")}


def test_full_after_head_trains_everything_again(image_model: Build) -> None:
    model = image_model("mlp:8x1", classes=2)
    apply_tuning(model, "head")
    assert trained(model) == {"head.weight", "head.bias"}
    apply_tuning(model, "full")
    assert trained(model) == {name for name, _ in model.named_parameters()}


def test_bad_modes(image_model: Build) -> None:
    assert parse_tuning("lora") == ("lora", 8) and parse_tuning("lora:4") == ("lora", 4)
    for mode in ("lora:0", "lora:", "all", "head:3"):
        with pytest.raises(UserError, match="use full, head"):
            parse_tuning(mode)
    with pytest.raises(UserError, match="no linear layers"):
        apply_tuning(image_model("slim-resnet18?width=4"), "lora")
    with pytest.raises(UserError, match="no linear layers"):
        apply_tuning(image_model("pixels", head="prototype"), "lora")
