"""What all PET modules share: a learnable scale, and how their parameters are found."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class Scaler(nn.Module):
    """Multiplication by one learnable number, 1 at first (LAE, arXiv 2303.10070: calibrated adaptation speed)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def is_pet(name: str) -> bool:
    """Whether a parameter of this name belongs to a PET module."""
    return ".pet." in name


def pet_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters of PET modules, by their names in the model."""
    return {name: p for name, p in model.named_parameters() if is_pet(name)}


def beside(new: Module, old: nn.Module) -> Module:
    """`new` on the device and in the floating-point type of `old`'s parameters."""
    reference = next(old.parameters())
    return new.to(reference.device, reference.dtype)
