"""Bottleneck adapters in parallel to attention (LAE) or to the MLP (AdaptFormer, APER, RanPAC)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ..vit import require_prenorm, vision_transformer
from .parameters import Scaler, Wrapper, beside


class Adapter(nn.Module):
    """scale * (W2 a(W1 x + b1) + b2) for tokens x [..., dim], zero at first.

    W1 [bottleneck, dim] has Kaiming-uniform entries (a = sqrt 5), b1, W2 and b2 are zero. scale: a fixed number, or
    None for a learnable one that starts at 1. dropout: in training, on the bottleneck.
    """

    def __init__(
        self,
        dim: int,
        bottleneck: int,
        activation: Callable[[], nn.Module],
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.down = nn.Linear(dim, bottleneck)
        self.activation = activation()
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Linear(bottleneck, dim)
        self.scaler = Scaler() if scale is None else None
        self.scale = scale
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        out = self.up(self.dropout(self.activation(self.down(x))))
        return out * self.scale if self.scaler is None else self.scaler(out)


class AdaptedAttention(Wrapper):
    """attention(u) + adapter(u), u the normalised tokens [B, N, dim]: the place of LAE's adapter."""

    def adapted(self, x: Tensor, **options: Any) -> Tensor:
        return self.inner(x, **options) + self.pet(x)


class AdaptedBlock(Wrapper):
    """timm's pre-norm block with an adapter beside the MLP: x + mlp(norm(x)) + adapter(x) after the attention.

    As in AdaptFormer (Chen et al., NeurIPS 2022), the adapter reads the tokens before the second normalisation.
    """

    def adapted(self, x: Tensor, **options: Any) -> Tensor:
        b: Any = self.inner
        x = x + b.drop_path1(b.ls1(b.attn(b.norm1(x), **options)))
        return x + b.drop_path2(b.ls2(b.mlp(b.norm2(x)))) + self.pet(x)


def attach_attention_adapters(model: nn.Module, which: Sequence[int], bottleneck: int, who: str) -> None:
    """LAE's adapters (GELU, learnable scale) beside the attention of the blocks `which`; the outputs stay the same."""
    vit = vision_transformer(model, who)
    for i in which:
        block: Any = vit.blocks[i]
        require_prenorm(block, who)
        adapter = Adapter(vit.embed_dim, bottleneck, nn.GELU)
        block.attn = AdaptedAttention(block.attn, beside(adapter, block))


def attach_mlp_adapters(
    model: nn.Module, which: Sequence[int], bottleneck: int, who: str, scale: float = 0.1, dropout: float = 0.1
) -> None:
    """AdaptFormer's adapters (ReLU, fixed scale) beside the MLP of the blocks `which`; the outputs stay the same."""
    vit = vision_transformer(model, who)
    for i in which:
        block: Any = vit.blocks[i]
        require_prenorm(block, who)
        adapter = Adapter(vit.embed_dim, bottleneck, nn.ReLU, scale, dropout)
        vit.blocks[i] = AdaptedBlock(block, beside(adapter, block))
