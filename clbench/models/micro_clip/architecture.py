"""The towers of micro-clip, as an open_clip configuration."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...torchvision_schemas import prepare
from ..micro_vit.architecture import SIZE as PIXELS
from ..micro_vit.architecture import micro_vit
from ..micro_vit.backbone import MEAN, STD
from .tokenizer import CONTEXT, SIZE

TOWER = "clbench_micro_vit"
"""micro-vit's name among timm's models."""

CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"timm_model_name": TOWER, "timm_pool": "avg", "timm_proj": "linear", "image_size": PIXELS},
    "text_cfg": {"context_length": CONTEXT, "vocab_size": SIZE, "width": 128, "heads": 4, "layers": 3},
}
"""As open_clip's configuration files; images and texts meet in 128 dimensions."""


def small(width: int) -> dict[str, Any]:
    """A configuration for quick trials: towers of one layer each, with two heads, that take the same images and texts.

    width: of both towers and of the space in which they meet; even.
    """
    return {
        "embed_dim": width,
        "vision_cfg": {"image_size": PIXELS, "patch_size": 8, "width": width, "head_width": width // 2, "layers": 1},
        "text_cfg": {**CONFIG["text_cfg"], "width": width, "heads": 2, "layers": 1},
    }


def register() -> None:
    """Make the image tower known to timm, from which open_clip takes it by name. May be called any number of times."""
    prepare()
    from timm.models import is_model, register_model

    if not is_model(TOWER):
        register_model(clbench_micro_vit)


def clbench_micro_vit(pretrained: bool = False, drop_path_rate: float = 0.0, **unused: Any) -> nn.Module:
    """micro-vit, untrained, as timm's `create_model` makes it."""
    if pretrained:
        raise ValueError("timm has no weights of this model: they come with clbench")
    net = micro_vit(drop_path=drop_path_rate)
    net.default_cfg = net.pretrained_cfg = {  # type: ignore[assignment]
        "input_size": (3, PIXELS, PIXELS),
        "fixed_input_size": True,
        "mean": MEAN,
        "std": STD,
    }
    return net
