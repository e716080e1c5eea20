"""Limits, validation and blur: fixed choices of rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clbench.errors import UserError
from clbench.streams.blurry import blurred, blurry_classes
from clbench.streams.choosing import hold_out, limited
from clbench.streams.row_keys import mixed

NAMES = ["a", "b", "c", "d", "e", "f"]


def rows_of(counts: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, labels, keys) with these numbers of rows a class."""
    y = np.repeat(np.arange(len(counts)), counts)
    return np.arange(len(y)), y, mixed(np.arange(len(y), dtype=np.uint64))


COUNTS = st.lists(st.integers(1, 30), min_size=1, max_size=6)


@given(COUNTS, st.integers(1, 40))
def test_limit_per_class(counts: list[int], limit: int) -> None:
    rows, y, keys = rows_of(counts)
    kept = limited(rows, y, keys, limit, None)
    assert np.bincount(y[kept]).tolist() == [min(n, limit) for n in counts]
    assert set(limited(rows, y, keys, limit, None)) <= set(limited(rows, y, keys, limit + 1, None))


@given(COUNTS, st.integers(1, 80))
def test_limit_per_task_takes_evenly_from_the_classes(counts: list[int], limit: int) -> None:
    rows, y, keys = rows_of(counts)
    kept = limited(rows, y, keys, None, limit)
    assert len(kept) == min(limit, sum(counts))
    taken = np.bincount(y[kept], minlength=len(counts))
    for n, k in zip(counts, taken, strict=True):
        assert k == n or k >= taken.max() - 1
    assert set(kept) <= set(limited(rows, y, keys, None, limit + 1))


@given(st.lists(st.integers(3, 40), min_size=1, max_size=6), st.floats(0.01, 0.6))
def test_validation_is_a_share_of_every_class(counts: list[int], share: float) -> None:
    rows, y, keys = rows_of(counts)
    train, validation = hold_out(rows, y, keys, share, NAMES)
    assert sorted([*train, *validation]) == rows.tolist()
    for n, k in zip(counts, np.bincount(y[validation], minlength=len(counts)), strict=True):
        assert k >= 1
        assert k == 1 or abs(k - share * n) <= 0.5


def test_no_share_holds_nothing_out_and_too_much_is_an_error() -> None:
    rows, y, keys = rows_of([4, 1])
    assert len(hold_out(rows, y, keys, 0, NAMES)[1]) == 0
    with pytest.raises(UserError, match="class 'b' has 1 training rows"):
        hold_out(rows, y, keys, 0.1, NAMES)


@settings(max_examples=50)
@given(st.lists(st.integers(5, 40), min_size=2, max_size=6), st.floats(0, 1), st.floats(0, 0.5), st.integers(0, 9))
def test_blur_moves_a_share_of_the_blurry_classes_and_nothing_else(
    counts: list[int], disjoint: float, share: float, seed: int
) -> None:
    _, y, keys = rows_of(counts)
    tasks = [np.flatnonzero(y == c) for c in range(len(counts))]
    blurry = blurry_classes(len(counts), disjoint, seed)
    assert abs(len(blurry) - (1 - disjoint) * len(counts)) <= 0.5 + 1e-9
    mixture = blurred(tasks, y, keys, blurry, share, seed)
    assert sorted(np.concatenate(mixture)) == list(range(len(y)))
    for label, n in enumerate(counts):
        away = n - (y[mixture[label]] == label).sum()
        assert away <= (int(share * n + 0.5) if label in blurry else 0)


def test_blur_reaches_all_tasks_evenly() -> None:
    _, y, keys = rows_of([4000, 4000])
    mixture = blurred([np.flatnonzero(y == c) for c in (0, 1)], y, keys, [0, 1], 0.5, 0)
    assert abs((y[mixture[1]] == 0).sum() - 1000) < 150


def test_a_task_that_blur_empties_is_an_error() -> None:
    _, y, keys = rows_of([1] * 6)
    with pytest.raises(UserError, match="is left without samples"):
        blurred([np.array([c]) for c in range(6)], y, keys, list(range(6)), 1.0, 0)
