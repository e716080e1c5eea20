"""LoRA on keys and values inside a fused qkv layer (LAE)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..vit import blocks, require_attention
from .parameters import Scaler, beside


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
    """A fused qkv layer [dim to 3 * width] whose k and v parts each get a LoRA of their own; q stays."""

    def __init__(self, inner: nn.Linear, rank: int) -> None:
        super().__init__()
        self.inner = inner
        width = inner.out_features // 3
        self.pet = nn.ModuleDict({part: LoRA(inner.in_features, width, rank) for part in ("k", "v")})

    def forward(self, x: Tensor) -> Tensor:
        change = torch.cat([self.pet["k"](x), self.pet["v"](x)], dim=-1)
        return self.inner(x) + F.pad(change, (self.inner.out_features // 3, 0))


def attach_lora(model: nn.Module, which: Sequence[int], rank: int, who: str) -> None:
    """LoRA of this rank on k and v of the blocks `which`; the outputs stay the same."""
    stack = blocks(model, who)
    for i in which:
        block: Any = stack[i]
        require_attention(block, who)
        block.attn.qkv = beside(KVLoRA(block.attn.qkv, rank), block)
