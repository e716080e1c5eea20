"""Classification heads that grow: row k belongs to the k-th class in order of arrival."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _appended(old: Tensor, new: Tensor) -> Tensor:
    """`old` with the rows `new` below it; drawn rows are moved to the device and type of the old ones."""
    return torch.cat([old.detach(), new.detach().to(old)])


def _draw_rows(n_new: int, dim: int) -> nn.Linear:
    """PyTorch's default Linear initialisation: weight and bias uniform in +-1/sqrt(dim), drawn on the CPU."""
    return nn.Linear(dim, n_new, device="cpu", dtype=torch.float32)


class Head(nn.Module):
    """Scores [B, n_classes] from features [B, dim]. Starts with no class; zero classes give [B, 0]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @property
    def n_classes(self) -> int:
        raise NotImplementedError

    def grow(self, n_new: int) -> None:
        """Append `n_new` classes. Old rows keep their bits, parameters their names and `requires_grad`.

        New rows are drawn on the CPU from torch's default generator, so a seed gives the same bytes on any
        device.
        """
        if n_new < 0:
            raise ValueError(f"a head cannot grow by {n_new} classes")
        if n_new:
            self._append(n_new)

    def _append(self, n_new: int) -> None:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"dim={self.dim}, n_classes={self.n_classes}"


class LinearHead(Head):
    """`W f + b`. New rows get PyTorch's default Linear initialisation, old ones are kept."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.weight = nn.Parameter(torch.empty(0, dim))
        self.bias = nn.Parameter(torch.empty(0))

    @property
    def n_classes(self) -> int:
        return self.weight.shape[0]

    def _append(self, n_new: int) -> None:
        rows = _draw_rows(n_new, self.dim)
        self.weight = nn.Parameter(_appended(self.weight, rows.weight), self.weight.requires_grad)
        self.bias = nn.Parameter(_appended(self.bias, rows.bias), self.bias.requires_grad)

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight, self.bias)


class CosineHead(Head):
    """`scale * cos(f, w_k)` with a learnable scale that starts at 10 (Gidaris and Komodakis, CVPR 2018)."""

    def __init__(self, dim: int, scale: float = 10.0) -> None:
        super().__init__(dim)
        self.weight = nn.Parameter(torch.empty(0, dim))
        self.scale = nn.Parameter(torch.tensor(scale))

    @property
    def n_classes(self) -> int:
        return self.weight.shape[0]

    def _append(self, n_new: int) -> None:
        rows = _draw_rows(n_new, self.dim).weight
        self.weight = nn.Parameter(_appended(self.weight, rows), self.weight.requires_grad)

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(features, dim=-1), F.normalize(self.weight, dim=-1))


class PrototypeHead(Head):
    """`2 f.mu_k - |mu_k|^2`: ranks classes by Euclidean distance of `f` to the class means.

    `means` [n_classes, dim] is a buffer that a strategy fills (`head.means[k] = ...`); a new class starts at
    zero.
    """

    means: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.register_buffer("means", torch.empty(0, dim))

    @property
    def n_classes(self) -> int:
        return self.means.shape[0]

    def _append(self, n_new: int) -> None:
        self.means = _appended(self.means, torch.zeros(n_new, self.dim))

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(2 * features, self.means, -self.means.square().sum(dim=1))


HEADS: dict[str, type[Head]] = {"linear": LinearHead, "cosine": CosineHead, "prototype": PrototypeHead}
