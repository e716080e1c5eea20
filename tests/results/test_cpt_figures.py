"""Rates and labels of the figures of docs/cpt.md."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from clbench.registry import load_strategy

Script = Callable[[str], ModuleType]
TOKENS = 16 * 128  # of a step


def record(strategy: str, upstream: dict[str, Any] | None, **settings: Any) -> dict[str, Any]:
    """Of a run over 100 and 50 steps of 16 blocks."""
    config = load_strategy(strategy).Config(**{"lr": 0.001, "batch_size": 16, **settings})
    return {
        "spec": {"strategy": strategy, "strategy_settings": config.model_dump()},
        "stream": {"tasks": [{"samples": 1600}, {"samples": 800}]},
        "clock": {"per_sample": 128},
        "upstream": upstream and {"settings": {"lr": 0.001, "batch_size": 16, **upstream}},
    }


def test_a_repeated_cosine_rises_again_at_the_switch(script: Script) -> None:
    rates = script("cpt_rates").rates_of(record("rewarm", {"schedule": "warmup-cosine"}, warmup=0.1))
    trunk = dict(rates.trunk)
    assert not rates.branches and len(rates.trunk) == 150 and rates.last == 149 * TOKENS
    assert trunk[0] == 1.0  # a warm-up of one step of 100
    assert trunk[99 * TOKENS] == pytest.approx(0.1, abs=1e-3)
    assert [trunk[(100 + s) * TOKENS] for s in (0, 1, 4, 5)] == pytest.approx([0.2, 0.4, 1.0, 1.0])


def test_branches_leave_the_constant_rate_and_do_not_advance_the_run(script: Script) -> None:
    upstream = {"schedule": "infinite", "anneal": 0.2}
    rates = script("cpt_rates").rates_of(record("infinite", upstream))
    trunk = dict(rates.trunk)
    assert rates.tasks == len(rates.branches) == 2
    assert trunk[79 * TOKENS] == trunk[80 * TOKENS] == trunk[119 * TOKENS] == pytest.approx(0.55)
    first, second = rates.branches
    assert (first[0][0], first[-1][0]) == (80 * TOKENS, 100 * TOKENS)
    assert (second[0][0], second[-1][0]) == (120 * TOKENS, 130 * TOKENS)
    for branch in rates.branches:
        assert (branch[0][1], branch[-1][1]) == pytest.approx((0.55, 0.1))


def test_another_peak_after_the_upstream_is_told_in_multiples_of_the_runs_own(script: Script) -> None:
    rates = script("cpt_rates").rates_of(record("rewarm", {"schedule": "warmup-cosine"}, lr=0.002))
    assert max(rate for tokens, rate in rates.trunk if tokens < 100 * TOKENS) == pytest.approx(0.5)
    assert max(rate for tokens, rate in rates.trunk if tokens >= 100 * TOKENS) == pytest.approx(1.0)


def test_labels_do_not_cover_each_other(script: Script) -> None:
    from matplotlib.figure import Figure

    figures = script("drawing")
    figure = Figure(figsize=(6.8, 3.6), dpi=160, layout="constrained")
    axes = figure.subplots()
    labels = [(0.5 + 0.004 * i, 0.5, f"label {i}") for i in range(4)]
    axes.plot([0, 1], [0, 1])
    figures.place_labels(figure, axes, labels, [])
    figure.draw_without_rendering()
    boxes = [text.get_window_extent().extents for text in axes.texts]
    assert len(boxes) == 4
    assert all(figures._overlap(a, b) == 0 for i, a in enumerate(boxes) for b in boxes[:i])


def test_overlaps_are_areas(script: Script) -> None:
    overlap = script("drawing")._overlap
    assert overlap((0, 0, 2, 2), (1, 1, 3, 5)) == 1
    assert overlap((0, 0, 1, 1), (1, 0, 2, 1)) == 0
    assert overlap((0, 0, 1, 1), (5, 5, 6, 6)) == 0


def test_what_all_runs_of_a_seed_share_is_no_deviation(script: Script) -> None:
    centred = script("drawing").centred
    found = centred({"a": [1.0, 5.0, 9.0], "b": [2.0, 6.0, 10.5]})
    assert [sum(row) / 3 for row in found.values()] == pytest.approx([5.0, 18.5 / 3])
    assert [b - a for a, b in zip(found["a"], found["b"], strict=True)] == pytest.approx([1.0, 1.0, 1.5])
    assert max(found["a"]) - min(found["a"]) == pytest.approx(0.25)
