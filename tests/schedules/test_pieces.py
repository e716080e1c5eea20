"""Pieces: published values, and where each of them starts and ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest

from clbench.schedules import pieces

DECAYS: list[Callable[[float, float, float], float]] = [
    pieces.cosine, pieces.linear, pieces.inv_sqrt, pieces.expo, pieces.one_minus_sqrt,
]  # fmt: skip


@pytest.mark.parametrize("piece", DECAYS)
def test_a_decay_goes_from_one_value_to_the_other_and_never_back(piece: Callable[[float, float, float], float]) -> None:
    rates = [piece(i / 50, 3e-4, 3e-5) for i in range(51)]
    assert (rates[0], rates[-1]) == (pytest.approx(3e-4, rel=1e-12), pytest.approx(3e-5, rel=1e-12))
    assert all(later < earlier for earlier, later in pairwise(rates))


def test_one_minus_sqrt() -> None:
    found = [pieces.one_minus_sqrt(x, 1.0, 0.0) for x in (0, 0.25, 0.5, 0.75, 1)]
    assert found == pytest.approx([1, 0.5, 0.2929, 0.134, 0], abs=5e-5)


def test_inv_sqrt_falls_by_its_formula() -> None:
    """h(x) / h(1) of the way, h(x) = 1 / sqrt(1 + 10 x) - 1; a straight line for alpha near 0."""
    way = (1 / math.sqrt(1 + 10 * 0.25) - 1) / (1 / math.sqrt(11) - 1)
    assert pieces.inv_sqrt(0.25, 2.0, 1.0) == pytest.approx(2 - way)
    assert pieces.inv_sqrt(0.25, 2.0, 1.0, alpha=1e-6) == pytest.approx(1.75)


def test_an_exponential_keeps_the_ratio_from_step_to_step() -> None:
    rates = [pieces.expo(s / 20, 1.65e-4, 3e-5) for s in range(21)]
    assert rates[10] == pytest.approx(7.0356e-5, rel=1e-5)
    assert [b / a for a, b in pairwise(rates)] == pytest.approx([rates[1] / rates[0]] * 20)


def test_half_life_halves() -> None:
    assert [pieces.half_life(s, 1e-3, 200) for s in (0, 200, 400, 800)] == pytest.approx([1e-3, 5e-4, 2.5e-4, 6.25e-5])


@pytest.mark.parametrize(
    ("tokens", "rate"), [(1e6, 0.02), (1e8, 0.02), (1e9, 0.01316), (1e10, 0.004067), (1e11, 0.001257), (1e12, 3.884e-4)]
)
def test_power(tokens: float, rate: float) -> None:
    """128 sequences a step, a = 4, b = -.51, at most .02."""
    assert pieces.power(tokens, 128) == pytest.approx(rate, rel=5e-4)


def test_power_before_the_first_token_is_that_of_one() -> None:
    assert pieces.power(0, 1, a=0.001, max=1.0) == pieces.power(1, 1, a=0.001, max=1.0) == 0.001


@pytest.mark.parametrize(("step", "rate"), [(50, 1e-3), (200, 5.15e-4), (800, 2.725e-4), (1487, 2.0787e-4)])
def test_rsqrt(step: int, rate: float) -> None:
    assert pieces.rsqrt(step, 1e-3, 3e-5, 50) == pytest.approx(rate, rel=1e-4)


def test_autoregressive_peaks() -> None:
    assert [pieces.autoregressive_peak(i, 1, 0) for i in range(5)] == pytest.approx(
        [1, 0.5, 0.25, 0.1464, 0.0955], abs=5e-5
    )
    assert pieces.autoregressive_peak(2, 3e-4, 3e-5) == pytest.approx(3e-5 + 0.25 * 2.7e-4)
