"""micro-clip by name: with the weights that come with the package, others, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import UserError
from ..catalogue import SHIPPED_CLIP
from ..clip.build import make_clip
from ..clip.model import CLIP
from ..spec import ModelSpec
from .architecture import CONFIG, MEAN, STD, register, small
from .tokenizer import tokenize

WEIGHTS = SHIPPED_CLIP


def build_micro_clip(spec: ModelSpec) -> tuple[CLIP, str | None]:
    """The model, and the id of its checkpoint (None: untrained).

    Options: `pretrained=false` (torch's, timm's and open_clip's initialisation), `clamp`, as for `open_clip:` models,
    and `width`: small towers of one layer instead, for quick trials. Raises UserError.
    """
    spec.only_options("pretrained", "clamp", "width")
    pretrained, clamp = (_flag(spec, key) for key in ("pretrained", "clamp"))
    if spec.weights_file and not pretrained:
        raise UserError(f"model {spec.text!r}: pretrained=false and a file of weights exclude each other; drop one")
    path = (spec.weights_file or WEIGHTS) if pretrained else None
    model = make_clip(_config(spec, path), tokenize, path, mean=MEAN, std=STD, clamp=clamp, owner=spec.text)
    if path is None:
        return model, None
    return model, f"file:{path.name}" if spec.weights_file else "clbench:micro-clip"


def _config(spec: ModelSpec, weights: Path | None) -> dict[str, Any]:
    if "width" not in spec.options:
        register()
        return CONFIG
    width = spec.integer("width", 2)
    if width % 2:
        raise UserError(f"model {spec.text!r}: width must be even, for two heads, not {width}")
    if weights == WEIGHTS:
        raise UserError(f"model {spec.text!r}: no weights of another width come with clbench; add pretrained=false")
    return small(width)


def _flag(spec: ModelSpec, key: str) -> bool:
    value = spec.options.get(key, True)
    if not isinstance(value, bool):
        raise UserError(f"model {spec.text!r}: {key} is true or false, not {value!r}")
    return value
