"""The augmentations of micro-vit's pretraining, for a whole batch at once on tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def random_resized_crops(
    images: Tensor, size: int, smallest: float, generator: torch.Generator, flips: float | Tensor = 0.5
) -> Tensor:
    """A random crop of every image, perhaps flipped: float [B, C, H, W] to [B, C, size, size].

    The crop's area is uniform in [smallest, 1] of the image's, its aspect ratio log-uniform in [3/4, 4/3]. flips: the
    probability of a flip, one or float [B].
    """
    n = images.shape[0]

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=generator) * (high - low) + low

    area = uniform(smallest, 1.0)
    ratio = torch.exp(uniform(math.log(3 / 4), math.log(4 / 3)))
    width, height = (area * ratio).sqrt().clamp(max=1.0), (area / ratio).sqrt().clamp(max=1.0)
    flip = torch.where(uniform(0, 1) < flips, -1.0, 1.0)
    affine = torch.zeros(n, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1] = width * flip, height
    affine[:, 0, 2] = uniform(-1, 1) * (1 - width)
    affine[:, 1, 2] = uniform(-1, 1) * (1 - height)
    grid = F.affine_grid(affine, [n, images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def jitter_colours(images: Tensor, strength: float, grey: float, generator: torch.Generator) -> Tensor:
    """Random brightness, contrast and saturation, each a factor in [1 - strength, 1 + strength]; with probability
    `grey` no colour at all. float [B, 3, H, W] in [0, 1], also returned clamped to it."""
    n = images.shape[0]

    def factor() -> Tensor:
        return 1 + strength * (2 * torch.rand(n, 1, 1, 1, generator=generator) - 1)

    images = images * factor()
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * factor()
    luma = (images * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    saturation = factor()
    saturation[torch.rand(n, 1, 1, 1, generator=generator) < grey] = 0.0
    return (luma + (images - luma) * saturation).clamp(0, 1)


def mix(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al., ICLR 2018, alpha 0.2) or CutMix (Yun et al., ICCV 2019, alpha 1), half of the batches
    each; targets float [B, C] are mixed in the same proportion."""
    order = torch.randperm(images.shape[0], generator=generator)
    if torch.rand((), generator=generator) < 0.5:
        share = _beta(0.2, generator)
        return share * images + (1 - share) * images[order], share * targets + (1 - share) * targets[order]
    side = images.shape[-1]
    cut = round(side * math.sqrt(1 - _beta(1.0, generator)))
    top, left = (int(torch.randint(0, side - cut + 1, (), generator=generator)) for _ in range(2))
    images = images.clone()
    images[:, :, top : top + cut, left : left + cut] = images[order, :, top : top + cut, left : left + cut]
    share = 1 - (cut / side) ** 2
    return images, share * targets + (1 - share) * targets[order]


def _beta(alpha: float, generator: torch.Generator) -> float:
    """A draw from Beta(alpha, alpha)."""
    concentration = torch.tensor([alpha, alpha])
    first, second = torch._standard_gamma(concentration, generator=generator).clamp_min(1e-20).tolist()
    return first / (first + second)
