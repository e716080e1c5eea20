"""An n-gram model of tokens (bytes, say): how surprising is a block to someone who knows a reference?

Counts are sorted arrays, and a lookup is a binary search: numpy alone, no loop over tokens. An n-gram is known by a
64-bit hash of its tokens; two of a million have the same with probability 3e-8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clbench.errors import UserError

Smoothing = Literal["kneser-ney", "add-k"]
Ints = NDArray[Any]
Floats = NDArray[np.float64]
SCORED_AT_ONCE = 4096


@dataclass(frozen=True)
class _Level:
    """n-grams of one length, and the contexts they end: hashes sorted, with what is needed of each.

    counts: of the n-grams. totals: sums of the counts over a context's continuations; kinds: how many it has.
    """

    grams: Ints
    counts: Ints
    contexts: Ints
    totals: Ints
    kinds: Ints


class NGram:
    """P(token | up to order - 1 tokens before it in its row).

    kneser-ney: interpolated, one absolute discount (Kneser and Ney 1995; Chen and Goodman 1999, section 2.7). The
    longest n-grams count as often as they occur, shorter ones as often as there are different tokens before them;
    below them all tokens are equally likely. add-k: (count + k) / (context's count + k * vocabulary) (Lidstone).
    At the start of a row the context is what there is of it.
    """

    def __init__(
        self,
        vocabulary: int,
        order: int = 5,
        smoothing: Smoothing = "kneser-ney",
        k: float = 0.1,
        discount: float = 0.75,
    ) -> None:
        if order < 1 or vocabulary < 1:
            raise UserError(f"an n-gram model needs an order and a vocabulary of 1 or more, not {order}, {vocabulary}")
        if smoothing == "add-k" and not k > 0:
            raise UserError(f"add-k smoothing: k={k} must be above 0")
        if not 0 < discount < 1:
            raise UserError(f"Kneser-Ney smoothing: discount={discount} must lie between 0 and 1")
        self.vocabulary = vocabulary
        self.order = order
        self.smoothing = smoothing
        self.k = k
        self.discount = discount
        self._levels: list[_Level] = []

    def fit(self, rows: Ints) -> NGram:
        """Count the n-grams of rows of tokens, integers [N, L]; none crosses the border of a row."""
        rows = _checked(rows, self.vocabulary)
        if not rows.size:
            raise UserError("an n-gram model has nothing to count: the reference is empty")
        longest = min(self.order, rows.shape[1])
        raw = self.smoothing == "add-k"
        self._levels = [_level(rows, n, raw or n == longest) for n in range(1, longest + 1)]
        return self

    def probabilities(self, rows: Ints) -> Floats:
        """P of every token of the rows, [N, L], given those before it."""
        rows = _checked(rows, self.vocabulary)
        hashes = [_hashes(rows, n) for n in range(min(len(self._levels), rows.shape[1]) + 1)]
        if self.smoothing == "add-k":
            return self._add_k(rows.shape, hashes)
        values = np.full(rows.shape, 1.0 / self.vocabulary)
        for n, level in enumerate(self._levels[: len(hashes) - 1], start=1):
            contexts = hashes[n - 1][:, : rows.shape[1] - n + 1]
            totals, kinds = _found(level.contexts, contexts, level.totals, level.kinds)
            (counts,) = _found(level.grams, hashes[n], level.counts)
            lower = values[:, n - 1 :]
            higher = (np.maximum(counts - self.discount, 0) + self.discount * kinds * lower) / np.maximum(totals, 1)
            values[:, n - 1 :] = np.where(totals > 0, higher, lower)
        return values

    def _add_k(self, shape: tuple[int, ...], hashes: list[Ints]) -> Floats:
        values = np.zeros(shape)
        for n, level in enumerate(self._levels[: len(hashes) - 1], start=1):  # longer contexts replace shorter ones
            (totals,) = _found(level.contexts, hashes[n - 1][:, : shape[1] - n + 1], level.totals)
            (counts,) = _found(level.grams, hashes[n], level.counts)
            values[:, n - 1 :] = (counts + self.k) / (totals + self.k * self.vocabulary)
        return values

    def perplexity(self, rows: Ints) -> Floats:
        """exp of the mean surprise of each row's targets (every token but the first), float64 [N]."""
        if not self._levels:
            raise ValueError("fit the model before it is asked")
        rows = np.atleast_2d(np.asarray(rows))
        if rows.shape[1] < 2:
            raise UserError("a row of fewer than 2 tokens has no target")
        parts = [rows[start : start + SCORED_AT_ONCE] for start in range(0, len(rows), SCORED_AT_ONCE)]
        means = [-np.log(self.probabilities(part)[:, 1:]).mean(1) for part in parts]
        return np.exp(np.concatenate([np.zeros(0), *means]))


def _checked(rows: Ints, vocabulary: int) -> Ints:
    rows = np.atleast_2d(np.asarray(rows))
    if rows.ndim != 2 or not np.issubdtype(rows.dtype, np.integer):
        raise UserError(f"an n-gram model reads rows of tokens, not {rows.dtype} {rows.shape}")
    if rows.size and (rows.min() < 0 or rows.max() >= vocabulary):
        raise UserError(f"an n-gram model of {vocabulary} tokens met token {int(rows.max())}")
    return rows


def _hashes(rows: Ints, n: int) -> Ints:
    """uint64 [N, L - n + 1]: of the n tokens from each place on; of none, [N, L + 1]."""
    width = rows.shape[1] - n + 1
    value = np.full((len(rows), width), n, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for i in range(n):
            value = _mixed(value ^ (rows[:, i : i + width].astype(np.uint64) + np.uint64(1)))
    return value


def _mixed(value: Ints) -> Ints:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014), a bijection."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _level(rows: Ints, n: int, raw: bool) -> _Level:
    """Counts of n-grams: occurrences, or with `raw` False the different tokens before them."""
    grams, contexts = _hashes(rows, n), _hashes(rows, n - 1)[:, : rows.shape[1] - n + 1]
    if not raw:
        _, first = np.unique(_hashes(rows, n + 1), return_index=True)
        grams, contexts = grams[:, 1:].reshape(-1)[first], contexts[:, 1:].reshape(-1)[first]
    grams, contexts = grams.reshape(-1), contexts.reshape(-1)
    known, first, counts = np.unique(grams, return_index=True, return_counts=True)
    ends, inverse = np.unique(contexts[first], return_inverse=True)
    totals = np.bincount(inverse, weights=counts, minlength=len(ends))
    return _Level(known, counts, ends, totals, np.bincount(inverse, minlength=len(ends)))


def _found(known: Ints, wanted: Ints, *values: Ints) -> list[Floats]:
    """The values that stand beside `wanted` in the sorted `known`; 0 where it is not there."""
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    there = known[place] == wanted
    return [np.where(there, column[place], 0).astype(np.float64) for column in values]
