"""Which side of a split a document stands on: decided by its text, before anything is packed into blocks."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Literal, get_args

Side = Literal["train", "validation", "evaluation"]
SIDES: tuple[Side, ...] = get_args(Side)

BUCKETS = 1000
EVALUATION_FROM = 940
"""Buckets from here on (6 %) are evaluation documents where a set comes without a split of its own."""


def document_key(text: str) -> str:
    """sha256 (hex) of a text in Unicode form NFC with each run of white space as one space; "" for a blank text.

    Texts with equal keys are the same document.
    """
    normalised = " ".join(unicodedata.normalize("NFC", text).split())
    return sha256(normalised.encode()).hexdigest() if normalised else ""


def bucket(key: str) -> int:
    """0..999, from the first 8 bytes of a document's key."""
    return int(key[:16], 16) % BUCKETS


class DocumentSplit:
    """Documents by side, each once: `sides[side]` maps a document's key to its text.

    validation: share of the documents that may be trained on that is kept for choosing hyper-parameters instead.
    """

    def __init__(self, validation: float = 0.0) -> None:
        self.validation = validation
        self.sides: dict[Side, dict[str, str]] = {side: {} for side in SIDES}

    def by_hash(self, texts: Iterable[str], enough: Mapping[Side, int] | None = None) -> DocumentSplit:
        """Put each document where its key says. `enough`: characters after which a side takes no more; reading stops
        when all sides have theirs (needed for sources without end)."""
        missing = dict(enough) if enough is not None else None
        for text in texts:
            if missing is not None and all(amount <= 0 for amount in missing.values()):
                break
            key = document_key(text)
            if not key:
                continue
            side: Side = "evaluation" if bucket(key) >= EVALUATION_FROM else self._trained_side(key)
            if missing is not None and missing[side] <= 0:
                continue
            if key not in self.sides[side]:
                self.sides[side][key] = text
                if missing is not None:
                    missing[side] -= len(text)
        return self

    def as_given(self, train: Iterable[str], evaluation: Iterable[str]) -> DocumentSplit:
        """Keep the split that a set comes with; its training part still gives up the validation share."""
        for text in evaluation:
            if key := document_key(text):
                self.sides["evaluation"].setdefault(key, text)
        for text in train:
            if key := document_key(text):
                self.sides[self._trained_side(key)].setdefault(key, text)
        return self

    def drop(self, keys: set[str]) -> int:
        """Take documents out of training and validation; how many there were."""
        found = 0
        for side in ("train", "validation"):
            for key in keys & self.sides[side].keys():
                del self.sides[side][key]
                found += 1
        return found

    def texts(self, side: Side) -> list[str]:
        """The documents of a side in the order of their keys: whatever their order in the source."""
        return [text for _, text in sorted(self.sides[side].items())]

    def _trained_side(self, key: str) -> Side:
        return "validation" if bucket(key) < self.validation * BUCKETS else "train"
