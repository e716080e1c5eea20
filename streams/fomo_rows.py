"""All images of a stream of concepts in one pool, in an order that does not hang on that of the tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from clbench.data import cache
from clbench.samples import Pool

from .fomo_concepts import Concept
from .row_keys import digest

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


@dataclass
class Rows:
    """x: uint8 [N, 3, R, R]; keys: uint64 [N]; place: of a concept (by id) and part its rows, int64.

    source: of every row the row of its set's split that it was.
    """

    x: np.ndarray
    keys: np.ndarray
    source: np.ndarray
    place: dict[tuple[int, Part], np.ndarray]

    def of(self, concepts: Sequence[Concept], part: Part) -> np.ndarray:
        """int64: the rows of that part of the concepts, concept after concept."""
        parts = [self.place[id(concept), part] for concept in concepts]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def train_of(self, concepts: Sequence[Concept], *wanted: str) -> np.ndarray:
        """int64: the training rows of the concepts in these roles, as they stand in the pool."""
        return np.sort(self.of([concept for concept in concepts if concept.role in wanted], "train"))

    @property
    def fingerprint(self) -> str:
        return f"{self.x.shape[1:]}-{digest(self.keys, ordered=True)}"

    def pool(self, labels: dict[int, int]) -> Pool:
        """The pool, its labels those of the concepts (by id)."""
        y = np.zeros(len(self.x), np.int64)
        for (concept, _), rows in self.place.items():
            y[rows] = labels[concept]
        return Pool(torch.from_numpy(self.x), torch.from_numpy(y), self.fingerprint)


def all_rows(concepts: Sequence[Concept]) -> Rows:
    """The rows of all concepts, one concept after another, of each its training, validation and test rows."""
    place: dict[tuple[int, Part], np.ndarray] = {}
    images, keys, source, start = [], [], [], 0
    for concept in concepts:
        for part in PARTS:
            taken: np.ndarray = getattr(concept, part)
            split = concept.source.data.test if part == "test" else concept.source.data.train
            place[id(concept), part] = start + np.arange(len(taken))
            start += len(taken)
            images.append((split.x, taken))
            keys.append(split.keys[taken])
            source.append(taken)
    every_key = np.concatenate(keys)
    return Rows(_laid_out(images, every_key), every_key, np.concatenate(source), place)


def _laid_out(parts: Sequence[tuple[np.ndarray, np.ndarray]], keys: np.ndarray) -> np.ndarray:
    """uint8 [N, 3, R, R]: the rows of each part's images one after another; where they are a large share of the memory,
    in a file of the cache that is mapped."""
    shape = (len(keys), *parts[0][0].shape[1:])
    name = f"rows-{shape[-1]}-{digest(keys, ordered=True)}"
    large = cache.is_large(int(np.prod(shape, dtype=np.int64)))
    stored = cache.load(name) if large else None
    if stored is not None:
        return stored[0]
    writer = cache.Writer() if large else None
    try:
        x = np.empty(shape, np.uint8) if writer is None else writer.array(shape)
        start = 0
        for images, taken in parts:
            x[start : start + len(taken)] = images[taken]
            start += len(taken)
        if writer is not None:
            writer.finish(name, x, np.zeros(len(x), np.int64), {})
            stored = cache.load(name)
        return x if stored is None else stored[0]
    finally:
        if writer is not None:
            writer.discard()
