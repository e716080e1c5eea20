"""Vectorised image transforms: one call a batch, every random draw per sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.stream import Augmentation


def augment(images: Tensor, how: Augmentation, generator: torch.Generator | None) -> Tensor:
    """Random crop after zero padding, then horizontal flip with probability 1/2: uint8 [B, C, H, W] to the same."""
    b, _, height, width = images.shape
    if how.pad:
        padded = F.pad(images, (how.pad,) * 4)
        top = torch.randint(0, 2 * how.pad + 1, (b, 1), generator=generator)
        left = torch.randint(0, 2 * how.pad + 1, (b, 1), generator=generator)
        rows = (top + torch.arange(height)).to(images.device)
        columns = (left + torch.arange(width)).to(images.device)
        sample = torch.arange(b, device=images.device)
        images = padded.permute(0, 2, 3, 1)[sample[:, None, None], rows[:, :, None], columns[:, None, :]]
        images = images.permute(0, 3, 1, 2)
    if how.flip:
        flipped = (torch.rand(b, generator=generator) < 0.5).to(images.device)
        images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
    return images


class Normalise:
    """uint8 images to model inputs: matching channels, resized to `size` (bilinear, antialiased), then standardised.

    mean, std: per channel, in [0, 1] units. size: None keeps the images' own.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], channels: int, size: int | None) -> None:
        self.channels = channels
        self.size = size
        expand = channels if len(mean) == 1 else 1
        mean, std = mean * expand, std * expand
        self._scale = torch.tensor([1 / (255 * s) for s in std]).view(-1, 1, 1)
        self._shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(-1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [B, c, H, W] to float32 [B, channels, size, size]."""
        if self._scale.device != images.device:
            self._scale, self._shift = self._scale.to(images.device), self._shift.to(images.device)
        x = images.float()
        if self.size is not None and x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        if x.shape[1] != self.channels:
            x = x.mean(1, keepdim=True) if self.channels == 1 else x.expand(-1, self.channels, -1, -1)
        return torch.addcmul(self._shift, x, self._scale)
