"""Prefix tuning of attention, with LAE's compensation of the prefix's attention mass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..vit import blocks, require_attention
from .parameters import Scaler, Wrapper, beside

Compensation = Literal["divided", "added", "none"]


class Prefix(nn.Module):
    """Key and value tokens [length, width], uniform in [0, 0.01], each times a learnable number that starts at 1."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.key = nn.Parameter(torch.empty(length, width).uniform_(0, 0.01))
        self.value = nn.Parameter(torch.empty(length, width).uniform_(0, 0.01))
        self.key_scaler = Scaler()
        self.value_scaler = Scaler()

    def keys_and_values(self, n: int) -> tuple[Tensor, Tensor]:
        """Scaled, for n heads: [n, length, width / n] each."""
        key, value = self.key_scaler(self.key), self.value_scaler(self.value)
        return (key.unflatten(1, (n, -1)).transpose(0, 1), value.unflatten(1, (n, -1)).transpose(0, 1))


def compensate(weights: Tensor, length: int, compensation: Compensation) -> Tensor:
    """Attention weights [..., length + N] of a joint softmax over prefix and tokens, lambda the prefix's mass.

    "divided", as in LAE's code: the prefix part is divided by lambda and so sums to 1, the tokens' part keeps its
    1 - lambda. "added": the tokens' part is divided by 1 - lambda too, which makes it the attention without prefix,
    to which a prefix part of total weight 1 is added. "none": as they are, plain prefix tuning.
    """
    prefix, tokens = weights[..., :length], weights[..., length:]
    if compensation != "none":
        prefix = prefix / prefix.sum(dim=-1, keepdim=True).clamp(min=1e-12)
    if compensation == "added":
        tokens = tokens / tokens.sum(dim=-1, keepdim=True).clamp(min=1e-12)
    return torch.cat([prefix, tokens], dim=-1)


class PrefixedAttention(Wrapper):
    """timm's `Attention`, without a mask, whose tokens [B, N, dim] attend to a prefix, too."""

    def __init__(self, inner: nn.Module, pet: Prefix, compensation: Compensation) -> None:
        super().__init__(inner, pet)
        self.compensation: Compensation = compensation

    def adapted(self, x: Tensor, **options: Any) -> Tensor:
        a: Any = self.inner
        pet: Any = self.pet
        q, k, v = a.qkv(x).unflatten(2, (3, a.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = a.q_norm(q), a.k_norm(k)
        prefix_k, prefix_v = pet.keys_and_values(a.num_heads)
        scores = torch.cat([q @ prefix_k.mT, q @ k.mT], dim=-1) * a.scale
        length = prefix_k.shape[1]
        weights = compensate(a.attn_drop(scores.softmax(dim=-1)), length, self.compensation)
        out = weights[..., :length] @ prefix_v + weights[..., length:] @ v
        out = out.transpose(1, 2).flatten(2)
        if hasattr(a, "norm"):  # timm from 1.0.17 on
            out = a.norm(out)
        if getattr(a, "gate", None) is not None:
            out = out * a.gate(x).sigmoid()
        return a.proj_drop(a.proj(out))


def attach_prefix(
    model: nn.Module, which: Sequence[int], length: int, who: str, compensation: Compensation = "divided"
) -> None:
    """A prefix in the attention of the blocks `which`. Unlike adapters and LoRA it changes the outputs at once: the
    tokens attend to it from the beginning."""
    stack = blocks(model, who)
    for i in which:
        block: Any = stack[i]
        require_attention(block, who)
        prefix = beside(Prefix(length, block.attn.qkv.out_features // 3), block)
        block.attn = PrefixedAttention(block.attn, prefix, compensation)
