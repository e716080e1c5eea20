"""Memories: a bounded set of stored samples, and the rules by which a sample enters and another leaves.

reservoir: every item seen so far is kept with the same probability (Vitter 1985, algorithm R).
class-balanced: a reservoir per class, each of floor(size / classes seen) rows, shrunk as classes arrive.
ring: the most recent floor(size / classes seen) items of each class.
first: the first floor(size / classes seen) items of each class; `quota` fixes the number instead.
greedy: GDumb's sampler (Prabhu et al. 2020, algorithm 1): an item enters while its class holds fewer than
size / classes seen rows; a random row of the largest class makes room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from clbench.errors import UserError, did_you_mean
from clbench.samples import Batch, Pool, Samples

Policy = Literal["reservoir", "class-balanced", "ring", "first", "greedy"]
POLICIES: tuple[str, ...] = get_args(Policy)
BY_CLASS = ("class-balanced", "ring", "first")
COLUMNS = ("raw", "labels", "keys", "rows")


@dataclass(frozen=True)
class MemoryRows:
    """Rows of a memory: stored values, labels int64 [n], further columns, their positions int64 [n], and where they lay
    in the stream's pool, int64 [n], where the memory keeps that."""

    raw: Tensor
    labels: Tensor
    extra: dict[str, Tensor]
    positions: Tensor
    rows: Tensor | None = None


class Memory:
    """At most `size` samples as they were stored (uint8 or tokens, un-augmented), on the CPU.

    Columns are allocated by the first `add`. Floating-point `extra` columns may grow in their last dimension (logits
    of a growing head): rows stored earlier, and narrower ones, are padded with NaN. An `add` costs the same however
    many samples were seen. `seen` counts them; `quota`, where set, replaces floor(size / classes seen). keeps_rows:
    `Batch.index` is stored as well, for streams whose samples have captions of their own.
    """

    def __init__(self, size: int, policy: str = "reservoir", keeps_rows: bool = False) -> None:
        if size < 1:
            raise UserError(f"a memory needs a size of 1 or more, not {size}")
        if policy not in POLICIES:
            raise UserError(f"unknown memory policy {policy!r}{did_you_mean(policy, POLICIES)}")
        self.size = size
        self.policy = policy
        self.keeps_rows = keeps_rows
        self.quota: int | None = None
        self.seen = 0
        self._length = 0
        self._known = torch.empty(0, dtype=torch.int64)
        self._columns: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return self._length

    @property
    def bytes(self) -> int:
        """Bytes of the rows in use, all columns."""
        return sum(c[:1].numel() * c.element_size() for c in self._columns.values()) * self._length

    def classes(self) -> dict[int, int]:
        """How many rows each label has."""
        labels, counts = self._used("labels").unique(return_counts=True)
        return dict(zip(labels.tolist(), counts.tolist(), strict=True))

    def rows(self, positions: Tensor) -> MemoryRows:
        """The rows at these positions, copied."""
        extra = {name: c[positions] for name, c in self._columns.items() if name not in COLUMNS}
        rows = self._columns["rows"][positions] if self.keeps_rows else None
        return MemoryRows(self._columns["raw"][positions], self._columns["labels"][positions], extra, positions, rows)

    def all(self) -> MemoryRows:
        """Every row, in order of position. Raises ValueError while empty."""
        if not self._length:
            raise ValueError("the memory is empty")
        return self.rows(torch.arange(self._length))

    def samples(self) -> Samples:
        """The rows as samples a phase can train on."""
        rows = self.all()
        return Samples(Pool(rows.raw, rows.labels))

    def sample(self, n: int, generator: torch.Generator) -> MemoryRows:
        """min(n, len) rows drawn without replacement. Raises ValueError while empty."""
        if not self._length:
            raise ValueError("the memory is empty")
        return self.rows(torch.randperm(self._length, generator=generator)[:n])

    def add(self, batch: Batch, generator: torch.Generator, extra: dict[str, Tensor] | None = None) -> None:
        """Offer a batch's samples, one after another: `batch.raw` and `batch.labels`, plus `extra` columns [B, ...].

        Offer only what came from the stream. Raises ValueError where the columns are not those of the first call.
        """
        if not len(batch):
            return
        offered = {"raw": batch.raw, "labels": batch.labels, **(extra or {})}
        if self.keeps_rows:
            offered["rows"] = batch.index
        if self.policy in BY_CLASS:
            offered["keys"] = self._keys(len(batch), generator)
        offered = {name: value.detach().cpu() for name, value in offered.items()}
        self._prepare(offered)
        place = {"reservoir": self._reservoir, "greedy": self._greedy}.get(self.policy, self._by_class)
        place(offered, generator)
        self.seen += len(batch)

    def state_dict(self) -> dict[str, Any]:
        """The rows in use and the counters."""
        columns = {name: self._used(name) for name in self._columns}
        return {"columns": columns, "seen": self.seen, "known": self._known, "quota": self.quota}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, of a memory of the same size and policy."""
        self._columns = {name: self._allocate(rows) for name, rows in state["columns"].items()}
        self._length = len(state["columns"].get("labels", ()))
        for name, rows in state["columns"].items():
            self._columns[name][: self._length] = rows
        self.seen, self._known, self.quota = state["seen"], state["known"], state["quota"]

    # -- policies ------------------------------------------------------------------------------------------------

    def _keys(self, n: int, generator: torch.Generator) -> Tensor:
        """float64 [n]: what the per-class policies keep the largest of."""
        arrival = torch.arange(self.seen, self.seen + n, dtype=torch.float64)
        if self.policy == "class-balanced":
            return torch.rand(n, dtype=torch.float64, generator=generator)
        return -arrival if self.policy == "first" else arrival

    def _reservoir(self, offered: dict[str, Tensor], generator: torch.Generator) -> None:
        """Item n (0-based) goes to slot n while there is room, else to r drawn from 0..n, if r < size."""
        n = torch.arange(self.seen, self.seen + len(offered["labels"]))
        draws = (torch.rand(len(n), dtype=torch.float64, generator=generator) * (n + 1)).long()
        slots = torch.where(n < self.size, n, draws).tolist()
        last = {slot: item for item, slot in enumerate(slots) if slot < self.size}
        self._length = max(self._length, min(self.size, self.seen + len(n)))
        self._write(list(last.keys()), list(last.values()), offered)

    def _greedy(self, offered: dict[str, Tensor], generator: torch.Generator) -> None:
        labels = self._used("labels").tolist()
        counts = self.classes()
        source: dict[int, int] = {}
        for item, label in enumerate(offered["labels"].tolist()):
            counts.setdefault(label, 0)
            if counts[label] and counts[label] * len(counts) >= self.size:
                continue
            if len(labels) < self.size:
                slot = len(labels)
                labels.append(label)
            else:
                largest = max(counts, key=lambda c: (counts[c], -c))
                held = [position for position, held in enumerate(labels) if held == largest]
                slot = held[int(torch.randint(len(held), (1,), generator=generator))]
                counts[largest] -= 1
                if not counts[largest]:
                    del counts[largest]
                labels[slot] = label
            counts[label] = counts.get(label, 0) + 1
            source[slot] = item
        self._length = len(labels)
        self._write(list(source.keys()), list(source.values()), offered)

    def _by_class(self, offered: dict[str, Tensor], generator: torch.Generator) -> None:
        """Keep the rows with the largest keys of each class; new ones take the places of those that leave."""
        held = self._length
        labels = torch.cat([self._used("labels"), offered["labels"]])
        keys = torch.cat([self._used("keys"), offered["keys"]])
        self._known = torch.cat([self._known, offered["labels"]]).unique()
        kept = self._largest_of_each_class(labels, keys)
        free = (~kept[:held]).nonzero()[:, 0].tolist()
        entering = kept[held:].nonzero()[:, 0].tolist()
        slots = (free + list(range(held, held + len(entering))))[: len(entering)]
        self._length = max([held, *(slot + 1 for slot in slots)])
        self._write(slots, entering, offered)
        self._remove(free[len(entering) :])

    def _largest_of_each_class(self, labels: Tensor, keys: Tensor) -> Tensor:
        """bool [n]: whether a row is among its class's quota; at most `size` rows in all."""
        order = keys.argsort(descending=True, stable=True)
        order = order[labels[order].argsort(stable=True)]
        _, counts = labels[order].unique_consecutive(return_counts=True)
        starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order)) - starts
        kept = rank < (self.quota or max(1, self.size // len(self._known)))
        if int(kept.sum()) > self.size:  # more classes than rows
            kept[kept.nonzero()[:, 0][keys[kept].argsort(descending=True)[self.size :]]] = False
        return kept

    # -- columns -------------------------------------------------------------------------------------------------

    def _used(self, name: str) -> Tensor:
        return self._columns[name][: self._length]

    def _allocate(self, like: Tensor) -> Tensor:
        """A column of `size` rows shaped and typed as those of `like`."""
        return torch.empty((self.size, *like.shape[1:]), dtype=like.dtype)

    def _prepare(self, offered: dict[str, Tensor]) -> None:
        """Allocate or widen the columns for these rows; pad the rows where they are the narrower ones."""
        if not self._columns:
            self._columns = {name: self._allocate(rows) for name, rows in offered.items()}
        if offered.keys() != self._columns.keys():
            raise ValueError(f"the memory's columns are {sorted(self._columns)}, not {sorted(offered)}")
        for name, rows in offered.items():
            column = self._columns[name]
            if rows.shape[1:] == column.shape[1:]:
                continue
            same_but_width = rows.shape[1:-1] == column.shape[1:-1] and rows.dim() == column.dim() > 1
            if not (same_but_width and column.is_floating_point()):
                raise ValueError(f"column {name}: rows of {tuple(rows.shape[1:])}, not {tuple(column.shape[1:])}")
            width = max(rows.shape[-1], column.shape[-1])
            self._columns[name], offered[name] = _widen(column, width), _widen(rows, width)

    def _write(self, slots: list[int], items: list[int], offered: dict[str, Tensor]) -> None:
        """Row `items[i]` of the offered ones into slot `slots[i]`; slots are distinct."""
        if slots:
            for name, column in self._columns.items():
                column[torch.tensor(slots)] = offered[name][torch.tensor(items)].to(column.dtype)

    def _remove(self, slots: list[int]) -> None:
        """Drop rows; the last ones move into the holes."""
        left = self._length - len(slots)
        gone = set(slots)
        holes = [slot for slot in slots if slot < left]
        moving = [slot for slot in range(left, self._length) if slot not in gone]
        if holes:
            for column in self._columns.values():
                column[torch.tensor(holes)] = column[torch.tensor(moving)]
        self._length = left


def _widen(rows: Tensor, width: int) -> Tensor:
    """Rows with a last dimension of `width`, NaN in the new places."""
    return torch.nn.functional.pad(rows, (0, width - rows.shape[-1]), value=float("nan"))
