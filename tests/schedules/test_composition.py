"""Schedules: layout of pieces, branches, JSON, and what cannot fit."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clbench.errors import UserError
from clbench.schedules import Context, Piece, Schedule, find

WRITTEN = [
    "constant", "linear", "cosine", "warmup-cosine", "rewarm-cosine:later_peak=0.3", "constant-min", "constant-max",
    "one-cosine", "infinite", "infinite:cooldown=inv_sqrt,warmup=3,anneal=0.2", "infinite:cooldown=linear", "wsd",
    "wsd:shape=half_life,rewarm=no", "power:knee=700,warmup=5", "power:warmup=9", "rsqrt:warmup=4",
    "ar-cosine", "annealing:5", "multistep:0.3,0.7", "warm-restarts",
]  # fmt: skip
CONTEXT = Context(run_steps=900, tokens_per_step=64, batch_size=8, peak=0.01)


def sequence(schedule: Schedule, phase: int, steps: int, context: Context = CONTEXT) -> list[float]:
    before = phase * steps
    return [schedule.lr(s, phase, steps, replace(context, run_step=before + s)) for s in range(steps + 3)]


schedules = st.sampled_from(WRITTEN).map(find)
places = {"phase": st.integers(0, 4), "steps": st.integers(20, 200)}


@settings(deadline=None, max_examples=50)
@given(schedule=schedules, share=st.floats(0.05, 0.5), **places)
def test_json_gives_the_same_schedule_again(schedule: Schedule, phase: int, steps: int, share: float) -> None:
    for each in (schedule, schedule.branch(share), schedule.branch(7)):
        again = Schedule.from_json(each.to_json())
        assert again == each and again.to_json() == each.to_json()
        assert sequence(again, phase, steps) == sequence(each, phase, steps)


@settings(deadline=None, max_examples=50)
@given(schedule=schedules, length=st.integers(1, 12), **places)
def test_a_branch_is_its_parent_until_it_anneals(schedule: Schedule, phase: int, steps: int, length: int) -> None:
    start = steps - length
    parent, branch = sequence(schedule, phase, steps), sequence(schedule.branch(length), phase, steps)
    assert branch[: start + 1] == parent[: start + 1]
    asked = replace(CONTEXT, anneal_start=start, anneal_length=length)
    assert sequence(schedule, phase, steps, asked) == branch
    assert all(later <= earlier for earlier, later in zip(branch[start:], branch[start + 1 :], strict=False))
    to = schedule.anneal.values.get("to", parent[start] / 16)
    assert branch[steps] == pytest.approx(min(to, parent[start]), rel=1e-9, abs=1e-15)


@settings(deadline=None, max_examples=50)
@given(schedule=schedules, **places)
def test_beyond_the_end_stands_the_last_value(schedule: Schedule, phase: int, steps: int) -> None:
    found = sequence(schedule, phase, steps)
    assert found[steps] == found[steps + 1] == found[steps + 2]


@settings(deadline=None, max_examples=50)
@given(schedule=schedules, steps=st.integers(1, 60), phase=st.integers(0, 3))
def test_rates_of_a_phase_of_any_length(schedule: Schedule, steps: int, phase: int) -> None:
    assert all(0 <= rate <= 1 for rate in sequence(schedule, phase, steps))


def test_a_phase_shorter_than_its_warm_up_is_all_warm_up() -> None:
    schedule = find("infinite:warmup=20,cooldown_share=30")
    assert [schedule.lr(s, 0, 10) for s in range(10)] == pytest.approx([(s + 1) / 20 for s in range(10)])


def test_without_a_warm_up_the_first_update_has_the_peak_rate() -> None:
    assert find("rewarm-cosine:warmup=0").lr(0, 0, 10) == 1.0


def test_pieces_after_the_open_one_end_with_the_phase() -> None:
    schedule = Schedule(
        "steps",
        (Piece("hold", 3, {"value": 1.0}), Piece("hold", None, {"value": 0.5}), Piece("linear", 4, {"to": 0.0})),
    )
    assert [schedule.lr(s, 0, 10) for s in range(11)] == [1, 1, 1, 0.5, 0.5, 0.5, 1, 0.75, 0.5, 0.25, 0]


def test_what_cannot_fit_its_phase() -> None:
    schedule = find("infinite:warmup=10,cooldown_share=60")
    schedule.check(0, 70)
    schedule.check(1, 5)
    with pytest.raises(UserError, match="its pieces take 70 steps, phase 0 has 69"):
        schedule.check(0, 69)


def test_a_decay_in_place_inside_the_warm_up() -> None:
    schedule = find("wsd:warmup=50,decay=0.9")
    with pytest.raises(UserError, match="last 90 of 100 steps begin inside the warm-up of 50"):
        schedule.check(0, 100)
    schedule.check(1, 100)
    find("wsd:warmup=0.5,decay=0.5").check(0, 3)
    with pytest.raises(UserError, match="inside the warm-up"):
        find("infinite:warmup=30,cooldown_share=0,anneal=0.8").check(0, 100)


def test_a_warm_up_in_steps_that_is_longer_than_its_phase() -> None:
    schedule = find("wsd:warmup=20,decay=0.1")
    schedule.check(0, 20)
    schedule.check(1, 5)
    with pytest.raises(UserError, match="its warm-up of 20 steps is longer than phase 0, which has 19"):
        schedule.check(0, 19)
    with pytest.raises(UserError, match="longer than phase 2, which has 19"):
        find("wsd:warmup=20,rewarm=yes").check(2, 19)
    with pytest.raises(UserError, match="longer than the run, which has 19"):
        find("one-cosine:warmup=20").check(1, 10, Context(run_step=10, run_steps=19))
    find("rewarm-cosine:warmup=1.0").check(0, 1)


def test_an_anneal_inside_the_warm_up() -> None:
    schedule = find("wsd:warmup=30,decay=0")
    assert schedule.branch(70).lr(30, 0, 100) == 1.0
    for refused in (schedule.branch(71), schedule.branch(0.8), schedule.branch(200)):
        with pytest.raises(UserError, match="inside the warm-up"):
            refused.check(0, 100)
        with pytest.raises(UserError, match="inside the warm-up"):
            refused.lr(0, 0, 100)
    with pytest.raises(UserError, match="begins at step 20"):
        find("rsqrt:warmup=30").check(0, 40, Context(anneal_start=20, anneal_length=20))
    find("rsqrt:warmup=30").check(1, 40, Context(run_step=15, anneal_start=20, anneal_length=20))


def test_an_anneal_never_rises() -> None:
    """The parent is below the branch's floor by then."""
    low = find("constant-min:floor=0.01")
    up = replace(low, anneal=Piece("linear", None, {"to": 0.5}))
    assert [up.branch(10).lr(s, 1, 100) for s in (89, 95, 100)] == [0.01] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no valid JSON"),
        ("[]", "must be a list of pieces"),
        ('{"pieces": []}', "'pieces' is not known"),
        ('{"first": []}', "each phase needs pieces"),
        ('{"first": [{"piece": "cosin", "to": 0}]}', "unknown piece 'cosin'; did you mean cosine"),
        ('{"first": [{"piece": "cosine"}]}', "missing a required argument: 'to'"),
        ('{"first": [{"piece": "cosine", "to": 0.1, "from": 1}]}', "unexpected keyword argument 'from'"),
        ('{"first": [{"piece": "hold", "value": "1"}]}', "value='1' is no number"),
        ('{"first": [{"piece": "hold", "value": NaN}]}', "value=nan is no number"),
        ('{"first": [{"piece": "hold", "value": -1}]}', "value=-1 is no number of 0 or more"),
        ('{"first": [{"piece": "hold", "value": 1, "length": 1.5}]}', "length 1.5 is neither"),
        ('{"first": [{"piece": "hold", "value": 1, "length": -2}]}', "length -2 is neither"),
        ('{"first": [{"piece": "hold", "value": 1, "length": true}]}', "length True is neither"),
        ('{"first": [{"piece": "expo", "to": 0}]}', "an exponential needs values above 0"),
        ('{"first": [{"piece": "half_life", "T": 0}]}', "T must be above 0"),
        ('{"first": [{"piece": "hold", "value": 1}, {"piece": "hold", "value": 1}]}', "one at most without a length"),
        ('{"first": [{"piece": "hold", "value": 1}], "anneal": {"piece": "hold", "value": 1}}', "a branch cannot"),
        ('{"first": [{"piece": "hold", "value": 1}], "clock": "task"}', "`clock` is phase or run"),
        ('{"first": [{"piece": "hold", "value": 1}], "declining": [1]}', r"`declining` is \[peak, floor\]"),
        ('{"first": [1]}', "a piece is an object"),
    ],
)  # fmt: skip
def test_mistakes_in_json(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Schedule.from_json(text)
    assert "\n" not in str(caught.value)


def test_a_schedule_written_by_hand() -> None:
    text = json.dumps({"first": [{"piece": "warmup", "length": 2}, {"piece": "cosine", "to": 0.2}]})
    schedule = Schedule.from_json(text)
    assert [schedule.lr(s, 0, 6) for s in (0, 1, 2, 4, 6)] == pytest.approx([0.5, 1, 1, 0.6, 0.2])
