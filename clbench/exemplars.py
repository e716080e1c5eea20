"""Exemplars: stored samples in sets, best first, which shrink from their ends as sets are added."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clbench.errors import RunFailed, UserError
from clbench.samples import Pool, Samples


class Exemplars:
    """At most `size` samples as they were stored (uint8 or tokens), on the CPU, in sets of floor(size / sets) or fewer.

    A set holds samples of one label; a label has one set for each task that brought it.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise UserError(f"exemplars need a size of 1 or more, not {size}")
        self.size = size
        self._labels: list[int] = []
        self._sets: list[Tensor] = []

    def __len__(self) -> int:
        """Samples stored."""
        return sum(len(rows) for rows in self._sets)

    @property
    def sets(self) -> int:
        return len(self._sets)

    @property
    def labels(self) -> list[int]:
        """The label of each set, in order of arrival."""
        return list(self._labels)

    def make_room(self, new_sets: int) -> int:
        """Cut every set to its share of the size, `new_sets` further ones counted; that share, at least 1.

        Raises RunFailed where the size is smaller than the number of sets.
        """
        if not self.sets + new_sets:
            return self.size
        share = self.size // (self.sets + new_sets)
        if share < 1:
            raise RunFailed(f"{self.size} exemplars cannot be shared by {self.sets + new_sets} sets: store more")
        self._sets = [rows[:share].clone() for rows in self._sets]
        return share

    def add(self, label: int, raw: Tensor) -> None:
        """A set of stored values [n, ...], best first. Make room before."""
        if len(self) + len(raw) > self.size:
            raise ValueError(f"{len(self)} + {len(raw)} exemplars are more than {self.size}")
        self._labels.append(label)
        self._sets.append(raw.detach().cpu().clone())

    def samples(self, label: int | None = None) -> Samples:
        """All samples, or those of a label, in order. Raises ValueError where there are none."""
        chosen = [i for i, known in enumerate(self._labels) if label in (None, known)]
        if not chosen:
            raise ValueError("there are no such exemplars")
        counts = torch.tensor([len(self._sets[i]) for i in chosen])
        labels = torch.tensor([self._labels[i] for i in chosen]).repeat_interleave(counts)
        return Samples(Pool(torch.cat([self._sets[i] for i in chosen]), labels))

    def joined(self, samples: Samples) -> Samples:
        """These samples, and all exemplars behind them, as one selection of a pool of their own."""
        if not len(self):
            return samples
        own = self.samples()
        raw = torch.cat([samples.raw(torch.arange(len(samples))), own.pool.inputs])
        return Samples(Pool(raw, torch.cat([samples.labels, own.labels])))

    def state_dict(self) -> dict[str, Any]:
        """The sets and their labels."""
        return {"labels": self._labels, "sets": self._sets}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._labels, self._sets = list(state["labels"]), list(state["sets"])
