"""Ranks with ties: hand-worked boards, and what must hold for all."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clbench.ranking import Ranking, rank_values
from clbench.statistics import holm, paired_difference


def board(*rows: list[float], lower: bool = False) -> Ranking:
    """Rows of runs with the seeds 0, 1, ... of one order."""
    return rank_values([{("order", seed): value for seed, value in enumerate(row)} for row in rows], lower)


def labels(ranking: Ranking) -> list[str | None]:
    return [placing.label if placing else None for placing in ranking.placings]


GOOD, CLOSE, BAD = [0.90, 0.91, 0.92], [0.89, 0.92, 0.91], [0.50, 0.52, 0.51]
BOARDS = st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=6)


def test_rows_that_do_not_differ_share_ranks() -> None:
    assert labels(board(GOOD, CLOSE, BAD)) == ["1-2", "1-2", "3"]
    assert labels(board(BAD, GOOD, CLOSE)) == ["3", "1-2", "1-2"]
    assert labels(board(GOOD, CLOSE, BAD, lower=True)) == ["2-3", "2-3", "1"]


def test_ranks_need_not_be_transitive() -> None:
    """The second row is noisy: it differs from neither neighbour, and the neighbours from each other."""
    noisy = [0.80, 0.99, 0.86]
    found = board([0.900, 0.901, 0.902], noisy, [0.850, 0.851, 0.853])
    assert found.better(0, 2) and found.tied(0, 1) and found.tied(1, 2)
    assert labels(found) == ["1-2", "1-3", "2-3"]


def test_equal_rows_tie_and_their_difference_is_nothing() -> None:
    found = board(GOOD, GOOD)
    assert labels(found) == ["1-2", "1-2"]
    difference = found.difference(0, 1)
    assert difference is not None and (difference.mean, difference.p) == (0.0, 1.0)


def test_one_run_separates_nothing() -> None:
    found = board([0.9], [0.1])
    assert labels(found) == ["1-2", "1-2"]
    assert found.comparisons == 0 and found.best == 0
    difference = found.difference(0, 1)
    assert difference is not None and difference.p is None and "one pair" in str(difference.reason)


def test_rows_without_a_value_have_no_rank_and_count_nowhere() -> None:
    found = board(GOOD, [], BAD)
    assert labels(found) == ["1", None, "2"]
    assert not found.tied(0, 1)
    assert board([]).best is None


def test_runs_pair_by_order_and_seed_alone() -> None:
    one = {("o", seed): 0.9 + 0.001 * seed for seed in range(3)}
    other = {("p", seed): 0.1 + 0.001 * seed for seed in range(3)}
    found = rank_values([one, other], False)
    assert found.difference(0, 1) is None
    assert labels(found) == ["1-2", "1-2"]
    described = found.describe(0, 1)
    assert described["n"] == 0 and described["mean"] is None and "equal task order" in described["reason"]


def test_p_values_are_those_of_the_pairs_corrected_for_the_board() -> None:
    rows = (GOOD, CLOSE, BAD, [0.7, 0.75, 0.71])
    found = board(*rows)
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    alone = [paired_difference(dict(enumerate(rows[i])), dict(enumerate(rows[j]))) for i, j in pairs]
    corrected = holm([difference.p for difference in alone if difference is not None and difference.p is not None])
    assert found.comparisons == 6
    for (i, j), one, fixed in zip(pairs, alone, corrected, strict=True):
        here, there = found.difference(i, j), found.difference(j, i)
        assert one is not None and here is not None and there is not None
        assert (here.mean, here.low, here.high, here.p) == pytest.approx((one.mean, one.low, one.high, one.p))
        assert here.p_holm == pytest.approx(fixed)
        assert here.low is not None and here.high is not None
        assert (there.mean, there.low, there.high) == (-here.mean, -here.high, -here.low)
        assert there.p_holm == here.p_holm


def test_a_row_is_not_compared_with_itself() -> None:
    with pytest.raises(ValueError, match="itself"):
        board(GOOD, BAD).difference(1, 1)


@settings(deadline=None)
@given(BOARDS, st.randoms())
def test_the_order_of_rows_does_not_matter(rows: list[list[float]], random: Any) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)
    before, after = board(*rows), board(*(rows[i] for i in order))
    assert [before.placings[i] for i in order] == after.placings


@settings(deadline=None)
@given(BOARDS)
def test_ranks_follow_from_what_is_shown(rows: list[list[float]]) -> None:
    found = board(*rows)
    for i, placing in enumerate(found.placings):
        others = [j for j in range(len(rows)) if j != i]
        assert placing is not None and 1 <= placing.first <= placing.last <= len(rows)
        assert placing.first == 1 + sum(found.better(j, i) for j in others)
        assert placing.last == len(rows) - sum(found.better(i, j) for j in others)
        for j in others:
            difference = found.difference(i, j)
            assert difference is not None and difference.p is not None and difference.p_holm is not None
            assert difference.p <= difference.p_holm
            assert found.better(i, j) == (difference.separated and difference.mean > 0)
            assert found.tied(i, j) == (not difference.separated)


@settings(deadline=None)
@given(BOARDS)
def test_lower_is_better_is_the_mirror_image(rows: list[list[float]]) -> None:
    assert board(*rows).placings == board(*([-v for v in row] for row in rows), lower=True).placings


def test_many_rows_are_compared_in_one_go() -> None:
    rows = [[math.sin(i * 7 + s) for s in range(4)] for i in range(60)]
    found = board(*rows)
    assert found.comparisons == 60 * 59 // 2
    difference = found.difference(41, 17)
    alone = paired_difference(dict(enumerate(rows[41])), dict(enumerate(rows[17])))
    assert difference is not None and alone is not None
    assert (difference.mean, difference.p) == pytest.approx((alone.mean, alone.p))
