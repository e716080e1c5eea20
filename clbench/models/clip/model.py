"""A CLIP model: pairs of images and texts to embeddings in one space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...pairs import Embeddings, Pairs
from ..identity import tensors_sha256
from ..spec import InputSpec

LARGEST_SCALE = math.log(100)
SHARED = ("backbone.logit_scale", "backbone.logit_bias")


class CLIP(nn.Module):
    """A model of open_clip as a map from `Pairs` to `Embeddings`.

    Args:
        backbone: with `visual`, `encode_image`, `encode_text`, `logit_scale` (a logarithm) and `logit_bias` (or None).
        input: what it takes: images, and how texts become tokens.
        width: d, the length of an embedding.
        clamp: hold the logarithm of the scale between 0 and ln 100, as OpenCLIP's training does; FoMo-in-Flux does not.
    """

    def __init__(self, backbone: nn.Module, input: InputSpec, width: int, clamp: bool = True) -> None:
        super().__init__()
        self.backbone = backbone
        self.input = input
        self.feature_dim = width
        self.clamp = clamp
        self._text_names = frozenset(self._text_tensors())
        self.identity: dict[str, Any] = {}

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """int64 [len(texts), context], on the CPU."""
        assert self.input.tokenize is not None
        return self.input.tokenize(texts)

    def encode_image(self, images: Tensor) -> Tensor:
        """Embeddings [B, d] of unit length, of normalised images [B, C, H, W]."""
        return F.normalize(self.backbone.encode_image(images).float(), dim=-1)  # type: ignore[operator]

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Embeddings [B, d] of unit length, of tokens [B, context]."""
        return F.normalize(self.backbone.encode_text(tokens).float(), dim=-1)  # type: ignore[operator]

    @property
    def scale(self) -> Tensor:
        """What similarities are multiplied by, a scalar."""
        logarithm: Tensor = self.backbone.logit_scale  # type: ignore[assignment]
        return logarithm.exp().reshape(())

    @property
    def bias(self) -> Tensor | None:
        """What is added to similarities, a scalar or None."""
        bias: Tensor | None = self.backbone.logit_bias  # type: ignore[assignment]
        return None if bias is None else bias.reshape(())

    def forward(self, x: Pairs) -> Embeddings:
        """Of the sides that are there."""
        image = None if x.images is None else self.encode_image(x.images)
        text = None if x.tokens is None else self.encode_text(x.tokens)
        return Embeddings(image, text, self.scale, self.bias)

    def features(self, x: Pairs) -> Tensor:
        """The embeddings of the sides that are there, one after the other: [B, d] or [B, 2 d]."""
        out = self(x)
        return torch.cat([side for side in (out.image, out.text) if side is not None], dim=-1)

    @torch.no_grad()
    def constrain(self) -> None:
        """After an update: hold the scale in its bounds, where it is trained."""
        scale: Tensor = self.backbone.logit_scale  # type: ignore[assignment]
        if self.clamp and scale.requires_grad:
            scale.clamp_(0.0, LARGEST_SCALE)

    def text_key(self) -> str | None:
        """Equal keys, equal embeddings of texts: a hash of all tensors but the image tower's. None where there are
        others than those it was built with (adapters may be switched on and off)."""
        tensors = self._text_tensors()
        return tensors_sha256(tensors) if set(tensors) == self._text_names else None

    def _text_tensors(self) -> dict[str, Tensor]:
        return {name: t for name, t in self.state_dict().items() if not name.startswith("backbone.visual.")}

    def tower(self, side: Literal["image", "text"]) -> set[str]:
        """Names of the parameters that one side alone uses."""
        names = {name for name, _ in self.named_parameters()} - set(SHARED)
        images = {name for name in names if name.startswith("backbone.visual.")}
        return images if side == "image" else names - images

    @property
    def output_layer(self) -> nn.Module | None:
        """The text tower's last map, where it is a layer (SigLIP). open_clip asks for its type: it takes no adapter."""
        layer = getattr(getattr(self.backbone, "text", self.backbone), "text_projection", None)
        return layer if isinstance(layer, nn.Module) else None

    def last_layers(self) -> set[str]:
        """Names of the parameters that map both towers' features into the common space, scale and bias included."""
        last = (
            "visual.proj",
            "visual.head.",
            "visual.attnpool.",
            "text_projection",
            "text.text_projection",
            "text.proj.",
        )
        names = {name for name, _ in self.named_parameters()}
        return {n for n in names if n in SHARED or n.removeprefix("backbone.").startswith(last)}
