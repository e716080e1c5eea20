"""Which caption a sample goes with, and its tokens: vectorised draws from a stream's captions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clbench.captions import Captions
from clbench.models.spec import Tokenize


class CaptionTable:
    """Ids of captions by concept and by row of the pool, and the tokens of each id: int32 [captions, context]."""

    def __init__(self, captions: Captions, tokenize: Tokenize) -> None:
        ids = captions.ids
        rows = sorted(captions.of_row)
        self.concepts = len(captions.texts)
        self.rows = torch.tensor(rows, dtype=torch.int64)
        self._place = {row: self.concepts + i for i, row in enumerate(rows)}
        self._lists = [[ids[t] for t in texts] for texts in (*captions.texts, *(captions.of_row[row] for row in rows))]
        self.flat = torch.tensor([number for mine in self._lists for number in mine], dtype=torch.int64)
        self.counts = torch.tensor([len(mine) for mine in self._lists], dtype=torch.int64)
        self.starts = self.counts.cumsum(0) - self.counts
        self.tokens = tokenize(captions.vocabulary).to(torch.int32)

    def draw(self, labels: Tensor, rows: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """A caption's id for each sample, int64 [B]: one drawn evenly from its captions, or, without a generator, the
        first. rows: where each sample lies in the pool (-1: not in it); None: nobody knows."""
        self._to(labels.device)
        entries = self._entries(labels, rows)
        if generator is None:
            return self.flat[self.starts[entries]]
        counts = self.counts[entries]
        shares = torch.rand(len(labels), dtype=torch.float64, generator=generator).to(labels.device)
        return self.flat[self.starts[entries] + (shares * counts).long().clamp(max=counts - 1)]

    def captions_of(self, label: int, row: int) -> Sequence[int]:
        """Ids of all captions of a sample."""
        return self._lists[self._place.get(row, label)]

    def of_concept(self, concept: int) -> Sequence[int]:
        """Ids of a concept's captions, the primer's first."""
        return self._lists[concept]

    def tokens_of(self, ids: Tensor) -> Tensor:
        """int64 [B, context], where the table is by now: where inputs were last."""
        return self.tokens[ids.to(self.tokens.device)].long()

    def _entries(self, labels: Tensor, rows: Tensor | None) -> Tensor:
        """The place of each sample's list of captions: of its row's, where it has any, or of its concept's."""
        if rows is None or not len(self.rows):
            return labels
        rows = rows.to(labels.device)
        known = self.rows.to(labels.device)
        place = torch.searchsorted(known, rows).clamp(max=len(known) - 1)
        return torch.where(known[place] == rows, self.concepts + place, labels)

    def _to(self, device: torch.device) -> None:
        if self.flat.device != device:
            self.flat, self.counts = self.flat.to(device), self.counts.to(device)
            self.starts, self.tokens = self.starts.to(device), self.tokens.to(device)
