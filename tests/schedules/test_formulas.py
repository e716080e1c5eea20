"""Presets against their published formulas, written out a second time, at random places of random phases."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clbench.schedules import Context, presets

steps = st.integers(30, 600)
places = st.floats(0, 1.2)
phases = st.integers(0, 3)
lengths = st.sampled_from([0, 1, 7, 0.001, 0.01, 0.0149, 0.05])


def whole(length: float, n: int) -> int:
    """Steps of a length: those it says, or a share of n, rounded half up and at least one."""
    if isinstance(length, int):
        return length
    return max(1, int(length * n + 0.5)) if length else 0


def half(x: float, high: float, low: float) -> float:
    return low + (high - low) * (1 + math.cos(math.pi * x)) / 2


def warm(s: int, n: int, peak: float, floor: float, length: float) -> float:
    w = whole(length, n)
    return peak * (s + 1) / w if s < w else half((s - w) / (n - w), peak, floor)


@given(steps, places, phases, st.floats(1e-5, 1), st.sampled_from([0, 0.1, 0.5, 1]), lengths)
def test_cosines(n: int, place: float, phase: int, peak: float, low: float, length: float) -> None:
    s, floor = int(place * n), low * peak
    inside = min(s, n)
    expected = warm(inside, n, peak, floor, length)
    assert presets.rewarm_cosine(peak, floor, length).lr(s, phase, n) == pytest.approx(expected)
    assert presets.constant_min(peak, floor, length).lr(s, phase, n) == pytest.approx(expected if phase == 0 else floor)
    assert presets.constant_max(peak, floor, length).lr(s, phase, n) == pytest.approx(expected if phase == 0 else peak)
    top = floor + (peak - floor) * math.sin(math.pi / 2 / (phase + 1)) ** 2
    assert presets.ar_cosine(peak, floor, length).lr(s, phase, n) == pytest.approx(warm(inside, n, top, floor, length))
    where = Context(run_step=2 * n + s, run_steps=3 * n)
    expected = warm(2 * n + inside, 3 * n, peak, floor, length)
    assert presets.one_cosine(peak, floor, length).lr(s, phase, n, where) == pytest.approx(expected)


@given(
    steps, places, phases, st.sampled_from(["cosine", "linear", "inv_sqrt"]), lengths, st.sampled_from([5, 0.1, 0.2])
)
def test_infinite(n: int, place: float, phase: int, shape: str, length: float, anneal: float) -> None:
    peak, constant, floor = 3e-4, 1.65e-4, 3e-5

    def trunk(s: int) -> float:
        w, c = whole(length, n), whole(0.6, n)
        if phase > 0 or s >= w + c:
            return constant
        if s < w:
            return peak * (s + 1) / w
        x = (s - w) / c
        if shape == "cosine":
            return half(x, peak, constant)
        fallen = x if shape == "linear" else (1 / math.sqrt(1 + 10 * x) - 1) / (1 / math.sqrt(11) - 1)
        return peak + (constant - peak) * fallen

    s, start = int(place * n), n - whole(anneal, n)
    schedule = presets.infinite(shape, peak, constant, floor, length, 0.6)
    branch = schedule.branch(anneal)
    assert schedule.lr(s, phase, n) == pytest.approx(trunk(min(s, n)))
    if s <= start:
        assert branch.lr(s, phase, n) == schedule.lr(s, phase, n)
    else:
        share = (min(s, n) - start) / (n - start)
        assert branch.lr(s, phase, n) == pytest.approx(trunk(start) * (floor / trunk(start)) ** share)


@given(steps, places, phases, st.sampled_from(["linear", "one_minus_sqrt", "half_life"]), lengths, st.booleans())
def test_wsd(n: int, place: float, phase: int, shape: str, length: float, rewarm: bool) -> None:
    s, w, d = min(int(place * n), n), whole(length, n), whole(0.1, n)
    assume(w + d < n)
    x = (s - (n - d)) / d
    falls = {
        "linear": 1 - 0.9 * x,
        "one_minus_sqrt": 0.1 + 0.9 * (1 - math.sqrt(max(x, 0))),
        "half_life": 0.5 ** (4 * x),
    }
    expected = falls[shape] if x > 0 else 1.0
    if s < w and (phase == 0 or rewarm):
        expected = (s + 1) / w
    assert presets.wsd(0.1, shape, warmup=length, rewarm=rewarm).lr(s, phase, n) == pytest.approx(expected)


@given(steps, st.integers(0, 5000), st.sampled_from([1, 10, 50]), st.integers(1, 10**7))
def test_laws_of_the_whole_run(n: int, before: int, w: int, tokens: int) -> None:
    s = n // 2
    where = Context(run_step=before + s, tokens_per_step=tokens, batch_size=128, peak=0.02)
    at = before + s
    expected = (at + 1) / w if at < w else 0.03 + 0.97 * math.sqrt(w / at)
    assert presets.rsqrt(1.0, 0.03, w).lr(s, 1, n, where) == pytest.approx(expected)
    expected = min(0.02, 128 * 4 * max(1, at * tokens) ** -0.51) / 0.02
    assert presets.power(warmup=0).lr(s, 0, n, where) == pytest.approx(expected)
