"""How much of a domain's training text stands in other evaluation documents: shingles of 50 bytes, by their hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .row_keys import mixed

SHINGLE = 50  # bytes
SAMPLED = 20_000  # shingles of a domain's training text that are looked up
MOST = 4 << 20  # bytes of evaluation text, and of training text, that are looked at
REPORTED = 0.001
_BASE = np.uint64(0x9E3779B97F4A7C15)


def overlaps(
    training: Mapping[str, Sequence[str]], evaluation: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str], float]:
    """(domain trained on, domain evaluated) -> share of the former's sampled training shingles that stand in the
    latter's evaluation documents.

    A shingle is 50 neighbouring bytes of a text in which each run of white space is one space. Training shingles are
    sampled evenly, at most 20,000 from at most 4 MB of text; evaluation shingles are all of at most 4 MB.
    """
    known = {name: np.sort(shingles(_bytes(texts))) for name, texts in evaluation.items()}
    found = {}
    for name, texts in training.items():
        data = _bytes(texts)
        every = max(1, (len(data) - SHINGLE + 1) // SAMPLED)
        sample = shingles(data, every)
        for other, held_out in known.items():
            found[name, other] = _share(sample, held_out)
    return found


def shingles(data: np.ndarray, every: int = 1) -> np.ndarray:
    """uint64: hashes of the 50 bytes that start at each (or each `every`-th) position of uint8 [n]."""
    count = max(0, len(data) - SHINGLE + 1)
    keys = np.zeros(len(range(0, count, every)), np.uint64)
    for offset in range(SHINGLE):
        keys = keys * _BASE + data[offset : offset + count : every]
    return mixed(keys)


def overlap_note(found: Mapping[tuple[str, str], float]) -> str:
    """The shares of at least 0.1 % in words, one phrase a domain; "" where there are none."""
    phrases = []
    for name in dict.fromkeys(name for name, _ in found):
        shares = [
            f"{'its own' if other == name else other} {100 * share:.1f} %"
            for (trained, other), share in found.items()
            if trained == name and share >= REPORTED
        ]
        if shares:
            phrases.append(f"{SHINGLE}-byte pieces of {name} that stand in evaluation documents: {', '.join(shares)}")
    return "; ".join(phrases)


def _share(sample: np.ndarray, known: np.ndarray) -> float:
    """Share of the sample that stands in `known`, which is sorted."""
    if not len(sample) or not len(known):
        return 0.0
    place = np.minimum(np.searchsorted(known, sample), len(known) - 1)
    return float((known[place] == sample).mean())


def _bytes(texts: Sequence[str]) -> np.ndarray:
    """Evenly chosen texts, at most 4 MB of them, end to end."""
    size = sum(map(len, texts))
    every = max(1, -(-size // MOST))
    return np.frombuffer("\0".join(" ".join(text.split()) for text in texts[::every]).encode()[:MOST], np.uint8)
