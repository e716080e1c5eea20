"""Randomness as a function of (run seed, concern, place), never of history.

A *place* is where the run stands: task, stage, phase, step. Entering one seeds the generators that models draw
from (torch's default, numpy's, `random`'s); everything else draws from a generator of its own concern, which is
seeded for the place the first time something is drawn there and continues within it.
"""

from __future__ import annotations

import random
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, concern: str, *place: int | str) -> int:
    """A 63-bit seed from a keyed hash: equal on every machine, unlike `hash()`."""
    text = "\x1f".join([str(seed), concern, *map(str, place)])
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class Randomness:
    """All random sources of one run; with `cuda`, the GPUs' generators as well."""

    def __init__(self, seed: int, cuda: bool = False) -> None:
        self.seed = seed
        self.cuda = cuda
        self._place: tuple[int | str, ...] = ("start",)
        self._generators: dict[str, torch.Generator] = {}
        self._seeded_at: dict[str, tuple[int | str, ...]] = {}

    def enter(self, *place: int | str) -> None:
        """Stand at `place`: seed torch's, numpy's and Python's global generators for it."""
        self._place = place
        self.seed_all()

    def seed_all(self, *further: int | str) -> None:
        """Seed the global generators for the place where the run stands, and what is added to it."""
        import numpy as np

        value = self.seed_torch(*further)
        np.random.seed(value & 0xFFFFFFFF)
        random.seed(value)

    def seed_torch(self, *further: int | str) -> int:
        """Seed torch's alone: dropout, noise. Returns the seed."""
        import torch

        value = derive_seed(self.seed, "model", *self._place, *further)
        torch.default_generator.manual_seed(value)
        if self.cuda:
            torch.cuda.manual_seed_all(value)
        return value

    def generator(self, concern: str) -> torch.Generator:
        """The CPU generator of a concern ("memory", "augment", ...): keyed to the place, continued within it."""
        import torch

        if concern not in self._generators:
            self._generators[concern] = torch.Generator()
        generator = self._generators[concern]
        if self._seeded_at.get(concern) != self._place:
            generator.manual_seed(derive_seed(self.seed, concern, *self._place))
            self._seeded_at[concern] = self._place
        return generator

    def go_back(self) -> None:
        """Places passed already come again: what is drawn there is drawn as it was the first time."""
        self._seeded_at.clear()

    def fixed(self, concern: str, *place: int | str) -> torch.Generator:
        """A new CPU generator keyed to an explicit place (an epoch's permutation, say)."""
        import torch

        generator = torch.Generator()
        generator.manual_seed(derive_seed(self.seed, concern, *place))
        return generator
