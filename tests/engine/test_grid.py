from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clbench.engine.grid import FEWEST_POINTS, SHARE, plan, standard_grid, subset_size
from clbench.samples import Pool, Samples
from clbench.stream import EvalSet


def test_standard_grid_is_geometric_then_even() -> None:
    assert standard_grid(1000)[:16] == [1, 2, 3, 4, 5, 7, 10, 14, 20, 28, 40, 56, 80, 112, 160, 210]
    assert standard_grid(1000)[-3:] == [910, 960, 1000]
    assert standard_grid(16) == [1, 2, 3, 4, 5, 7, 10, 14, 16]
    assert standard_grid(4000)[15:19] == [224, 320, 448, 640]
    assert standard_grid(1) == [1]
    assert standard_grid(0) == []


@given(st.integers(1, 5000))
def test_standard_grid_rises_to_the_last_step(length: int) -> None:
    steps = standard_grid(length)
    assert steps == sorted(set(steps))
    assert steps[0] == 1
    assert steps[-1] == length


@given(st.integers(1, 20), st.integers(10, 3000), st.integers(8, 128), st.integers(10, 5000))
def test_default_plan_costs_a_tenth_of_training(tasks: int, steps: int, batch: int, largest: int) -> None:
    scored = list(range(1, tasks + 1))
    chosen = plan("default", [steps * batch] * tasks, [steps] * tasks, scored, largest)
    points = chosen.points if chosen.points is not None else len(standard_grid(steps))
    cost = points * chosen.subset * sum(scored)
    assert cost <= SHARE * 3 * steps * batch * tasks or points == FEWEST_POINTS
    assert chosen.subset <= largest
    inside = chosen.steps(steps)
    assert steps in inside
    assert len(inside) <= points + 1


def test_other_settings() -> None:
    assert plan("none", [100], [10], [1], 500).steps(10) == frozenset()
    assert plan("full", [100], [10], [1], 500).steps(10) == frozenset(standard_grid(10))
    assert sorted(plan("4", [100], [10], [1], 500).steps(10)) == [4, 8, 10]
    assert plan("full", [100], [10], [1], 5000).subset == 1000


@pytest.mark.parametrize(
    ("n", "classes", "expected"), [(120, 5, 120), (2000, 10, 300), (2000, 200, 400), (50000, 10, 5000), (390, 200, 390)]
)
def test_subsets_of_sets_with_captions(n: int, classes: int, expected: int) -> None:
    """min(n, max(2 C, 300, n / 10)): the configuration of FoMo-in-Flux."""
    data = Samples(Pool(torch.zeros(n, 1), torch.arange(n) % classes))
    assert subset_size(EvalSet("s", data, None, tuple(range(classes)))) == expected
    assert plan("full", [100], [10], [1], n, subsets=(expected,)).subset == expected
