"""Low-rank changes of linear layers as sums of rank-one components, each with a weight of its own."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from ..torchvision_schemas import prepare
from .fused import take_apart, weight_of
from .tune import called_linear_layers

Operator = Literal["paper", "released"]


class RankOneSum(nn.Module):
    """scaling * sum_i w_i b_i (a_i . x) for x [..., inputs]; a [rank, inputs], w [rank], b [outputs, rank]."""

    def __init__(self, inputs: int, outputs: int, rank: int, scaling: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(rank, inputs))
        self.w = nn.Parameter(torch.zeros(rank))
        self.b = nn.Parameter(torch.zeros(outputs, rank))
        self.scaling = scaling

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.a) * (self.w * self.scaling), self.b)

    @torch.no_grad()
    def start(self, weights: Tensor) -> None:
        """Begin anew with these weights [rank]: A Kaiming-uniform (a = sqrt 5; drawn on the CPU), B zero, so that
        outputs do not change."""
        drawn = torch.empty(self.a.shape)
        nn.init.kaiming_uniform_(drawn, a=math.sqrt(5))
        self.a.copy_(drawn)
        self.w.copy_(weights)
        self.b.zero_()

    @torch.no_grad()
    def change(self) -> Tensor:
        """What it adds to the layer's weight, [outputs, inputs]."""
        return self.scaling * (self.b * self.w) @ self.a

    @torch.no_grad()
    def clear(self) -> None:
        for parameter in self.parameters():
            parameter.zero_()


def attach(model: Any, rank: int, scaling: float, separate: bool, who: str) -> None:
    """Give every linear layer that the backbone's forward pass calls a `RankOneSum`, zero at first, as `rank_one`.

    Output layers are left out. separate: fused query-key-value layers are taken apart first. Raises UserError where
    the backbone has no such layer; `who` names the method.
    """
    for name in adaptable_layers(model, separate, who):
        layer = model.backbone.get_submodule(name)
        weight = weight_of(layer)
        layer.rank_one = RankOneSum(weight.shape[1], weight.shape[0], rank, scaling).to(weight.device)
        layer.register_forward_hook(_add)


def adaptable_layers(model: Any, separate: bool, who: str) -> list[str]:
    """Names, in the backbone, of the linear layers that a forward pass calls; see `attach`."""
    prepare()
    names = called_linear_layers(model, model.backbone)
    if not names:
        raise UserError(f"{who} changes linear layers, and this backbone has none: choose another with --backbone")
    return take_apart(model.backbone, names) if separate else names


def components(model: Any) -> dict[str, RankOneSum]:
    """The attached sums by the names of their layers in the backbone."""
    found = model.backbone.named_modules()
    return {name.removesuffix(".rank_one"): module for name, module in found if isinstance(module, RankOneSum)}


@torch.no_grad()
def merge(model: Any) -> None:
    """Add every sum to its layer's weight and clear it: the outputs stay the same up to rounding."""
    for name, part in components(model).items():
        weight_of(model.backbone.get_submodule(name)).add_(part.change())
        part.clear()


def soft_threshold(w: Tensor, kappa: float, operator: Operator = "paper") -> Tensor:
    """Shrink towards 0 by kappa; 0 where |w| <= kappa (paper), or where |w| < 2 kappa (released).

    The released codes of CoDyRA and SoRA test the values they have shrunk already once more: that doubles the zone.
    """
    shrunk = w.sign() * (w.abs() - kappa).clamp(min=0)
    return shrunk if operator == "paper" else shrunk.masked_fill(shrunk.abs() < kappa, 0)


def _add(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + layer.rank_one(inputs[0])
