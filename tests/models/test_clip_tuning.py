"""What of a model of images and texts is trained: adapters in both towers, a tower locked, the scale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from clbench.errors import UserError
from clbench.models import build_model
from clbench.models.clip.model import CLIP
from clbench.models.tune import apply_tuning, parse_tuning
from clbench.pairs import Pairs

ADAPTERS = ("lora:2", "dora:2", "vera:16")
SCALE = "backbone.logit_scale"


@pytest.fixture
def tuned(pairs_stream: Any, tmp_path: Path) -> Callable[[str], CLIP]:
    """The small model in a mode of tuning."""

    def made(mode: str) -> CLIP:
        torch.manual_seed(0)
        spec = pairs_stream.tiny_clip(tmp_path)
        model = build_model(spec, channels=3, size=8, mean=(0.5,) * 3, std=(0.2,) * 3, pairs=True)
        assert isinstance(model, CLIP)
        apply_tuning(model, mode)
        return model

    return made


def pairs(model: CLIP) -> Pairs:
    texts = ["a red square", "blue paint", "it is green"]
    return Pairs(torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)), model.tokenize(texts))


def adapters(model: CLIP) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def moved_from_zero(model: CLIP) -> None:
    """Factors that begin at zero hide the gradients of their partners."""
    for p in adapters(model).values():
        if not p.any():
            nn.init.normal_(p, std=0.3)


@pytest.mark.parametrize("mode", ADAPTERS)
def test_every_adapter_of_both_towers_gets_a_gradient(tuned: Callable[[str], CLIP], mode: str) -> None:
    model = tuned(mode)
    moved_from_zero(model)
    nn.functional.cross_entropy(model(pairs(model)).logits(), torch.arange(3)).backward()
    chosen = adapters(model)
    assert [name for name, p in chosen.items() if p.grad is None or not p.grad.any()] == []
    of = {side: set(chosen) & model.tower(side) for side in ("image", "text")}  # type: ignore[arg-type]
    assert len(of["image"]) == len(of["text"]) >= 12 and of["image"] | of["text"] == set(chosen)
    layers = {name.rpartition(".")[0].split(".lora_")[0].split(".vera_")[0] for name in chosen}
    ends = {layer.rpartition(".")[2] for layer in layers}
    assert ends == {"q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"} and len(layers) == 12


@pytest.mark.parametrize("mode", ADAPTERS)
def test_adapters_start_as_the_identity_and_can_be_merged(tuned: Callable[[str], CLIP], mode: str) -> None:
    model, plain = tuned(mode).eval(), tuned("full").eval()
    x = pairs(model)
    with torch.no_grad():
        torch.testing.assert_close(model(x).logits(), plain(x).logits(), atol=1e-5, rtol=1e-5)
        moved_from_zero(model)
        adapted = model(x).logits()
        assert not torch.allclose(adapted, plain(x).logits(), atol=1e-2)
        for layer in [module for module in model.modules() if hasattr(module, "merge")]:
            layer.merge()  # type: ignore[operator]
        torch.testing.assert_close(model(x).logits(), adapted, atol=1e-4, rtol=1e-4)
        for name, module in list(model.named_modules()):
            if hasattr(module, "merge"):
                parent, _, last = name.rpartition(".")
                setattr(model.get_submodule(parent), last, module.get_base_layer())  # type: ignore[operator]
        torch.testing.assert_close(model(x).logits(), adapted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mode", ["norm", "bias", "lora:2", "locked-text"])
def test_the_scale_is_trained_where_the_mode_says_so(tuned: Callable[[str], CLIP], mode: str) -> None:
    without, with_it = set(adapters(tuned(mode))), set(adapters(tuned(f"{mode}+scale")))
    assert with_it == without | {SCALE}
    assert (SCALE in without) == (mode == "locked-text")


def test_adapters_of_the_same_seed_are_the_same(tuned: Callable[[str], CLIP]) -> None:
    """VeRA's shared factors are not saved: they must come again."""
    one, other = tuned("vera:16"), tuned("vera:16")
    moved_from_zero(one)
    other.load_state_dict(one.state_dict())
    x = pairs(one)
    assert torch.equal(one(x).logits(), other(x).logits())
    assert not [name for name in one.state_dict() if "vera_A" in name or "vera_B" in name]


def test_modes_are_read() -> None:
    assert [parse_tuning(mode) for mode in ("lora", "dora:3", "vera", "norm+scale")] == [
        ("lora", 8),
        ("dora", 3),
        ("vera", 256),
        ("norm", 0),
    ]
    for mode in ("dora:0", "vera:", "full:3", "+scale", "norm+bias", "scale"):
        with pytest.raises(UserError, match="use full, head"):
            parse_tuning(mode)
    classifier = build_model("mlp:8x1", channels=3, size=4, mean=(0.5,) * 3, std=(0.2,) * 3)
    with pytest.raises(UserError, match="no scale of similarities"):
        apply_tuning(classifier, "full+scale")
