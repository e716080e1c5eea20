"""The backbones that need nothing but torch: a reduced ResNet, a fully connected network, the pixels."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

WIDTHS = (1, 2, 4, 8)  # channels of the four stages, in units of the base width


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016, the basic block)."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out_channels:
            projection = nn.Conv2d(channels, out_channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class SlimResNet18(nn.Module):
    """The reduced ResNet-18 of GEM (Lopez-Paz and Ranzato, NeurIPS 2017): float [B, C, H, W] to [B, 8 *
    width].

    Eight basic blocks in four stages of width x 1, 2, 4, 8 channels, a 3x3 stem without pooling, global
    average pooling. With width 20 and ten classes it has 1,094,750 parameters. PyTorch's default
    initialisation.
    """

    def __init__(self, channels: int = 3, width: int = 20) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        stages: list[nn.Module] = []
        previous = width
        for index, factor in enumerate(WIDTHS):
            out, stride = width * factor, 1 if index == 0 else 2
            stages.append(nn.Sequential(ResidualBlock(previous, out, stride), ResidualBlock(out, out, 1)))
            previous = out
        self.stages = nn.Sequential(*stages)
        self.feature_dim = previous

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(torch.relu(self.bn1(self.conv1(x)))).mean(dim=(2, 3))


class MLP(nn.Module):
    """Flatten, then `depth` layers of `hidden` ReLU units: float [B, C, H, W] to [B, hidden]."""

    def __init__(self, inputs: int, hidden: int = 400, depth: int = 2) -> None:
        super().__init__()
        sizes = [inputs] + [hidden] * depth
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.feature_dim = hidden

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1))


class Pixels(nn.Module):
    """The normalised pixels as features: float [B, C, H, W] to [B, C * H * W]. No parameters."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.feature_dim = inputs

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)
