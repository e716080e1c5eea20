"""Which side of a split a document stands on: decided by its text, before anything is packed into blocks."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Literal, get_args

Side = Literal["train", "validation", "evaluation"]
SIDES: tuple[Side, ...] = get_args(Side)
Enough = Mapping[Side, float | Sequence[float]]
"""Characters that a side needs, or that it needs after each of several phases; a side that is not named needs none."""

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
        self._phase: dict[str, int] = {}

    def by_hash(self, texts: Iterable[str], enough: Enough | None = None) -> DocumentSplit:
        """Put each document where its key says. `enough`: characters after which a side takes no more; reading stops
        when all sides have theirs (needed for sources without end)."""
        return self._fill(texts, self._any_side, enough)

    def as_given(self, train: Iterable[str], evaluation: Iterable[str], enough: Enough | None = None) -> DocumentSplit:
        """Keep the split that a set comes with; its training part still gives up the validation share."""
        self._fill(evaluation, lambda key: "evaluation", _only(enough, ("evaluation",)))
        return self._fill(train, self._trained_side, _only(enough, ("train", "validation")))

    def _fill(self, texts: Iterable[str], side_of: Callable[[str], Side], enough: Enough | None) -> DocumentSplit:
        wanted = {side: list(n) if isinstance(n, Sequence) else [n] for side, n in (enough or {}).items()}
        taken = dict.fromkeys(SIDES, 0)
        for text in texts:
            if enough is not None and all(taken[side] >= amounts[-1] for side, amounts in wanted.items()):
                break
            key = document_key(text)
            if not key:
                continue
            side = side_of(key)
            phase = bisect_right(wanted.get(side, []), taken[side])
            if (enough is None or phase < len(wanted.get(side, []))) and key not in self.sides[side]:
                self.sides[side][key] = text
                self._phase[key] = phase
                taken[side] += len(text)
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
        """The documents of a side in the order of their keys: whatever their order in the source. Those that only a
        later phase needs come after those of the earlier ones, whose text so does not hang on what follows."""
        return [text for _, text in sorted(self.sides[side].items(), key=lambda item: (self._phase[item[0]], item[0]))]

    def _any_side(self, key: str) -> Side:
        return "evaluation" if bucket(key) >= EVALUATION_FROM else self._trained_side(key)

    def _trained_side(self, key: str) -> Side:
        return "validation" if bucket(key) < self.validation * BUCKETS else "train"


def _only(enough: Enough | None, sides: tuple[Side, ...]) -> Enough | None:
    return None if enough is None else {side: amount for side, amount in enough.items() if side in sides}
