"""Models by name: `build_model("slim-resnet18", channels=3, size=32, mean=..., std=...)`.

Importing this package, `describe` and `list_models` need no torch; the grammar of a model string is in
`spec.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from .catalogue import ModelInfo, describe, list_models
from .spec import InputSpec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["InputSpec", "ModelInfo", "build_model", "describe", "list_models", "model_info"]


def build_model(
    spec: str,
    *,
    channels: int,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    vocab_size: int | None = None,
    pairs: bool = False,
    head: Literal["linear", "cosine", "prototype"] = "linear",
) -> nn.Module:
    """Build a `Classifier` without classes, a `CausalLM` or a `CLIP`; float32, on the CPU, in train mode.

    Args:
        spec: the model string.
        channels, size, mean, std: the stream's images (side in pixels; one statistic a channel, for pixels
            in [0, 1]). For text: 0, the block length in tokens, and two empty sequences.
        vocab_size: number of token ids; None for images.
        pairs: whether the images come with captions.
        head: kind of the classification head; not used by language models.

    Initial weights are drawn from torch's default generator only. Raises UserError for an unknown name,
    option or weight file, for weights that cannot be downloaded, and for a model of the wrong kind.
    """
    from .build import build

    stream = InputSpec(
        "pairs" if pairs else "image" if vocab_size is None and channels else "tokens",
        channels,
        size,
        tuple(float(v) for v in mean),
        tuple(float(v) for v in std),
        vocab_size,
    )
    return build(spec, stream, head)


def model_info(model: nn.Module) -> dict[str, Any]:
    """The model's entry in the record; see `identity.model_info`."""
    from .identity import model_info as info

    return info(model)
