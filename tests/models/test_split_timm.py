"""timm's attention taken apart: the same function, from layers that are called."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clbench.errors import UserError
from clbench.models.clip.attention import LikeTimm, split_qkv
from clbench.torchvision_schemas import prepare


def fused(**settings: Any) -> nn.Module:
    prepare()
    from timm.models.vision_transformer import Attention

    torch.manual_seed(0)
    module = Attention(32, num_heads=4, **settings)
    for tensor in module.parameters():
        nn.init.normal_(tensor, std=0.3)
    return nn.ModuleDict({"attn": module})


@pytest.mark.parametrize(
    "settings", [{"qkv_bias": True}, {"qkv_bias": False}, {"qk_norm": True, "norm_layer": nn.LayerNorm}]
)
def test_outputs_and_gradients_stay(settings: dict[str, Any]) -> None:
    root, other = fused(**settings), fused(**settings)
    assert split_qkv(other) == ["attn"] and isinstance(other["attn"], LikeTimm)  # type: ignore[index]
    x = torch.randn(2, 5, 32)
    before, after = root["attn"](x), other["attn"](x)  # type: ignore[index]
    torch.testing.assert_close(after, before)
    before.square().sum().backward()
    after.square().sum().backward()
    parts = [other["attn"].get_submodule(f"{part}_proj") for part in "qkv"]  # type: ignore[index]
    together = torch.cat([part.weight.grad for part in parts])  # type: ignore[misc]
    torch.testing.assert_close(together, root["attn"].qkv.weight.grad)  # type: ignore[index, union-attr]


@pytest.mark.parametrize("kind", ["boolean", "added", "causal"])
def test_masks(kind: str) -> None:
    x, allowed = torch.randn(2, 5, 32), torch.ones(5, 5, dtype=torch.bool).tril()
    split = fused(qkv_bias=True)
    split_qkv(split)
    masks: dict[str, dict[str, Any]] = {
        "boolean": {"attn_mask": allowed},
        "added": {"attn_mask": torch.zeros(5, 5).masked_fill(~allowed, float("-inf"))},
        "causal": {"is_causal": True},
    }
    expected: Tensor = split["attn"](x[:, :1])  # type: ignore[index]
    given: Tensor = split["attn"](x, **masks[kind])  # type: ignore[index]
    torch.testing.assert_close(given[:, :1], expected)
    assert not torch.allclose(given, split["attn"](x))  # type: ignore[index]


def test_dropout_is_refused() -> None:
    with pytest.raises(UserError, match="dropout"):
        split_qkv(fused(attn_drop=0.1))
