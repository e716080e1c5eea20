"""Schedules whose peaks decline from task to task: published peaks, and their formulas written out a second time."""

from __future__ import annotations

import math

import pytest

from clbench.errors import UserError
from clbench.schedules import Schedule, find

S = 1420
W = C = 142
LOW = 1e-3
TASKS = (1, 2, 3, 5, 10, 19)


def peaks(name: str, tasks: tuple[int, ...] = TASKS) -> list[float]:
    """The rate at the end of the warm-up."""
    return [find(name).lr(W - 1, task, S) for task in tasks]


def test_peaks_of_cosines() -> None:
    expected = [1, 0.50, 0.25, 0.147, 0.096, 0.068, 0.021, 0.007]
    tasks = (0, 1, 2, 3, 4, 5, 10, 19)
    assert peaks("cosine-recovery", tasks) == pytest.approx(expected, abs=1.2e-3)
    assert peaks("cosine-recovery:recovery=dynamic", tasks) == pytest.approx(expected, abs=1.2e-3)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("continued", [0.333, 0.243, 0.200, 0.156, 0.111, 0.081]),
        ("autoregressive", [0.426, 0.378, 0.359, 0.343, 0.330, 0.324]),
        ("recovered", [0.354, 0.250, 0.204, 0.158, 0.112, 0.081]),
    ],
)
def test_peaks_of_inverse_square_roots(rule: str, expected: list[float]) -> None:
    name = f"rsqrt-recovery:floor=0,recovery={rule}"
    assert peaks(name) == pytest.approx(expected, abs=6e-4)
    assert peaks(name, (0,)) == [1.0]


def test_an_inverse_square_root_ends_its_decay_at_a_third_and_cools_to_nothing() -> None:
    schedule = find("rsqrt-recovery:floor=0,recovery=none")
    assert schedule.lr(S - C, 0, S) == pytest.approx(1 / 3)
    assert schedule.lr(S, 0, S) == 0
    for task in (0, 4):
        assert schedule.lr(S - C // 2, task, S) == pytest.approx(math.sqrt(W / (S - C // 2)) / 2)


@pytest.mark.parametrize("task", [0, 1, 4])
@pytest.mark.parametrize("step", [0, 30, W - 1, W, 700, S - C, S - 20, S])
def test_inverse_square_roots_by_formula(task: int, step: int) -> None:
    def warm(top: float) -> float:
        return top * (step + 1) / W

    def root(share: float, high: float = 1.0) -> float:
        return LOW + (high - LOW) * math.sqrt(share)

    left, between = min(1, (S - step) / C), S - C - W
    tops = {
        "autoregressive": root((task + 1) * W / (task * S + W)),
        "continued": root(W / (task * between + W)),
        "recovered": root(min(1, W / (task * between))) if task else 1.0,
    }
    for rule, top in tops.items():
        falling = root(W / (step + task * between)) if rule == "recovered" and step else root(W / max(1, step), top)
        expected = warm(top) if step < W else falling * left
        assert find(f"rsqrt-recovery:recovery={rule}").lr(step, task, S) == pytest.approx(expected), rule


def test_a_decay_that_is_recovered_goes_on_as_if_there_had_been_no_cool_down() -> None:
    schedule = find("rsqrt-recovery:recovery=recovered,floor=0")
    ends = [schedule.lr(S - C, task, S) for task in range(4)]
    starts = [schedule.lr(W, task, S) for task in range(1, 5)]
    assert ends == pytest.approx(starts)


@pytest.mark.parametrize("task", [1, 3])
def test_the_dynamic_cosine_is_that_of_one_long_run(task: int) -> None:
    schedule, once = find("cosine-recovery:recovery=dynamic"), find("cosine-recovery")
    for step in (W, 600, S):
        assert schedule.lr(step, task, S) == pytest.approx(
            LOW + (1 - LOW) * (1 + math.cos(math.pi * (task * S + step - W) / ((task + 1) * S - W))) / 2
        )
    assert [schedule.lr(s, 0, S) for s in range(0, S, 100)] == [once.lr(s, 0, S) for s in range(0, S, 100)]


def test_the_autoregressive_cosine_is_that_of_tic_lm() -> None:
    ours, theirs = find("cosine-recovery"), find("ar-cosine:warmup=0.1,floor=0.001")
    for task in range(4):
        for step in range(0, S + 1, 71):
            assert ours.lr(step, task, S) == pytest.approx(theirs.lr(step, task, S))


@pytest.mark.parametrize("name", ["cosine-recovery:recovery=dynamic", "rsqrt-recovery", "rsqrt-recovery:recovery=none"])
def test_json_keeps_the_rule(name: str) -> None:
    schedule = find(name)
    again = Schedule.from_json(schedule.to_json())
    assert [again.lr(s, t, 90) for t in range(3) for s in range(91)] == [
        schedule.lr(s, t, 90) for t in range(3) for s in range(91)
    ]
    schedule.check(2, 90)


def test_a_rule_of_another_decay_is_refused() -> None:
    with pytest.raises(UserError, match="recovery needs"):
        Schedule.from_json(find("cosine-recovery").to_json().replace("autoregressive", "continued"))
    with pytest.raises(UserError, match="none of autoregressive, dynamic"):
        find("cosine-recovery:recovery=continued")
