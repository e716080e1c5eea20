"""FLOPs of attention, the same for every kernel that computes it.

Attention is two matrix products forward (scores, and their mixture of the values) and four backward, over all pairs of
positions, masked or not: what torch's counter gives with the math backend. torch has no formula for the fused kernels
of CPUs and for the fast path of its attention modules in eval mode, and for those of GPUs one that includes what they
compute twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

FORWARD = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)
PRODUCTS_BACKWARD = 2  # for each of the two forward
FIRST_LAYER = 13  # the place, after `src`, of the weight of the first layer after an encoder layer's attention


def products(query: Tensor, key: Tensor, value: Tensor) -> int:
    """FLOPs of query [..., L, d] @ key' [..., S, d] and of the result @ value [..., S, e]: 2 L S (d + e) for each of
    the queries' leading indices (keys and values of fewer heads are repeated)."""
    *leading, length, width = query.shape
    pairs = length * key.shape[-2]
    for size in leading:
        pairs *= size
    return 2 * pairs * (width + value.shape[-1])


def _forward(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return products(query, key, value)


def _backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return PRODUCTS_BACKWARD * products(query, key, value)


def _module(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """`torch.nn.MultiheadAttention` on its fast path: inputs [B, L, D]; four projections and the two products."""
    if query.is_nested:
        return sum(_module(*parts) for parts in zip(query.unbind(), key.unbind(), value.unbind(), strict=True))
    width = query.shape[-1]
    rows = 2 * (query.numel() + key.numel())  # of queries and outputs, keys and values
    return 2 * rows * width + products(query, key, value)


def _encoder_layer(src: Tensor, *args: Any, **_: Any) -> int:
    """`torch.nn.TransformerEncoderLayer` on its fast path: the attention, and the two layers after it."""
    hidden = args[FIRST_LAYER].shape[0]
    return _module(src, src, src) + 4 * src.numel() * hidden


def attention_formulas() -> dict[Any, Callable[..., int]]:
    """Operator -> FLOPs of its arguments, for those this torch has."""
    found: dict[Any, Callable[..., int]] = {}
    formulas: dict[str, Callable[..., int]] = dict.fromkeys(FORWARD, _forward) | {
        f"{name}_backward": _backward for name in FORWARD
    }
    formulas |= {"_native_multi_head_attention": _module, "_transformer_encoder_layer_fwd": _encoder_layer}
    for name, formula in formulas.items():
        if hasattr(torch.ops.aten, name):
            found[getattr(torch.ops.aten, name)] = formula
    return found
