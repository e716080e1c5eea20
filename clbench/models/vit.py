"""The vision transformer inside a model, for methods that change or read its blocks.

What several methods need is an attribute of timm's `VisionTransformer` already: `embed_dim`, `num_prefix_tokens`
(class and register tokens; 0 without class token), `patch_embed`, `blocks`, `norm` and `fc_norm`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from ..errors import UserError
from ..torchvision_schemas import prepare

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

SMALL_VIT = "timm:vit_tiny_patch16_224?img_size=16,patch_size=8,embed_dim=24,depth=1,num_heads=2"
"""Untrained, for checks and tests: one block, four patches and a class token of 24 features."""
SUGGESTION = "choose one with --backbone, such as micro-vit or timm:vit_base_patch16_224.augreg_in21k"


def vision_transformer(model: nn.Module, who: str) -> VisionTransformer:
    """timm's `VisionTransformer` in the backbone of a `Classifier`.

    `who` names the method in the UserError that is raised where the backbone holds none.
    """
    prepare()
    from timm.models.vision_transformer import VisionTransformer

    backbone: Any = getattr(model, "backbone", model)
    for module in backbone.modules():
        if isinstance(module, VisionTransformer):
            return module
    identity: Any = getattr(model, "identity", {})
    raise UserError(
        f"{who} needs a timm vision transformer, which {identity.get('spec', 'this model')} is not: {SUGGESTION}"
    )


def blocks(model: nn.Module, who: str) -> nn.Sequential:
    """The transformer blocks of `vision_transformer(model, who)`, in order; items may be replaced by wrappers."""
    return vision_transformer(model, who).blocks


def first_blocks(model: nn.Module, count: int | None, who: str) -> list[int]:
    """Indices of the first `count` blocks (None: of all); all of them where the transformer is shallower."""
    depth = len(blocks(model, who))
    return list(range(depth if count is None else min(count, depth)))


def require_prenorm(block: nn.Module, who: str) -> None:
    """UserError where the block is not timm's plain pre-norm block, attention then MLP."""
    prepare()
    from timm.models.vision_transformer import Block

    if not isinstance(block, Block):
        raise UserError(f"{who} needs pre-norm transformer blocks, not {type(block).__name__}: {SUGGESTION}")


def require_attention(block: nn.Module, who: str) -> None:
    """UserError where the block's attention is not timm's `Attention` with one fused linear layer for q, k and v."""
    prepare()
    from timm.layers import Attention

    attention = getattr(block, "attn", None)
    if not isinstance(attention, Attention) or not isinstance(attention.qkv, nn.Linear):
        found = type(getattr(attention, "qkv", attention)).__name__
        raise UserError(f"{who} needs attention with a fused qkv layer, not {found}: {SUGGESTION} (and --tune full)")
