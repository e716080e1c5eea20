"""An image backbone with a growing head."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .heads import Head
from .spec import InputSpec


class Classifier(nn.Module):
    """Scores over the classes seen so far.

    Args:
        backbone: maps float [B, C, H, W] to features [B, d].
        head: maps features to scores [B, n_classes]; class index = position in the head, in order of arrival.
        input: what the backbone takes.
    """

    def __init__(self, backbone: nn.Module, head: Head, input: InputSpec) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.input = input
        self.identity: dict[str, Any] = {}

    @property
    def feature_dim(self) -> int:
        return self.head.dim

    @property
    def n_classes(self) -> int:
        return self.head.n_classes

    def features(self, x: Tensor) -> Tensor:
        """Features [B, d] of normalised images x, float [B, C, H, W]."""
        return self.backbone(x)

    def forward(self, x: Tensor) -> Tensor:
        """Scores [B, n_classes] of normalised images x, float [B, C, H, W]."""
        return self.head(self.features(x))

    def grow(self, n_new: int) -> None:
        """Add `n_new` classes to the head; see `Head.grow`."""
        self.head.grow(n_new)
