"""What the gap family sees of one and the same curve at different distances between evaluations."""

from __future__ import annotations

import math

import pytest

from clbench.metrics.gap import describe

GEOMETRIC = [1, 2, 3, 4, 5, 7, 10, 14, 20, 28, 40, 56, 80, 112, 160, 200]


@pytest.mark.parametrize(
    ("grid", "depth", "recovery", "area"),
    [
        (list(range(1, 201)), 0.300, 39, 3.79),
        (list(range(5, 201, 5)), 0.290, 40, 3.53),
        (list(range(10, 201, 10)), 0.171, 40, 2.64),
        (list(range(50, 201, 50)), 0.004, 0, 0.23),
        (GEOMETRIC, 0.300, 40, 3.88),
    ],
)
def test_what_the_spacing_of_evaluations_hides(grid: list[int], depth: float, recovery: int, area: float) -> None:
    """A bump of 0.3 nats, log-normal in shape: 16 evaluations at growing distances see more than 40 even ones."""
    bump = [(t, 0.3 * math.exp(-((math.log(t / 3.99) / 0.8675) ** 2) / 2), 0.01) for t in grid]
    gap = describe(bump, 200)
    assert (round(gap["depth"], 3), gap["recovery_steps"], round(gap["area"], 2)) == (depth, recovery, area)
