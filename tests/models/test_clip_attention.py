"""Attention of other kinds taken apart: timm's, and the pools of ResNets and of SigLIP's image tower."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from clbench.errors import UserError
from clbench.models import build_model
from clbench.models.clip.attention import split_qkv
from clbench.models.clip.model import CLIP
from clbench.models.tune import apply_tuning
from clbench.pairs import Pairs
from clbench.torchvision_schemas import prepare

SPLIT = {"q", "k", "v"}


def _eva() -> nn.Module:
    from timm.models.eva import EvaAttention

    return EvaAttention(16, num_heads=2, qkv_bias=True, qkv_fused=True, norm_layer=nn.LayerNorm, scale_norm=True)


def _beit() -> nn.Module:
    from timm.models.beit import Attention

    return Attention(16, num_heads=2, qkv_bias=True, window_size=(2, 2))


def _pool_of_siglip() -> nn.Module:
    from timm.layers import AttentionPoolLatent

    return AttentionPoolLatent(16, num_heads=2)


def _pool_of_resnets() -> nn.Module:
    from open_clip.modified_resnet import AttentionPool2d

    return AttentionPool2d(2, 16, 2, 12)


@pytest.mark.parametrize("make", [_eva, _beit, _pool_of_siglip, _pool_of_resnets])
@pytest.mark.parametrize("fallback", [False, True])
def test_the_outputs_stay_and_every_layer_is_called(make: Callable[[], nn.Module], fallback: bool) -> None:
    """fallback: without torch's scaled dot product."""
    prepare()
    torch.manual_seed(0)
    holder = nn.ModuleDict({"attn": make()})
    for p in holder.parameters():
        nn.init.normal_(p, std=0.3)
    if fallback:
        if not hasattr(holder["attn"], "fused_attn"):
            pytest.skip("it has one way to compute")
        setattr(holder["attn"], "fused_attn", False)  # noqa: B010
    x = torch.randn(3, 16, 2, 2) if make is _pool_of_resnets else torch.randn(3, 5, 16)
    before = holder["attn"](x)
    assert split_qkv(holder) == ["attn"]
    called: set[str] = set()
    for name, module in holder.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda *_, name=name: called.add(name))
    torch.testing.assert_close(holder["attn"](x), before, atol=2e-6, rtol=1e-5)
    layers = {name for name, module in holder.named_modules() if isinstance(module, nn.Linear)}
    assert called == layers
    assert {name.rpartition(".")[2].removesuffix("_proj") for name in layers} >= SPLIT


TOWER = "vit_like_siglip_of_tests"
SIGLIP: dict[str, Any] = {
    "embed_dim": 16,
    "init_logit_bias": -10.0,
    "custom_text": True,
    "vision_cfg": {"timm_model_name": TOWER, "timm_pool": "map", "timm_proj": "none", "image_size": 8},
    "text_cfg": {
        "context_length": 8,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 1,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    },
}  # fmt: skip


def _image_tower(pretrained: bool = False, **options: Any) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    sizes: dict[str, Any] = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    net = VisionTransformer(**sizes, class_token=False, global_pool="map", num_classes=options.get("num_classes", 0))
    net.default_cfg = net.pretrained_cfg = {"input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3}  # type: ignore[assignment]
    return net


def write_siglip(path: Path, size: int = 8) -> str:
    """The string of a model whose image tower is timm's, like SigLIP's."""
    prepare()
    from timm.models import is_model, register_model

    if not is_model(TOWER):
        _image_tower.__name__ = TOWER
        register_model(_image_tower)
    vision = {**SIGLIP["vision_cfg"], "image_size": size}
    path.write_text(json.dumps({"model_cfg": {**SIGLIP, "vision_cfg": vision}}))
    return f"open_clip:{path}"


def test_a_tower_of_another_size_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not work with images of 16 px") as error:
        build_model(
            write_siglip(tmp_path / "c.json", 16), channels=3, size=8, mean=(0.5,) * 3, std=(0.2,) * 3, pairs=True
        )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mode", ["lora:2", "dora:2", "vera:4"])
def test_adapters_of_a_model_like_siglip(tmp_path: Path, mode: str) -> None:
    """Its pool by attention has them, each layer its own, its text projection (a layer, too) has none."""
    torch.manual_seed(0)
    spec = write_siglip(tmp_path / "c.json")
    model = build_model(spec, channels=3, size=8, mean=(0.5,) * 3, std=(0.2,) * 3, pairs=True)
    assert isinstance(model, CLIP)
    assert model.bias is not None and model.bias.item() == -10
    apply_tuning(model, mode)
    adapted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {f"backbone.visual.trunk.attn_pool.{layer}" for layer in ("q", "kv.k", "kv.v", "proj")} <= {
        name.split(".lora_")[0].split(".vera_")[0] for name in adapted
    }
    assert not any("text_projection" in name for name in adapted)
    for p in adapted.values():
        if not p.any():
            nn.init.normal_(p, std=0.3)
    x = Pairs(torch.randn(3, 3, 8, 8), model.tokenize(["a red square", "blue paint", "it is green"]))
    nn.functional.cross_entropy(model(x).logits(), torch.arange(3)).backward()
    assert [name for name, p in adapted.items() if p.grad is None or not p.grad.any()] == []
