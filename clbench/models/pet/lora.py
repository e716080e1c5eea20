"""LoRA on keys and values inside a fused qkv layer (LAE)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..vit import blocks, require_attention
from .parameters import Scaler, Wrapper, beside


class LoRA(nn.Module):
    """s B A x for tokens x [..., dim], zero at first: A [rank, dim] Kaiming-uniform (a = sqrt 5), B [out, rank] zero,
    s a learnable number, 1 at first."""

    def __init__(self, dim: int, out: int, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, dim))
        self.b = nn.Parameter(torch.zeros(out, rank))
        self.scaler = Scaler()
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.scaler(F.linear(F.linear(x, self.a), self.b))


class KVLoRA(nn.Module):
    """The change of the outputs of a fused qkv layer [..., 3 * width]: zero for q, a LoRA each for k and v."""

    def __init__(self, dim: int, width: int, rank: int) -> None:
        super().__init__()
        self.width = width
        self.k = LoRA(dim, width, rank)
        self.v = LoRA(dim, width, rank)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(torch.cat([self.k(x), self.v(x)], dim=-1), (self.width, 0))


class AdaptedQKV(Wrapper):
    """qkv(x) + change(x)."""

    def adapted(self, x: Tensor, **options: Any) -> Tensor:
        return self.inner(x) + self.pet(x)


def attach_lora(model: nn.Module, which: Sequence[int], rank: int, who: str) -> None:
    """LoRA of this rank on k and v of the blocks `which`; the outputs stay the same."""
    stack = blocks(model, who)
    for i in which:
        block: Any = stack[i]
        require_attention(block, who)
        qkv = block.attn.qkv
        block.attn.qkv = AdaptedQKV(qkv, beside(KVLoRA(qkv.in_features, qkv.out_features // 3, rank), block))
