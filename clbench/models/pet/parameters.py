"""What all PET modules share: wrapping, a learnable scale, and how their parameters are found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

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


class Wrapper(nn.Module):
    """A part of a network, `inner`, and what changes its outputs, `pet`; without effect while not `active`."""

    def __init__(self, inner: nn.Module, pet: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.pet = pet
        self.active = True

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        return self.adapted(x, **options) if self.active else self.inner(x, **options)

    def adapted(self, x: Tensor, **options: Any) -> Tensor:
        """The output with `pet`."""
        raise NotImplementedError


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Inside, the model computes as if no PET module had been attached, bit for bit."""
    before = [(m, m.active) for m in model.modules() if isinstance(m, Wrapper)]
    for wrapper, _ in before:
        wrapper.active = False
    try:
        yield
    finally:
        for wrapper, active in before:
            wrapper.active = active


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
