"""A vision transformer with tuning modules, written as plain functions of named tensors: ours are compared with it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Tensors = dict[str, Tensor]
NET = "backbone.net."


def features(p: Tensors, x: Tensor, heads: int, compensate: bool = True) -> Tensor:
    """The class token [B, d] of images x [B, C, H, W]; p: all of a model's tensors, by the names they have in it."""
    p = {name.removeprefix(NET).replace("inner.", ""): value for name, value in p.items()}
    kernel = p["patch_embed.proj.weight"]
    tokens = F.conv2d(x, kernel, p["patch_embed.proj.bias"], stride=kernel.shape[-1]).flatten(2).mT
    tokens = torch.cat([p["cls_token"].expand(len(x), -1, -1), tokens], dim=1) + p["pos_embed"]
    for i in range(1 + max(int(name.split(".")[1]) for name in p if name.startswith("blocks."))):
        block = {k.removeprefix(f"blocks.{i}."): v for k, v in p.items() if k.startswith(f"blocks.{i}.")}
        tokens = transformed(block, tokens, heads, compensate)
    return norm(p, "norm", tokens)[:, 0]


def transformed(p: Tensors, x: Tensor, heads: int, compensate: bool) -> Tensor:
    """A pre-norm block; AdaptFormer's adapter beside its MLP, times 0.1."""
    x = x + attended(p, norm(p, "norm1", x), heads, compensate)
    y = x + linear(p, "mlp.fc2", F.gelu(linear(p, "mlp.fc1", norm(p, "norm2", x))))
    if "pet.down.weight" in p:
        y = y + 0.1 * linear(p, "pet.up", F.relu(linear(p, "pet.down", x)))
    return y


def attended(p: Tensors, u: Tensor, heads: int, compensate: bool) -> Tensor:
    """Attention with LAE's LoRA, prefix or adapter, whichever there is."""
    weight, n = p["attn.qkv.weight"], 0
    if "attn.qkv.pet.k.a" in p:
        k, v = ("attn.qkv.pet." + part for part in "kv")
        product = [p[x + ".scaler.scale"] * (p[x + ".b"] @ p[x + ".a"]) for x in (k, v)]
        weight = weight + torch.cat([torch.zeros_like(product[0]), *product])
    q, k, v = F.linear(u, weight, p["attn.qkv.bias"]).chunk(3, dim=-1)
    if "attn.pet.key" in p:  # behind the class token, as in the official code
        key, value = (p[f"attn.pet.{x}"] * p[f"attn.pet.{x}_scaler.scale"] for x in ("key", "value"))
        n = len(key)
        k = torch.cat([k[:, :1], key.expand(len(u), -1, -1), k[:, 1:]], dim=1)
        v = torch.cat([v[:, :1], value.expand(len(u), -1, -1), v[:, 1:]], dim=1)
    q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
    if n and compensate:
        mass = weights[..., 1 : 1 + n].sum(dim=-1, keepdim=True)
        weights = torch.cat([weights[..., :1], weights[..., 1 : 1 + n] / mass, weights[..., 1 + n :]], dim=-1)
    out = linear(p, "attn.proj", (weights @ v).transpose(1, 2).flatten(2))
    if "attn.pet.down.weight" in p:
        adapted = linear(p, "attn.pet.up", F.gelu(linear(p, "attn.pet.down", u)))
        out = out + p["attn.pet.scaler.scale"] * adapted
    return out


def linear(p: Tensors, name: str, x: Tensor) -> Tensor:
    return F.linear(x, p[name + ".weight"], p[name + ".bias"])


def norm(p: Tensors, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p[name + ".weight"], p[name + ".bias"], eps=1e-6)
