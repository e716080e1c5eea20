"""Draws that hang on names alone: what one thing draws never changes with what else there is."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256


def draw(seed: int, *names: object) -> int:
    """64 bits from the seed and the names."""
    text = "\x1f".join(str(part) for part in (seed, *names))
    return int.from_bytes(sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "little")


def shuffled(names: Iterable[str], seed: int, *purpose: object) -> list[str]:
    """The names in an order of their draws: another name more leaves the order of all others as it was."""
    return sorted(names, key=lambda name: (draw(seed, *purpose, name), name))
