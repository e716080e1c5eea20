"""Samples: rows of one resident (or memory-mapped) tensor. A batch is an index into it and one transform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(eq=False)
class Pool:
    """Everything a stream holds of one shape.

    inputs: uint8 images [N, C, H, W], or integer token blocks [N, context + 1]; a tensor or a memory map. With
        `features`, float32 [N, d]: rows that reach a step as they are, whatever the strategy reads otherwise.
    labels: int64 [N]: the class of an image (its position in the head), the domain of a token block.
    fingerprint: of the rows in their order; keys the feature cache. Empty: the engine sums the bytes itself.
    """

    inputs: Tensor
    labels: Tensor
    fingerprint: str = ""
    features: bool = False

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise ValueError(f"{len(self.inputs)} inputs, {len(self.labels)} labels")


class Samples:
    """A selection of a pool's rows, in order. `index` (int64 [n]) is each sample's stable id."""

    def __init__(self, pool: Pool, index: Tensor | Sequence[int] | None = None) -> None:
        self.pool = pool
        self.index = torch.arange(len(pool.labels)) if index is None else torch.as_tensor(index, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def labels(self) -> Tensor:
        """int64 [n]."""
        return self.pool.labels[self.index]

    def subset(self, positions: Tensor | Sequence[int]) -> Samples:
        """The samples at these positions of this selection."""
        return Samples(self.pool, self.index[torch.as_tensor(positions, dtype=torch.int64)])

    def raw(self, positions: Tensor) -> Tensor:
        """Stored values (uint8 or tokens), un-augmented: [len(positions), ...]."""
        return self.pool.inputs[self.index[positions]]

    @staticmethod
    def union(parts: Sequence[Samples]) -> Samples:
        """All samples of several selections of one pool, in order."""
        pools = {id(part.pool) for part in parts}
        if len(pools) != 1:
            raise ValueError("a union needs selections of one pool")
        return Samples(parts[0].pool, torch.cat([part.index for part in parts]))


@dataclass
class Batch:
    """What a step sees.

    x: model inputs, float [B, C, H, W], token ids [B, T], features [B, d] or `clbench.pairs.Pairs`; y: targets, int64
    [B] or [B, T] (of pairs: ids of captions).
    raw: the stored values, un-augmented. labels: int64 [B], class or domain. index: stable sample ids, int64 [B]
    (-1 for samples from a memory). part: int64 [B], 0 = the current task, 1 = a memory. extra: further columns, as a
    memory stores them (logits, say). left_out: how many samples more the batch has room for, where a phase's mixture
    leaves some to the strategy.
    """

    x: Any
    y: Tensor
    raw: Tensor
    labels: Tensor
    index: Tensor
    epoch: int = 0
    part: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def whole(self) -> Batch:
        """The whole batch of the step. Where a run is shared by several devices, `loss` sees a part of it."""
        return self

    @staticmethod
    def join(batches: Sequence[Batch]) -> Batch:
        """One batch of several; `part` numbers them in order. `extra` columns are kept where all have them."""
        shares = [b for b in batches if isinstance(b, Share)]
        if shares and len(shares) < len(batches):  # equal weights for all rows, as in the join of the whole batches
            batches = [b.repeated() if isinstance(b, Share) else b for b in batches]
        joined = _join(batches)
        if len(shares) < len(batches):
            return joined
        return Share(**vars(joined), copies=shares[0].copies, wholes=tuple(s.whole for s in shares))


@dataclass
class Share(Batch):
    """One rank's part of a batch: `copies` ranks have equally many rows of `wholes`, joined, in order of rank.

    `measured`: whether its length was asked for.
    """

    copies: int = 1
    wholes: tuple[Batch, ...] = ()
    measured: bool = field(default=False, init=False)

    def __len__(self) -> int:
        self.measured = True
        return len(self.labels)

    @property
    def whole(self) -> Batch:
        return self.wholes[0] if len(self.wholes) == 1 else _join(self.wholes)

    def repeated(self) -> Batch:
        """These rows once for every rank: as long as the whole, and the mean over ranks of any mean over them is the
        whole's."""
        return _join([self] * self.copies)

    @staticmethod
    def of(batch: Batch, rank: int, ranks: int) -> Share:
        """The part of one of several ranks; their number divides the batch's length."""
        n = len(batch) // ranks
        rows = slice(rank * n, (rank + 1) * n)
        return Share(
            x=batch.x[rows],
            y=batch.y[rows],
            raw=batch.raw[rows],
            labels=batch.labels[rows],
            index=batch.index[rows],
            epoch=batch.epoch,
            part=None if batch.part is None else batch.part[rows],
            extra={key: column[rows] for key, column in batch.extra.items()},
            copies=ranks,
            wholes=(batch,),
        )


def _join(batches: Sequence[Batch]) -> Batch:
    parts = [torch.full((len(b.labels),), i, dtype=torch.int64) for i, b in enumerate(batches)]
    shared = set.intersection(*(set(b.extra) for b in batches))
    return Batch(
        x=torch.cat([b.x for b in batches]),
        y=torch.cat([b.y for b in batches]),
        raw=torch.cat([b.raw for b in batches]),
        labels=torch.cat([b.labels for b in batches]),
        index=torch.cat([b.index for b in batches]),
        epoch=batches[0].epoch,
        part=torch.cat(parts),
        extra={key: torch.cat([b.extra[key] for b in batches]) for key in shared},
    )
