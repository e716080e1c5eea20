"""A pool of LoRA modulators of one frozen transformer: every sample of a batch can have another one (L2M)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clbench.models.pet.parameters import beside
from clbench.models.vit import require_attention, vision_transformer


class Place(NamedTuple):
    """What a modulator changes: `width` outputs of a layer from `start` on; its factors begin at `offset`."""

    offset: int
    start: int
    width: int


class Modulator(nn.Module):
    """A key [d], uniform in +-1, and the factors of all places in one vector: A [in, rank] uniform in +-1/sqrt(in),
    each matrix by its own fan-in, then B [rank, width], zero."""

    def __init__(self, key: int, shapes: Sequence[tuple[int, int]], rank: int) -> None:
        super().__init__()
        self.key = nn.Parameter(torch.empty(key).uniform_(-1, 1))
        factors = []
        for n_in, n_out in shapes:
            factors += [torch.empty(n_in * rank).uniform_(-1, 1) / n_in**0.5, torch.zeros(rank * n_out)]
        self.factors = nn.Parameter(torch.cat(factors))


class Chosen(NamedTuple):
    """Modulators of a batch: the distinct ones' factors [U, P], and which of them each sample has, int64 [B]."""

    factors: Tensor
    rows: Tensor


class ModulatedLinear(nn.Module):
    """h = inner(x), plus scale (x A_i) B_i at each place, i the modulator of the sample; x [B, N, in].

    `on_output`: plus scale (h A_i) B_i instead.
    """

    chosen: Chosen | None = None

    def __init__(
        self, inner: nn.Linear, places: Sequence[Place], rank: int, scale: float, on_output: bool = False
    ) -> None:
        super().__init__()
        self.inner = inner
        self.places = list(places)
        self.on_output = on_output
        self.rank = rank
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(x)
        if self.chosen is None:
            return h
        read, out = h if self.on_output else x, h
        for place in self.places:
            a, b = self._matrices(self.chosen, place, read.shape[-1])
            change = self.scale * ((read @ a) @ b)
            out = out + F.pad(change, (place.start, h.shape[-1] - place.start - place.width))
        return out

    def _matrices(self, chosen: Chosen, place: Place, n_in: int) -> tuple[Tensor, Tensor]:
        """A [B, n_in, rank] and B [B, rank, width] of every sample's modulator."""
        sizes = [n_in * self.rank, self.rank * place.width]
        a, b = chosen.factors[:, place.offset : place.offset + sum(sizes)].split(sizes, dim=1)
        return a.unflatten(1, (-1, self.rank))[chosen.rows], b.unflatten(1, (self.rank, -1))[chosen.rows]


class ModulatorPool(nn.ModuleList):
    """Modulators by number. Each has parameters of its own: one that no sample chose has no gradient, and no
    optimiser moves it by momentum or weight decay."""

    def keys(self) -> Tensor:
        """[M, d]."""
        modulators: list[Any] = list(self)
        return torch.stack([modulator.key for modulator in modulators])

    def choose(self, index: Tensor) -> tuple[Tensor, Chosen]:
        """Keys [B, d] and factors of the modulators `index`, int64 [B]."""
        distinct, rows = index.unique(return_inverse=True)
        modulators: list[Any] = [self[i] for i in distinct.tolist()]
        keys = torch.stack([modulator.key for modulator in modulators])[rows]
        return keys, Chosen(torch.stack([modulator.factors for modulator in modulators]), rows)


@contextmanager
def modulated(model: nn.Module, chosen: Chosen) -> Iterator[None]:
    """Inside, each sample of a batch passes the model with its modulator."""
    layers = [module for module in model.modules() if isinstance(module, ModulatedLinear)]
    for layer in layers:
        layer.chosen = chosen
    try:
        yield
    finally:
        for layer in layers:
            layer.chosen = None


def attach_pool(
    model: nn.Module, which: Sequence[int], size: int, rank: int, scale: float, mlp: bool, who: str
) -> ModulatorPool:
    """Modulators of q and v, and with `mlp` of the MLP's hidden layer before its activation, of the blocks `which`;
    without a choice, and at first with any, the outputs stay the same. The pool becomes the transformer's `pet`."""
    vit: Any = vision_transformer(model, who)
    shapes: list[tuple[int, int]] = []

    def wrap(part: Any, name: str, starts_and_widths: Sequence[tuple[int, int]], on_output: bool = False) -> None:
        inner = getattr(part, name)
        places = []
        for start, width in starts_and_widths:
            places.append(Place(sum((n_in + n_out) * rank for n_in, n_out in shapes), start, width))
            shapes.append((inner.out_features if on_output else inner.in_features, width))
        setattr(part, name, ModulatedLinear(inner, places, rank, scale, on_output))

    for i in which:
        block = vit.blocks[i]
        require_attention(block, who)
        width = block.attn.qkv.out_features // 3
        wrap(block.attn, "qkv", [(0, width), (2 * width, width)])
        if mlp:
            name, hidden = next((n, part) for n, part in block.mlp.named_children() if isinstance(part, nn.Linear))
            wrap(block.mlp, name, [(0, hidden.out_features)], on_output=True)
    pool = ModulatorPool(Modulator(model.feature_dim, shapes, rank) for _ in range(size))  # type: ignore[arg-type]
    vit.pet = beside(pool, vit)
    return pool
