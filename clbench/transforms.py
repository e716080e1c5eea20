"""Vectorised image transforms: one call a batch, every random draw per sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.stream import Augmentation


def augment(images: Tensor, how: Augmentation, generator: torch.Generator | None) -> Tensor:
    """Random crop after zero padding, random resized crop, horizontal flip with probability 1/2: each where `how` asks
    for it; uint8 [B, C, H, W] to the same."""
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
    if how.crop:
        images = _resized(images, *_boxes(b, height, width, how.crop, generator))
    if how.flip:
        flipped = (torch.rand(b, generator=generator) < 0.5).to(images.device)
        images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
    return images


ATTEMPTS = 10
SHAPES = (3 / 4, 4 / 3)


def _boxes(
    n: int, height: int, width: int, smallest: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, left, height and width of a crop for each of n images, int64 [n] (Szegedy et al., 2015).

    The share of the area is uniform in [smallest, 1], the shape (width by height) log-uniform between 3:4 and 4:3. Of
    ten draws the first that fits is taken; where none does, the whole image.
    """
    draws = torch.rand(n, ATTEMPTS, 2, generator=generator)
    area = height * width * (smallest + (1 - smallest) * draws[..., 0])
    low, high = (torch.tensor(shape).log() for shape in SHAPES)
    shape = torch.exp(low + (high - low) * draws[..., 1])
    w, h = (area * shape).sqrt().round().long(), (area / shape).sqrt().round().long()
    fits = (w >= 1) & (h >= 1) & (w <= width) & (h <= height)
    first = fits.int().argmax(1, keepdim=True)
    some = fits.any(1)
    h = torch.where(some, h.gather(1, first)[:, 0], height)
    w = torch.where(some, w.gather(1, first)[:, 0], width)
    place = torch.rand(n, 2, generator=generator)
    return (place[:, 0] * (height - h + 1)).long(), (place[:, 1] * (width - w + 1)).long(), h, w


def _resized(images: Tensor, top: Tensor, left: Tensor, h: Tensor, w: Tensor) -> Tensor:
    """Each image's box, enlarged to the whole image (bilinear): uint8 [B, C, H, W] to the same."""
    height, width = images.shape[2:]
    rows = top[:, None] - 0.5 + h[:, None] * (torch.arange(height) + 0.5) / height
    columns = left[:, None] - 0.5 + w[:, None] * (torch.arange(width) + 0.5) / width
    rows = rows.clamp(min=top[:, None], max=(top + h - 1)[:, None])
    columns = columns.clamp(min=left[:, None], max=(left + w - 1)[:, None])
    x, y = (2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1
    shape = (len(images), height, width)
    grid = torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], -1).to(images.device)
    sampled = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.round().clamp(0, 255).to(torch.uint8)


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
