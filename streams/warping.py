"""Fixed transforms that make a new domain of the same images."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

CHUNK = 4096  # images turned together


def rotated(x: np.ndarray, degrees: float) -> np.ndarray:
    """uint8 [N, C, H, W] turned anticlockwise about the centre: bilinear, black outside, same size; by 0, itself."""
    if degrees % 360 == 0:
        return x
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    ratio = x.shape[2] / x.shape[3]
    matrix = torch.tensor([[[cos, -sin * ratio, 0.0], [sin / ratio, cos, 0.0]]])
    turned = np.empty_like(x)
    for start in range(0, len(x), CHUNK):
        images = torch.from_numpy(np.ascontiguousarray(x[start : start + CHUNK])).float()
        grid = F.affine_grid(matrix, [1, *images.shape[1:]], align_corners=False).expand(len(images), -1, -1, -1)
        values = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        turned[start : start + CHUNK] = values.round().clamp(0, 255).to(torch.uint8).numpy()
    return turned


def permuted(x: np.ndarray, number: int, seed: int) -> np.ndarray:
    """uint8 [N, C, H, W], its pixels rearranged, channels alike. Number 0 keeps them; others are random, per seed."""
    if number == 0:
        return x
    order = np.random.RandomState([seed, number]).permutation(x.shape[2] * x.shape[3])
    return np.ascontiguousarray(x.reshape(*x.shape[:2], -1)[:, :, order]).reshape(x.shape)
