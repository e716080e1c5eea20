"""Fused query-key-value layers taken apart, so that each part can have factors of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

PARTS = {"qkv": ("q", "k", "v"), "c_attn": ("q", "k", "v"), "kv": ("k", "v")}
"""By the layer's name: timm's, GPT-2's, and timm's in models that shorten keys and values. Their outputs are the parts
one after the other. GPT-NeoX's `query_key_value` is not among them: its outputs are ordered by heads."""


class Apart(nn.Module):
    """Linear layers side by side: [..., inputs] to their outputs joined along the last axis."""

    def __init__(self, layers: dict[str, nn.Linear]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([layer(x) for layer in self.children()], dim=-1)


def take_apart(root: nn.Module, names: Sequence[str]) -> list[str]:
    """Replace the fused layers among the linear layers `names` of `root` by their parts; outputs stay the same up to
    rounding. Returns the names of all linear layers afterwards (`attn.qkv` becomes `attn.qkv.q`, ...)."""
    found = []
    for name in names:
        layer = root.get_submodule(name)
        parent, _, last = name.rpartition(".")
        parts = PARTS.get(last, ())
        weight = weight_of(layer)
        if not parts or weight.shape[0] % len(parts) or (last == "c_attn" and weight.shape[0] != 3 * weight.shape[1]):
            found.append(name)
            continue
        setattr(root.get_submodule(parent), last, Apart(_parts(layer, parts)))
        found += [f"{name}.{part}" for part in parts]
    return found


def weight_of(layer: nn.Module) -> Tensor:
    """The weight as [outputs, inputs], a view: GPT-2's `Conv1D` keeps it transposed."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight if isinstance(layer, nn.Linear) else weight.T


def _parts(layer: nn.Module, parts: Sequence[str]) -> dict[str, nn.Linear]:
    weights = weight_of(layer).detach().chunk(len(parts))
    biases = [None] * len(parts) if layer.bias is None else layer.bias.detach().chunk(len(parts))  # type: ignore
    made = {}
    for part, weight, bias in zip(parts, weights, biases, strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
        linear.weight = nn.Parameter(weight.clone(memory_format=torch.contiguous_format))
        if bias is not None:
            linear.bias = nn.Parameter(bias.clone())
        made[part] = linear
    return made
