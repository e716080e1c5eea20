"""From an open_clip configuration, a tokeniser and weights to a model."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UserError
from ...torchvision_schemas import prepare
from ..spec import InputSpec, Tokenize
from ..weights import mismatch
from .attention import split_qkv
from .model import CLIP

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


def make_clip(
    config: Mapping[str, Any],
    tokenize: Tokenize,
    weights: Path | None = None,
    *,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    clamp: bool = True,
    owner: str = "open_clip",
) -> CLIP:
    """A model of images and texts, float32, on the CPU.

    Args:
        config: as in open_clip's files: `embed_dim`, `vision_cfg`, `text_cfg`, ...
        tokenize: texts to tokens, int64 [texts, context]; the end of a text must be what the configuration's pooling
            looks for (with `argmax`, the default, the largest id).
        weights: a file of open_clip's tensors, whose position embeddings are resampled where sizes differ; None: drawn
            from torch's default generator.
        mean, std: of the images, one a channel, for pixels in [0, 1]; None: those of OpenAI's models.
        owner: who is named in an error.

    Raises UserError for a configuration or weights that do not fit.
    """
    prepare()
    import open_clip

    backbone = _backbone(config, owner)
    if weights is not None:
        _load(backbone, weights, owner)
    split_qkv(backbone)
    size: Any = backbone.visual.image_size
    size = size[0] if isinstance(size, (tuple, list)) and len(set(size)) == 1 else size
    if not isinstance(size, int):
        raise UserError(f"model {owner!r} takes images of {size} px: they must be square")

    def tokens(texts: Any) -> Tensor:
        return tokenize(list(texts))

    takes = InputSpec(
        "pairs",
        3,
        size,
        tuple(mean or open_clip.OPENAI_DATASET_MEAN),
        tuple(std or open_clip.OPENAI_DATASET_STD),
        int(config["text_cfg"].get("vocab_size", 49408)),
        tokens,
    )
    if "timm_model_name" in config["vision_cfg"] or "hf_model_name" in config["text_cfg"]:
        _try_out(backbone, takes, owner)
    return CLIP(backbone.train(), takes, int(config["embed_dim"]), clamp)


def _backbone(config: Mapping[str, Any], owner: str) -> Any:
    import open_clip

    missing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in config]
    if missing:
        raise UserError(f"model {owner!r}: its configuration has no {', '.join(missing)}")
    if "multimodal_cfg" in config:
        raise UserError(f"model {owner!r} also writes captions (CoCa): use one of two towers")
    settings = deepcopy(dict(config))
    settings["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in settings["text_cfg"]:
        settings["text_cfg"]["hf_model_pretrained"] = False
    custom = settings.pop("custom_text", False) or "hf_model_name" in settings["text_cfg"]
    kind: Any = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    try:
        return kind(**settings)
    except Exception as error:  # of its parts: open_clip, timm, transformers, the hub client
        raise UserError(
            f"model {owner!r} cannot be built from its configuration: {type(error).__name__}: {mismatch(error)}"
        ) from error


def _try_out(backbone: Any, takes: InputSpec, owner: str) -> None:
    """Towers of other libraries have sizes of their own. Raises UserError where the configuration's are others."""
    assert takes.tokenize is not None and takes.size is not None
    backbone.eval()
    with torch.no_grad():
        try:
            images = backbone.encode_image(torch.zeros(1, takes.channels, takes.size, takes.size))
            texts = backbone.encode_text(takes.tokenize([""]))
        except Exception as error:  # timm's and transformers' assertions, torch's errors
            raise UserError(
                f"model {owner!r} does not work with images of {takes.size} px and texts of its tokeniser: "
                f"{type(error).__name__}: {mismatch(error)}"
            ) from error
    if images.shape != texts.shape:
        raise UserError(f"model {owner!r}: images become {images.shape[1]} numbers, texts {texts.shape[1]}")


def _load(backbone: nn.Module, path: Path, owner: str) -> None:
    """Load a file by open_clip's own conversions, strictly; of pickled files tensors alone are read."""
    from open_clip.factory import load_checkpoint

    if not path.is_file():
        raise UserError(f"model {owner!r}: no weights {path}")
    if path.suffix not in SUFFIXES:
        raise UserError(f"model {owner!r}: weights {path.name}: only {', '.join(SUFFIXES)} files are read")
    try:
        load_checkpoint(backbone, str(path), strict=True, weights_only=True)
    except Exception as error:  # whatever the readers of files and the conversions raise
        raise UserError(f"model {owner!r}: the weights {path.name} do not fit: {mismatch(error)}") from error
