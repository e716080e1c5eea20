"""Attention taken apart: queries, keys, values and output each from a linear layer that is called.

torch's and open_clip's attention modules keep queries, keys and values in one weight and read the output layer's weight
without calling the layer: low-rank factors on them would be shared by three projections, or never get a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UserError
from ...torchvision_schemas import prepare
from ..fused import Apart, take_apart

LIKE_TIMM = (
    "layers.attention",
    "layers.attention_pool",
    "layers.attention_pool2d",
    "models.beit",
    "models.eva",
    "models.fastvit",
    "models.swin_transformer",
    "models.swin_transformer_v2",
)
"""Modules of timm whose attention calls a layer `qkv` or `kv` for queries, keys and values one after another. (Others
have them mixed, head by head: such a layer stays whole, and is called.)"""


class SplitAttention(nn.Module):
    """Multi-head attention on batch-first inputs [B, L, d], by torch's scaled dot product.

    q_proj, k_proj, v_proj, out_proj: the linear layers. q_norm, k_norm: of each head's queries and keys; inner: of what
    the heads give, joined. head_scale: a factor for each head, [heads, 1, 1], or None.
    """

    def __init__(self, layers: dict[str, nn.Linear], heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = layers["q"], layers["k"], layers["v"]
        self.out_proj = layers["out"]
        self.heads = heads
        self.dropout = dropout
        self.q_norm: nn.Module = nn.Identity()
        self.k_norm: nn.Module = nn.Identity()
        self.inner: nn.Module = nn.Identity()
        self.head_scale: nn.Parameter | None = None

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """[B, L, d] of queries [B, L, d] and keys and values [B, S, ...]. mask: added to the similarities, [L, S] or
        [B * heads, L, S]."""
        q, k = self.q_norm(self._by_head(self.q_proj(query))), self.k_norm(self._by_head(self.k_proj(key)))
        v = self._by_head(self.v_proj(value))
        if mask is not None:
            mask = mask.to(q.dtype)
            mask = mask.reshape(len(q), self.heads, *mask.shape[1:]) if mask.dim() == 3 else mask
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0)
        if self.head_scale is not None:
            out = out * self.head_scale
        return self.out_proj(self.inner(out.transpose(1, 2).flatten(2)))

    def _by_head(self, x: Tensor) -> Tensor:
        """[B, L, d] to [B, heads, L, d / heads]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class LikeTorch(SplitAttention):
    """Called as `torch.nn.MultiheadAttention` is, without its weights."""

    batch_first = True

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """[L, S] masks may be of booleans, True where nothing is attended to. Returns (outputs, None)."""
        if need_weights:
            raise ValueError("attention taken apart does not give its weights")
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(attn_mask, float("-inf"))
        if self.batch_first:
            return self.attend(query, key, value, attn_mask), None
        query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        return self.attend(query, key, value, attn_mask).transpose(0, 1), None


class LikeOpenClip(SplitAttention):
    """Called as open_clip's own `Attention` is."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """[B, L, d] to the same."""
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=x.dtype).masked_fill_(attn_mask, float("-inf"))
        return self.attend(x, x, x, attn_mask)


class LikeResNet(SplitAttention):
    """Called as the pool by attention of OpenAI's ResNets is: the mean of all places asks all of them."""

    def __init__(self, pool: Any) -> None:
        layers = {"q": pool.q_proj, "k": pool.k_proj, "v": pool.v_proj, "out": pool.c_proj}
        super().__init__(layers, pool.num_heads)
        self.positional_embedding = pool.positional_embedding

    def forward(self, x: Tensor) -> Tensor:
        """[B, d, H, W] to [B, width]."""
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(1, keepdim=True), x], dim=1) + self.positional_embedding.to(x.dtype)
        return self.attend(x[:, :1], x, x, None)[:, 0]


class LikeTimm(SplitAttention):
    """Called as timm's `Attention` is."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """[B, L, d] to the same. Masks may be of booleans, False where nothing is attended to."""
        if is_causal:
            attn_mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=x.dtype).masked_fill_(~attn_mask, float("-inf"))
        return self.attend(x, x, x, attn_mask)


def split_qkv(root: nn.Module) -> list[str]:
    """Replace every fused attention module below `root` by one taken apart; outputs stay the same up to rounding.

    Handles `torch.nn.MultiheadAttention`, timm's `Attention`, modules with `in_proj_weight` and `out_proj` like
    open_clip's `Attention`, its pool of ResNets, and of other attention in timm (`LIKE_TIMM`) the fused layers. Returns
    the modules' names. Raises UserError for a kind of attention that cannot be taken apart.
    """
    prepare()
    from open_clip.modified_resnet import AttentionPool2d
    from timm.models.vision_transformer import Attention

    kinds: list[tuple[Callable[[Any], bool], Callable[[Any], nn.Module]]] = [
        (lambda module: isinstance(module, AttentionPool2d), LikeResNet),
        (lambda module: isinstance(module, Attention), _like_timm),
        (lambda module: isinstance(module, nn.MultiheadAttention), _like_torch),
        (lambda module: hasattr(module, "in_proj_weight"), _like_open_clip),
        (_has_fused_layers, _with_layers_apart),
    ]
    names = []
    for name, module in list(root.named_modules()):
        make = next((make for is_kind, make in kinds if is_kind(module)), None)
        if make is not None:
            made = make(module)
            if made is not module:
                parent, _, last = name.rpartition(".")
                setattr(root.get_submodule(parent), last, made.train(module.training))
            names.append(name)
    return names


def _has_fused_layers(module: Any) -> bool:
    of_timm = type(module).__module__.removeprefix("timm.") in LIKE_TIMM
    return of_timm and any(isinstance(getattr(module, last, None), nn.Linear) for last in ("qkv", "kv"))


def _with_layers_apart(module: Any) -> nn.Module:
    """The module itself. Biases of queries and values that it keeps beside a fused layer go into their layers."""
    take_apart(module, [last for last in ("qkv", "kv") if isinstance(getattr(module, last, None), nn.Linear)])
    if getattr(module, "q_bias", None) is not None and isinstance(module.qkv, Apart):
        for part in ("q", "v"):
            module.qkv.get_submodule(part).bias = nn.Parameter(getattr(module, f"{part}_bias").detach())
        module.q_bias = module.k_bias = module.v_bias = None
    return module


def _like_torch(module: nn.MultiheadAttention) -> SplitAttention:
    if module.bias_k is not None or module.add_zero_attn:
        raise UserError("attention with added keys (bias_k, add_zero_attn) cannot be taken apart")
    if module.in_proj_weight is not None:
        weights = list(module.in_proj_weight.detach().chunk(3))
    else:
        weights = [getattr(module, f"{part}_proj_weight").detach() for part in "qkv"]
    made = LikeTorch(_layers(weights, module.in_proj_bias, module.out_proj), module.num_heads, module.dropout)
    made.batch_first = module.batch_first
    return made


def _like_open_clip(module: Any) -> SplitAttention:
    if getattr(module, "logit_scale", None) is not None:
        raise UserError("attention by scaled cosines cannot be taken apart: use a model without it")
    if any(rate > 0 for rate in _rates(module)):
        raise UserError("attention with dropout cannot be taken apart: use a model without it")
    weights = list(module.in_proj_weight.detach().chunk(3))
    made = LikeOpenClip(_layers(weights, module.in_proj_bias, module.out_proj), module.num_heads)
    made.q_norm, made.k_norm = getattr(module, "ln_q", made.q_norm), getattr(module, "ln_k", made.k_norm)
    made.inner = getattr(module, "ln_inner", made.inner)
    made.head_scale = getattr(module, "head_scale", None)
    return made


def _like_timm(module: Any) -> SplitAttention:
    if getattr(module, "gate", None) is not None:
        raise UserError("attention with gates cannot be taken apart: use a model without them")
    if any(rate > 0 for rate in _rates(module)):
        raise UserError("attention with dropout cannot be taken apart: use a model without it")
    weights = list(module.qkv.weight.detach().chunk(3))
    made = LikeTimm(_layers(weights, module.qkv.bias, module.proj), module.num_heads)
    made.q_norm, made.k_norm = module.q_norm, module.k_norm
    made.inner = getattr(module, "norm", made.inner)
    return made


def _rates(module: nn.Module) -> list[float]:
    return [part.p for part in module.modules() if isinstance(part, nn.Dropout)]


def _layers(weights: list[Tensor], bias: Tensor | None, out: nn.Linear) -> dict[str, nn.Linear]:
    biases = [None] * 3 if bias is None else list(bias.detach().chunk(3))
    made = {part: _linear(w, b) for part, w, b in zip("qkv", weights, biases, strict=True)}
    return {**made, "out": _linear(out.weight.detach(), None if out.bias is None else out.bias.detach())}


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    made.weight = nn.Parameter(weight.clone(memory_format=torch.contiguous_format))
    if bias is not None:
        made.bias = nn.Parameter(bias.clone())
    return made
