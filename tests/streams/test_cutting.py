"""Sizes of tasks and the order of classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clbench.errors import UserError
from clbench.streams.class_order import arrival_order
from clbench.streams.cutting import cut, task_sizes


@given(st.integers(2, 400), st.data())
def test_sizes_add_up_and_are_nearly_equal(n_classes: int, data: st.DataObject) -> None:
    base = data.draw(st.integers(0, n_classes - 1))
    tasks = data.draw(st.integers(1, n_classes - base))
    sizes = task_sizes(n_classes, tasks, base)
    rest = sizes[1:] if base else sizes
    assert sum(sizes) == n_classes
    assert len(rest) == tasks
    assert max(rest) - min(rest) <= 1
    assert rest == sorted(rest, reverse=True)
    assert not base or sizes[0] == base


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(0, 2**32 - 1))
def test_cutting_keeps_every_class_once_and_in_order(sizes: list[int], seed: int) -> None:
    order = arrival_order(sum(sizes), seed)
    groups = cut(order, sizes)
    assert [len(group) for group in groups] == sizes
    assert [c for group in groups for c in group] == order
    assert sorted(order) == list(range(sum(sizes)))


@pytest.mark.parametrize(
    ("arguments", "sizes"),
    [((100, 10), [10] * 10), ((100, 5, 50), [50, 10, 10, 10, 10, 10]), ((7, 5), [2, 2, 1, 1, 1])],
)
def test_published_cuts(arguments: tuple[int, ...], sizes: list[int]) -> None:
    assert task_sizes(*arguments) == sizes


def test_explicit_sizes() -> None:
    assert task_sizes(10, 5, 0, [3, 5, 2]) == [3, 5, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 11, 0, None), "more tasks than classes"),
        ((10, 3, 8, None), "2 left after the first 8"),
        ((10, 1, 10, None), "none is left"),
        ((10, 1, 12, None), "none is left"),
        ((10, 5, 0, [3, 3]), "add up to 6"),
        ((10, 5, 0, [0, 10]), "1 or more"),
        ((10, 5, 0, []), "1 or more"),
        ((1, 1, 0, None), "needs 2 or more"),
    ],
)
def test_impossible_cuts_are_told_in_one_line(arguments: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        task_sizes(*arguments)
    assert "\n" not in str(error.value)


def test_seed_0_keeps_the_order_and_1993_is_the_order_of_the_field() -> None:
    assert arrival_order(5, 0) == [0, 1, 2, 3, 4]
    np.random.seed(1993)
    assert arrival_order(100, 1993) == np.random.permutation(100).tolist()
    assert arrival_order(100, 1993)[:5] == [68, 56, 78, 8, 23]
