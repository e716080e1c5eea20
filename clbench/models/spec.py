"""The model string: how it is written, what it means, and what a model says about its input. No torch here.

Grammar::

    SPEC    := FAMILY [":" NAME] ["@" WEIGHTS] ["?" OPTION {"," OPTION}]
    OPTION  := KEY "=" VALUE                 (number, 2x2x6 for several, true, false, none, or text)

=====================================================  ======================================================
``micro-vit``, ``micro-vit?pretrained=false``          the weights that come with the package, or none
``slim-resnet18``, ``mlp``, ``mlp:400x2``, ``pixels``  torch only, untrained
``slim-resnet18@./weights.safetensors``                the same with local backbone weights
``timm:vit_tiny_patch16_224?img_size=32,patch_size=4`` any timm model, untrained; options are timm's own
``timm:vit_base_patch16_224.augreg_in21k``             a tag names pretrained weights (hub download)
``timm:vit_base_patch16_224@augreg_in21k``             the same
``timm:resnet18@pretrained``                           pretrained with timm's default tag
``timm:vit_tiny_patch16_224@/path/w.safetensors``      local weights
``byte-gpt?d=64,layers=2,heads=2,ctx=64``              small causal language model, untrained
``hf:EleutherAI/pythia-70m``                           causal language model from the hub
``hf:/path/to/folder``                                 the same from a local folder
``micro-clip``, ``micro-clip?pretrained=false``        the weights that come with the package, or none
``open_clip:ViT-B-32``                                 any open_clip model of images and texts, untrained
``open_clip:ViT-B-32/laion2b_s34b_b79k``               with published weights (hub download)
``open_clip:ViT-B-32@/path/w.safetensors``             with local weights (.pt and .bin as well)
``open_clip:/path/to/folder``                          local configuration and weights
``open_clip:/path/to/config.json``                     local configuration, untrained
=====================================================  ======================================================

WEIGHTS is a file when it contains a ``/`` or ends in ``.safetensors``, else a tag. Nothing but safetensors is
read; of open_clip's models also .pt, .pth and .bin files, as tensors alone: no code in them runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ..errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Tokenize: TypeAlias = "Callable[[Sequence[str]], Tensor]"

OptionValue: TypeAlias = "int | float | bool | str | tuple[int, ...] | None"


@dataclass(frozen=True)
class InputSpec:
    """What a model takes.

    kind: "image" (float [B, C, H, W], already normalised with `mean` and `std`), "tokens" (int64 [B, T]), "features"
        (float [B, size], of a frozen backbone) or "pairs" (`clbench.pairs.Pairs`: such images, and texts as tokens).
    channels: image channels; 0 for tokens.
    size: image side in pixels, or the longest block in tokens; None where any size will do.
    mean, std: one number a channel, for pixels in [0, 1]; empty for tokens.
    vocab_size: number of token ids; None for images.
    tokenize: of a model of pairs: texts to tokens, int64 [texts, context]; a function.
    """

    kind: str
    channels: int
    size: int | None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    vocab_size: int | None = None
    tokenize: Tokenize | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class ModelSpec:
    """A parsed model string; `text` is the string as given."""

    text: str
    family: str
    name: str
    weights: str | None
    options: Mapping[str, OptionValue]

    @property
    def weights_file(self) -> Path | None:
        """The local weight file that `@` names, or None."""
        if self.weights is None or not ("/" in self.weights or self.weights.endswith(".safetensors")):
            return None
        return Path(self.weights).expanduser()

    def only_options(self, *known: str) -> None:
        """Raise UserError for an option that the family does not have."""
        from ..errors import did_you_mean

        for key in self.options:
            if key not in known:
                hint = did_you_mean(key, known) or "; it has no options"
                raise UserError(f"model {self.text!r}: unknown option {key!r}{hint}")

    def integer(self, key: str, default: int) -> int:
        """A whole-number option of at least 1."""
        value = self.options.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"model {self.text!r}: option {key!r} must be a whole number >= 1, not {value!r}")
        return value


def parse(text: str) -> ModelSpec:
    """Split a model string into its parts; UserError where it does not follow the grammar."""
    head, has_options, tail = text.partition("?")
    if "@" in tail:
        raise UserError(f"model {text!r}: write the weights before the options: NAME@WEIGHTS?KEY=VALUE")
    options = _options(text, tail) if has_options else {}
    family, _, name = head.partition(":")
    if _:
        name, at, weights = name.partition("@")
    else:
        family, at, weights = family.partition("@")
    if at and not weights:
        raise UserError(f"model {text!r}: nothing after '@'; give a tag, 'pretrained', or a .safetensors file")
    if not family:
        raise UserError(f"model {text!r}: empty name; see `clbench list models`")
    return ModelSpec(text, family, name, weights or None, options)


def _options(text: str, tail: str) -> dict[str, OptionValue]:
    options: dict[str, OptionValue] = {}
    for item in tail.split(","):
        key, equals, value = item.partition("=")
        key = key.strip()
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", key):
            raise UserError(f"model {text!r}: {item!r} is not KEY=VALUE (options: ?key=value,key=value)")
        if key in options:
            raise UserError(f"model {text!r}: option {key!r} is given twice")
        options[key] = _value(value.strip())
    return options


def _value(text: str) -> OptionValue:
    words: dict[str, OptionValue] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    if re.fullmatch(r"-?(0|[1-9]\d{0,17})", text):
        return int(text)
    if re.fullmatch(r"-?\d*\.\d+(e-?\d{1,3})?|-?\d+e-?\d{1,3}", text):
        return float(text)
    if re.fullmatch(r"\d+(x\d+)+", text):
        return tuple(int(part) for part in text.split("x"))
    return text
