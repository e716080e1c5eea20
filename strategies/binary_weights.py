"""Layers whose weights are -1 or 1 at random, each with a field: the network of `bvcl`."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clbench.models.heads import Head

SMALLEST_VARIANCE = 1e-30


class BinaryLinear(nn.Module):
    """z = W a / sqrt(N), without biases: float [B, N] to [B, n_out]; P(w = 1) = sigmoid(2 beta theta).

    Fields theta start as N(0, 1). In train mode z is drawn from the Gaussian with its mean and variance, one draw a
    unit and sample (local reparametrisation: Kingma et al. 2015). In eval mode it is the mean, or that of `drawn`
    weights where these are set.
    """

    beta: Tensor

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.randn(n_out, n_in))
        self.register_buffer("beta", torch.ones(()))
        self.drawn: Tensor | None = None

    def mean(self) -> Tensor:
        """Expected weights, tanh(beta theta)."""
        return torch.tanh(self.beta * self.theta)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Weights of -1 and 1, drawn on the CPU."""
        uniform = torch.rand(self.theta.shape, generator=generator).to(self.theta.device)
        return torch.where(uniform < (1 + self.mean()) / 2, 1.0, -1.0)

    def forward(self, a: Tensor) -> Tensor:
        if not self.training:
            weight = self.mean() if self.drawn is None else self.drawn
            return F.linear(a, weight) / math.sqrt(weight.shape[1])
        mean = self.mean()
        n = mean.shape[1]
        variance = F.linear(a.square(), 1 - mean.square()) / n + SMALLEST_VARIANCE
        expected = F.linear(a, mean) / math.sqrt(n)
        return expected + torch.randn_like(expected) * variance.sqrt()

    def append(self, n_new: int) -> None:
        """Further units; the fields there are keep their bits."""
        rows = torch.randn(n_new, self.theta.shape[1]).to(self.theta)
        self.theta = nn.Parameter(torch.cat([self.theta.detach(), rows]), self.theta.requires_grad)


class BinaryHead(Head):
    """A growing head of binary weights."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.linear = BinaryLinear(dim, 0)

    @property
    def n_classes(self) -> int:
        return self.linear.theta.shape[0]

    def _append(self, n_new: int) -> None:
        self.linear.append(n_new)

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.linear(features)
        return scores


def binary_layers(model: nn.Module) -> dict[str, BinaryLinear]:
    """The binary layers of a model, by the names of their fields."""
    return {f"{name}.theta": layer for name, layer in model.named_modules() if isinstance(layer, BinaryLinear)}
