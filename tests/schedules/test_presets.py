"""Presets: published rates in absolute units, phase 0 and later phases, branches."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clbench.errors import UserError
from clbench.schedules import Context, Schedule, find, presets

PEAK = {"peak": 3e-4, "floor": 3e-5}


def rates(schedule: Schedule, phase: int, steps: int, at: tuple[int, ...]) -> list[float]:
    return [schedule.lr(step, phase, steps) for step in at]


def test_rewarm_cosine_vector() -> None:
    schedule = presets.rewarm_cosine(**PEAK, warmup=10)
    expected = [3e-5, 3e-4, 3e-4, 1.65e-4, 3e-5]
    assert rates(schedule, 0, 100, (0, 9, 10, 55, 100)) == pytest.approx(expected, rel=1e-12)
    assert rates(schedule, 3, 100, (0, 9, 10, 55, 100)) == pytest.approx(expected, rel=1e-12)
    assert schedule.lr(32.5, 0, 100) == pytest.approx(2.60459e-4, rel=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cooldown", "expected"),
    [
        ("cosine", [2.8023e-4, 2.325e-4, 1.8477e-4]),
        ("inv_sqrt", [2.1004e-4, 1.8563e-4, 1.7302e-4]),
        ("linear", [2.6625e-4, 2.325e-4, 1.9875e-4]),
    ],
)
def test_infinite_vector(cooldown: str, expected: list[float]) -> None:
    schedule = presets.infinite(cooldown, **PEAK, constant=1.65e-4, warmup=10, cooldown_share=60)
    assert rates(schedule, 0, 200, (25, 40, 55)) == pytest.approx(expected, rel=3e-5)
    assert rates(schedule, 0, 200, (9, 10)) == pytest.approx([3e-4, 3e-4])
    assert rates(schedule, 0, 200, (70, 100, 180, 200)) == pytest.approx([1.65e-4] * 4)
    assert rates(schedule, 1, 200, (0, 1, 100)) == pytest.approx([1.65e-4] * 3)
    branch = schedule.branch(20)
    assert rates(branch, 0, 200, (180, 190, 200)) == pytest.approx([1.65e-4, 7.0356e-5, 3e-5], rel=1e-5)
    assert rates(branch, 1, 200, (0, 180, 190, 200)) == pytest.approx([1.65e-4, 1.65e-4, 7.0356e-5, 3e-5], rel=1e-5)


def test_infinite_defaults_are_the_published_ratios() -> None:
    assert 3e-4 * find("infinite").lr(90, 0, 100) == pytest.approx(1.65e-4)
    in_place = find("infinite:anneal=0.2,warmup=.05,cooldown_share=0.1,constant=0.1,floor=0.01")
    assert rates(in_place, 0, 100, (4, 5, 15, 80, 90, 100)) == pytest.approx([1, 1, 0.1, 0.1, 0.1 * 0.1**0.5, 0.01])
    assert rates(in_place, 1, 100, (0, 80, 100)) == pytest.approx([0.1, 0.1, 0.01])


def test_constants_of_later_phases() -> None:
    assert rates(find("constant-min"), 1, 50, (0, 25, 50)) == [0.1] * 3
    assert rates(find("constant-max"), 1, 50, (0, 25, 50)) == [1.0] * 3
    both = find("constant-min"), find("constant-max"), find("warmup-cosine")
    assert len({tuple(schedule.lr(s, 0, 150) for s in range(151)) for schedule in both}) == 1


def test_later_peaks_of_rewarming() -> None:
    low = find("rewarm-cosine:later_peak=0.5")
    assert max(low.lr(s, 0, 100) for s in range(100)) == 1.0
    assert max(low.lr(s, 1, 100) for s in range(100)) == 0.5
    assert low.lr(100, 1, 100) == pytest.approx(0.1)
    with pytest.raises(UserError, match=r"floor=0\.1 does not lie between 0 and the peak, 0\.05"):
        find("rewarm-cosine:later_peak=0.05")


@pytest.mark.parametrize(
    ("shape", "middle", "end"), [("one_minus_sqrt", 0.1 + 0.9 * (1 - 0.5**0.5), 0.1), ("linear", 0.55, 0.1),
                                 ("half_life", 0.25, 0.0625)]
)  # fmt: skip
def test_wsd_shapes(shape: str, middle: float, end: float) -> None:
    schedule = find(f"wsd:shape={shape},decay=40,warmup=0,rewarm=no")
    assert rates(schedule, 0, 100, (0, 60, 80, 100)) == pytest.approx([1, 1, middle, end])
    assert rates(find(f"wsd:shape={shape},decay=0,warmup=0").branch(40), 0, 100, (60, 80, 100)) == pytest.approx(
        [1, middle, end]
    )


def test_wsd_warms_up_once_or_in_every_phase() -> None:
    once, anew = find("wsd"), find("wsd:rewarm=yes")
    assert rates(once, 0, 500, (0, 4, 450, 500)) == rates(anew, 0, 500, (0, 4, 450, 500))
    assert [once.lr(0, 0, 500), once.lr(0, 1, 500), anew.lr(0, 1, 500)] == pytest.approx([0.2, 1.0, 0.2])
    assert rates(once, 2, 500, (450, 500)) == pytest.approx([1.0, 0.1])


def test_one_cosine_goes_through_all_phases() -> None:
    """Two phases of 40 and 60 steps are one of 100."""
    schedule, whole = find("one-cosine:warmup=10"), find("warmup-cosine:warmup=10")
    place = Context(run_steps=100)
    found = [schedule.lr(s, 0, 40, replace(place, run_step=s)) for s in range(40)]
    found += [schedule.lr(s, 1, 60, replace(place, run_step=40 + s)) for s in range(61)]
    assert found == [whole.lr(s, 0, 100) for s in range(101)]
    with pytest.raises(UserError, match="number of steps is not known"):
        schedule.lr(0, 0, 40, Context())


def test_power_counts_the_tokens_of_the_run() -> None:
    """1e9 tokens a step, 128 sequences: the law at n = 1e9, 2e9, ..., whatever the phase; its maximum is the peak."""
    schedule = find("power:warmup=0")
    place = Context(tokens_per_step=10**9, batch_size=128, peak=0.02)
    found = [0.02 * schedule.lr(s, 1, 200, replace(place, run_step=s)) for s in (1, 10, 100)]
    assert found == pytest.approx([0.01316, 0.004067, 0.001257], rel=5e-4)
    other_peak = replace(place, run_step=10, peak=0.005)
    assert 0.005 * schedule.lr(3, 2, 9, other_peak) == pytest.approx(0.004067, rel=5e-4)
    assert schedule.lr(3, 2, 9, replace(place, run_step=10, peak=0.001)) == 1.0


def test_the_warm_up_of_power_ends_where_the_law_stands() -> None:
    schedule = find("power:warmup=4")
    place = Context(tokens_per_step=10**9, batch_size=128, peak=0.02)
    top = schedule.lr(4, 0, 9, replace(place, run_step=4))
    assert top < 0.5
    found = [schedule.lr(s, 0, 9, replace(place, run_step=s)) for s in range(4)]
    assert found == pytest.approx([top / 4, top / 2, 3 * top / 4, top])


def test_power_with_a_knee() -> None:
    schedule = find("power:knee=1000,b=-0.5,warmup=0")
    found = [schedule.lr(s, 0, 100, Context(run_step=s, tokens_per_step=100)) for s in (0, 5, 10, 40, 90)]
    assert found == pytest.approx([1, 1, 1, 0.5, 1 / 3])


def test_rsqrt_vector_over_two_phases() -> None:
    schedule = presets.rsqrt(1e-3, 3e-5, 50)
    for phase, step, run_step, rate in ((0, 49, 49, 1e-3), (0, 50, 50, 1e-3), (0, 200, 200, 5.15e-4),
                                        (1, 300, 800, 2.725e-4), (2, 0, 1487, 2.0787e-4)):  # fmt: skip
        assert schedule.lr(step, phase, 500, Context(run_step=run_step)) == pytest.approx(rate, rel=1e-4)


def test_ar_cosine_declines() -> None:
    schedule = presets.ar_cosine(1.0, 0.0)
    assert [schedule.lr(0, i, 10) for i in range(5)] == pytest.approx([1, 0.5, 0.25, 0.1464, 0.0955], abs=5e-5)
    floored = find("ar-cosine:warmup=2")
    assert [floored.lr(s, 1, 10) for s in (0, 1, 2, 10)] == pytest.approx([0.275, 0.55, 0.55, 0.1])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: presets.infinite(constant=2.0), "constant=2 does not lie between floor=0.1 and 1"),
        (lambda: presets.infinite(floor=0.6), "constant=0.55 does not lie between floor=0.6"),
        (lambda: presets.infinite(floor=0.0), "an exponential anneal needs a floor above 0"),
        (lambda: presets.rewarm_cosine(peak=1e-4, floor=3e-4), "floor=0.0003 does not lie between 0 and the peak"),
        (lambda: presets.wsd(decay=0.6, warmup=0.5), "sum to more than 1"),
        (lambda: presets.wsd(shape="expo"), "shape='expo'"),
        (lambda: presets.power(b=0.5), "makes the rate rise"),
        (lambda: presets.multistep([1.5]), "shares of the phase"),
    ],
)
def test_parameters_that_make_no_schedule(build: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()  # type: ignore[operator]
