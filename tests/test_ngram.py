"""The n-gram model against counts by hand and against plain dictionaries."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from clbench.errors import UserError
from clbench.ngram import NGram


def test_bigrams_counted_by_hand() -> None:
    """0 1 0 1 0 2: after 0 stands 1 twice and 2 once; after 1 always 0."""
    model = NGram(3, order=2, smoothing="add-k", k=1.0).fit(np.array([[0, 1, 0, 1, 0, 2]]))
    np.testing.assert_allclose(model.probabilities(np.array([[0, 1, 0], [2, 2, 0]]))[0], [4 / 9, 3 / 6, 3 / 5])
    np.testing.assert_allclose(model.probabilities(np.array([[2, 2, 0]]))[0], [2 / 9, 1 / 3, 1 / 3])
    wanted = math.exp(-(math.log(3 / 6) + math.log(3 / 5)) / 2)
    assert model.perplexity(np.array([[0, 1, 0]]))[0] == pytest.approx(wanted)


def test_kneser_ney_counted_by_hand() -> None:
    """The same row. Bigrams 01 x2, 10 x2, 02 x1: three kinds; before 0 stands one token, before 1 one, before 2 one."""
    model = NGram(3, order=2, discount=0.5).fit(np.array([[0, 1, 0, 1, 0, 2]]))
    unigram = (1 - 0.5) / 3 + 0.5 * 3 / 3 / 3
    after_zero = (2 - 0.5) / 3 + 0.5 * 2 / 3 * unigram
    after_one = (2 - 0.5) / 2 + 0.5 * 1 / 2 * unigram
    np.testing.assert_allclose(model.probabilities(np.array([[0, 1, 0]]))[0], [unigram, after_zero, after_one])
    np.testing.assert_allclose(model.probabilities(np.array([[2, 1]]))[0, 1], unigram)


def plain_kneser_ney(rows: list[list[int]], row: list[int], at: int, order: int, vocabulary: int, d: float) -> float:
    """The textbook's recursion over dictionaries."""
    grams = [Counter(tuple(r[i : i + n]) for r in rows for i in range(len(r) - n + 1)) for n in range(order + 2)]

    def probability(context: tuple[int, ...], token: int) -> float:
        n = len(context) + 1
        if n == order:
            counts = {g: c for g, c in grams[n].items() if g[:-1] == context}
        else:
            kinds = Counter(g[1:] for g in grams[n + 1])
            counts = {g: c for g, c in kinds.items() if g[:-1] == context}
        lower = probability(context[1:], token) if context else 1 / vocabulary
        total = sum(counts.values())
        if not total:
            return lower
        return max(counts.get((*context, token), 0) - d, 0) / total + d * len(counts) / total * lower

    return probability(tuple(row[max(0, at - order + 1) : at]), row[at])


def test_longer_orders_against_the_recursion() -> None:
    draw = np.random.default_rng(0)
    rows = draw.integers(0, 4, (6, 12))
    model = NGram(5, order=4).fit(rows)
    asked = draw.integers(0, 5, (4, 9))
    found = model.probabilities(asked)
    for i, row in enumerate(asked.tolist()):
        for at in range(len(row)):
            wanted = plain_kneser_ney(rows.tolist(), row, at, 4, 5, 0.75)
            assert found[i, at] == pytest.approx(wanted, rel=1e-12), (row, at)


@pytest.mark.parametrize("smoothing", ["kneser-ney", "add-k"])
def test_probabilities_sum_to_one(smoothing: str) -> None:
    model = NGram(6, order=3, smoothing=smoothing).fit(np.random.default_rng(1).integers(0, 5, (8, 20)))  # type: ignore[arg-type]
    for context in ([0, 1], [5, 5], [4, 0]):
        rows = np.array([[*context, token] for token in range(6)])
        assert model.probabilities(rows)[:, 2].sum() == pytest.approx(1)


def test_what_is_like_the_reference_surprises_less() -> None:
    draw = np.random.default_rng(2)
    pattern = np.resize(np.array([3, 1, 4, 1, 5]), (40, 33))
    model = NGram(257, order=5).fit(pattern[:20])
    like, other = model.perplexity(pattern[20:]), model.perplexity(draw.integers(0, 256, (20, 33)))
    assert like.max() < 2 < 100 < other.min()


def test_a_row_shorter_than_the_order() -> None:
    model = NGram(4, order=5).fit(np.array([[0, 1, 2]]))
    assert model.perplexity(np.array([[0, 1]]))[0] < model.perplexity(np.array([[0, 3]]))[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NGram(4).fit(np.zeros((0, 3), np.int64)), "empty"),
        (lambda: NGram(4).fit(np.array([[7]])), "met token 7"),
        (lambda: NGram(4).fit(np.zeros((2, 3))), "rows of tokens"),
        (lambda: NGram(4, order=0), "1 or more"),
        (lambda: NGram(4, discount=1.0), "between 0 and 1"),
        (lambda: NGram(4).fit(np.array([[1, 2]])).perplexity(np.array([[1]])), "no target"),
    ],
)
def test_what_is_refused(make: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()  # type: ignore[operator]
