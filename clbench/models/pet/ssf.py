"""Scaling and shifting of features (SSF)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..vit import require_attention, require_prenorm, vision_transformer
from .parameters import Wrapper, beside


class ScaleAndShift(nn.Module):
    """gamma * x + beta for x [..., width]; gamma is drawn from N(1, 0.02^2), beta from N(0, 0.02^2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(width).normal_(1.0, 0.02))
        self.beta = nn.Parameter(torch.empty(width).normal_(0.0, 0.02))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma + self.beta


class Shifted(Wrapper):
    """A layer whose outputs are scaled and shifted."""

    def adapted(self, x: Tensor, **options: Any) -> Tensor:
        return self.pet(self.inner(x))


def attach_ssf(model: nn.Module, who: str) -> None:
    """SSF (Lian et al., NeurIPS 2022) behind the operations of all blocks: both norms, qkv, the attention's output
    and the linear layers of the MLP; behind the patch embedding, where it is timm's; and behind the final norm.

    As gamma is drawn around 1, the outputs change a little at once.
    """
    vit: Any = vision_transformer(model, who)
    reference = vit.blocks[0]

    def shift(part: Any, name: str) -> None:
        layer = getattr(part, name)
        width = layer.out_features if isinstance(layer, nn.Linear) else vit.embed_dim
        setattr(part, name, Shifted(layer, beside(ScaleAndShift(width), reference)))

    if hasattr(vit.patch_embed, "norm"):
        shift(vit.patch_embed, "norm")
    for block in vit.blocks:
        require_prenorm(block, who)
        require_attention(block, who)
        linear = [name for name, layer in block.mlp.named_children() if isinstance(layer, nn.Linear)]
        for part, names in ((block, ("norm1", "norm2")), (block.attn, ("qkv", "proj")), (block.mlp, linear)):
            for name in names:
                shift(part, name)
    shift(vit, "norm" if isinstance(vit.fc_norm, nn.Identity) else "fc_norm")
