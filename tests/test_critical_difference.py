"""Comparison over streams: Demsar's published example, scipy, and hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clbench.critical_difference import cliques, critical_difference

# AUC of four variants of C4.5 on 14 data sets: Demsar 2006, table 6. On the 13th the published ranks are those of
# unrounded values; its third value is written here with the digit that they need.
NAMES = ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"]
AUC = np.array(
    [
        [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.000, 0.940, 0.619, 0.972, 0.957],
        [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.000, 0.962, 0.666, 0.981, 0.978],
        [0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.000, 0.965, 0.614, 0.976, 0.946],
        [0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.000, 0.962, 0.669, 0.975, 0.970],
    ]
)
SETS = [f"set{i}" for i in range(14)]


def test_the_published_example() -> None:
    """Average ranks 3.143, 2.000, 2.893, 1.964; Friedman 9.28 (without the correction for ties, which makes it
    larger); Nemenyi's critical difference 1.25: nothing is told apart at 0.05."""
    found = critical_difference(AUC.tolist(), NAMES, SETS)
    assert found.names == ["C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"]
    assert found.average_ranks == pytest.approx([1.964, 2.000, 2.893, 3.143], abs=5e-4)
    uncorrected = 12 * 14 / (4 * 5) * (sum(r * r for r in found.average_ranks) - 4 * 25 / 4)
    assert uncorrected == pytest.approx(9.28, abs=0.01)
    assert found.friedman > uncorrected
    assert found.nemenyi == pytest.approx(1.25, abs=0.005)
    assert found.nemenyi_cliques == [found.names]


def test_friedman_and_wilcoxon_are_scipys() -> None:
    from scipy import stats

    found = critical_difference(AUC.tolist(), NAMES, SETS)
    expected = stats.friedmanchisquare(*AUC)
    assert (found.friedman, found.friedman_p) == pytest.approx((expected.statistic, expected.pvalue))
    by_name = dict(zip(NAMES, AUC, strict=True))
    assert len(found.pairs) == 6
    for pair in found.pairs:
        difference = by_name[pair.a] - by_name[pair.b]
        # scipy's is the normal approximation at 14 values with equal ranks
        assert pair.p == pytest.approx(stats.wilcoxon(difference, zero_method="zsplit").pvalue, abs=0.03)
        assert pair.p_holm >= pair.p


@pytest.mark.parametrize("places", [0, 6])
def test_signed_ranks_are_exact_with_and_without_equal_values(places: int) -> None:
    """As scipy's, which tries all 2^n signs where values are equal or 0."""
    from scipy import stats

    rng = np.random.default_rng(5)
    for count in (2, 3, 5, 6, 7):
        a, b = np.round(rng.normal(size=(2, count)), places)
        found = critical_difference([a.tolist(), b.tolist()], ["a", "b"], SETS[:count]).pairs[0].p
        difference = a - b
        exact = stats.wilcoxon(difference, zero_method="zsplit", method=stats.PermutationMethod())
        assert found == pytest.approx(exact.pvalue)


def test_many_pairs_with_equal_values_stay_quick() -> None:
    """At 13 streams trying all signs takes seconds for each of the 190 pairs."""
    scores = np.round(4 * np.random.default_rng(0).random((20, 13)))
    found = critical_difference(scores.tolist(), [f"s{i}" for i in range(20)], SETS[:13])
    assert len(found.pairs) == 190


def test_the_published_signed_rank_example() -> None:
    """Table 2: C4.5 against C4.5+m, sums of ranks 93 and 12, the smaller below the critical value 21 at 0.05."""
    found = critical_difference(AUC[:2].tolist(), NAMES[:2], SETS)
    assert found.pairs[0].p < 0.05
    assert found.wilcoxon_cliques == []


def test_iman_and_davenports_statistic_by_hand() -> None:
    """Without ties. Ranks 1 2 3, 1 2 3, 1 3 2, 2 1 3: sums 5, 8, 11; chi2 = 12 / (4 * 3 * 4) * 210 - 3 * 4 * 4 = 4.5;
    F = 3 * 4.5 / (4 * 2 - 4.5) = 3.857143."""
    scores = [[3, 3, 3, 2], [2, 2, 1, 3], [1, 1, 2, 1]]
    found = critical_difference(scores, ["a", "b", "c"], ["w", "x", "y", "z"])
    assert found.average_ranks == [1.25, 2.0, 2.75]
    assert (found.friedman, found.iman_davenport) == (pytest.approx(4.5), pytest.approx(3.857143))


@pytest.mark.parametrize(("count", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_nemenyis_critical_values_are_the_published_ones(count: int, q: float) -> None:
    """Demsar 2006, table 5a, alpha 0.05; divided by sqrt(k (k + 1) / 6N)."""
    scores = [[float(i + j % 2) for j in range(4)] for i in range(count)]
    found = critical_difference(scores, [f"s{i}" for i in range(count)], list("abcd"))
    assert found.nemenyi / (count * (count + 1) / 24) ** 0.5 == pytest.approx(q, abs=0.002)


def test_the_same_order_everywhere_is_told_apart_and_equal_scores_are_not() -> None:
    clear = critical_difference([[i + 0.1 * j for j in range(12)] for i in (2, 1)], ["a", "b"], list("abcdefghijkl"))
    assert (clear.average_ranks, clear.nemenyi_cliques, clear.wilcoxon_cliques) == ([1.0, 2.0], [], [])
    assert clear.iman_davenport is None
    equal = critical_difference([[1.0, 2.0]] * 3, ["a", "b", "c"], ["x", "y"])
    assert (equal.friedman, equal.friedman_p) == (0.0, 1.0)
    assert equal.nemenyi_cliques == equal.wilcoxon_cliques == [["a", "b", "c"]]


def test_lower_is_better_turns_the_ranks() -> None:
    scores = [[1.0, 1.0, 2.0], [2.0, 3.0, 1.0]]
    assert critical_difference(scores, ["a", "b"], list("xyz"), lower_is_better=True).names == ["a", "b"]
    assert critical_difference(scores, ["a", "b"], list("xyz")).names == ["b", "a"]


def test_too_little_is_an_error() -> None:
    with pytest.raises(ValueError, match="two strategies or more on two streams"):
        critical_difference([[1.0, 2.0]], ["a"], ["x", "y"])
    with pytest.raises(ValueError, match="two streams"):
        critical_difference([[1.0], [2.0]], ["a", "b"], ["x"])


def test_cliques_of_a_chain_and_of_a_square() -> None:
    chain = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], dtype=bool)
    assert cliques(chain) == [[0, 1], [1, 2]]
    assert cliques(np.eye(3, dtype=bool)) == []
    assert cliques(np.ones((4, 4), dtype=bool)) == [[0, 1, 2, 3]]


@settings(deadline=None)
@given(st.integers(2, 7), st.randoms())
def test_cliques_are_maximal_and_complete(count: int, random: object) -> None:
    draw = random.random  # type: ignore[attr-defined]
    tied = np.eye(count, dtype=bool)
    for i in range(count):
        for j in range(i):
            tied[i, j] = tied[j, i] = draw() < 0.6
    found = [set(clique) for clique in cliques(tied)]
    for clique in found:
        assert all(tied[i, j] for i in clique for j in clique)
        assert not any(all(tied[i, j] for j in clique) for i in set(range(count)) - clique)
    pairs = [{i, j} for i in range(count) for j in range(i) if tied[i, j]]
    assert all(any(pair <= clique for clique in found) for pair in pairs)
