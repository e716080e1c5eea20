"""LoRA that starts along the strongest input directions of the frozen weight (SLCA++)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clbench.models.pet.parameters import beside
from clbench.models.vit import blocks, require_attention


class SingularFactors(nn.Module):
    """A [rank, in]: the right singular vectors of a weight [out, in] with the largest singular values; B [out, rank]:
    zero. The rank is at most the smaller side of the weight."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(right_singular_vectors(weight.detach(), min(rank, *weight.shape)))
        self.b = nn.Parameter(torch.zeros(len(weight), len(self.a)))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.a), self.b)


class SingularLoRA(nn.Module):
    """inner(x) + scale * B A x."""

    def __init__(self, inner: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.inner = inner
        self.pet = SingularFactors(inner.weight, rank)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.scale * self.pet(x)


def attach_singular_lora(model: nn.Module, rank: int, scale: float, who: str) -> None:
    """On qkv and the linear layers of the MLP of every block; the outputs stay the same."""
    for block in blocks(model, who):
        require_attention(block, who)
        parts: list[Any] = [block.attn, block.mlp]
        layers = [(parts[0], "qkv")]
        layers += [(parts[1], name) for name, part in parts[1].named_children() if isinstance(part, nn.Linear)]
        for part, name in layers:
            inner = getattr(part, name)
            setattr(part, name, beside(SingularLoRA(inner, rank, scale), inner))


def right_singular_vectors(weight: Tensor, rank: int) -> Tensor:
    """float32 [rank, in] of [out, in]: orthonormal rows, by descending singular value; by way of the smaller Gram
    matrix, in float64."""
    w = weight.to("cpu", torch.float64)
    if w.shape[1] <= w.shape[0]:
        return torch.linalg.eigh(w.T @ w).eigenvectors[:, -rank:].flip(1).T.float().contiguous()
    rows = torch.linalg.eigh(w @ w.T).eigenvectors[:, -rank:].flip(1).T @ w
    return (rows / rows.norm(dim=1, keepdim=True).clamp(min=torch.finfo(w.dtype).tiny)).float()
