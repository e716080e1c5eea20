"""Mixture policies: published rules on small numbers, and what all of them keep."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clbench.errors import UserError
from clbench.mixtures import (
    Curriculum,
    Feedback,
    FixedReplay,
    NewOnly,
    Policy,
    PretrainLike,
    Reading,
    SkillIt,
    TiC,
    TopicPerplexity,
    guarded,
)
from clbench.mixtures.selection import taylor_softmax

ALL: dict[str, Callable[[], Policy]] = {
    "new": NewOnly,
    "curriculum": Curriculum,
    "replay": lambda: FixedReplay(0.3),
    "tic": TiC,
    "pretrain": lambda: PretrainLike({"web": 8, "b": 1, "c": 1}, "web"),
    "topics": TopicPerplexity,
    "skills": SkillIt,
    "feedback": lambda: Feedback(0.5),
}


def begun(policy: Policy, *domains: str) -> Policy:
    policy.reset(domains, domains[0])
    return policy


def values(policy: Policy, step: int = 0) -> list[float]:
    return [round(share, 4) for share in policy.weights(step).values()]


def test_skill_it() -> None:
    policy = begun(SkillIt(eta=0.2, adjacency=[[1, 0], [1, 1]]), "a", "b")
    policy.observe(100, {"a": 2.0, "b": 3.0})
    assert values(policy) == [0.3543, 0.6457]


def test_skill_it_before_the_first_observation() -> None:
    policy = begun(SkillIt(eta=0.5, adjacency=[[1, 0], [1, 1]]), "a", "b")
    assert policy.weights(0)["b"] == pytest.approx(math.e**0.5 / (1 + math.e**0.5))


def test_skill_it_sums_over_a_window_and_does_not_compound() -> None:
    policy = begun(SkillIt(eta=0.1, window=2), "a", "b")
    for loss in (50.0, 2.0, 1.0):
        policy.observe(1, {"a": loss, "b": 1.0})
    assert policy.weights(0)["a"] == pytest.approx(1 / (1 + math.exp(0.1 * (2.0 - 3.0))))


def test_skill_it_with_targets_that_are_no_domains() -> None:
    policy = begun(SkillIt(eta=1.0, adjacency=[[1, 0, 0], [0, 1, 1]], targets=["x", "y", "z"]), "a", "b")
    policy.observe(1, {"x": 1.0, "y": 0.5, "z": 0.25})
    assert policy.weights(0)["a"] == pytest.approx(1 / (1 + math.exp(0.75 - 1.0)))


def test_skill_it_relative_to_the_first_losses() -> None:
    policy = begun(SkillIt(eta=1.0, window=1, relative=True), "a", "b")
    policy.observe(1, {"a": 8.0, "b": 2.0})
    assert values(policy) == [0.5, 0.5]
    policy.observe(2, {"a": 4.0, "b": 2.0})
    assert policy.weights(0)["a"] == pytest.approx(1 / (1 + math.exp(0.5)))


def test_topics_by_the_change_of_perplexity() -> None:
    policy = begun(TopicPerplexity(alpha=0.3, start={"a": 0.5, "b": 0.3, "c": 0.2}), "a", "b", "c")
    policy.observe(0, {"a": math.log(5.0), "b": math.log(5.0), "c": math.log(5.0)})
    assert values(policy) == [0.5, 0.3, 0.2]
    policy.observe(10, {"a": math.log(5.2), "b": math.log(4.9), "c": math.log(5.0)})
    assert values(policy) == [0.5882, 0.2308, 0.1810]


def test_topics_compound_within_clip_and_floor() -> None:
    policy = begun(TopicPerplexity(alpha=5.0), "a", "b")
    for step, loss in enumerate((1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)):
        policy.observe(step, {"a": loss, "b": 1.0})
        if step == 1:
            assert policy.weights(0)["a"] == pytest.approx(2 / 3)  # a factor of 6, clipped to 2; the other stays
    assert policy.weights(0)["b"] == pytest.approx(1 / 65)
    for step, loss in enumerate((8.0, 9.0)):
        policy.observe(step, {"a": loss, "b": 1.0})
    assert policy.weights(0)["b"] == pytest.approx(0.01)


def test_topics_that_do_not_change_keep_their_shares() -> None:
    policy = begun(TopicPerplexity(), "a", "b")
    for _ in range(2):
        policy.observe(0, {"a": 1.0, "b": 2.0})
    assert values(policy) == [0.5, 0.5]


LOSSES = st.lists(st.lists(st.floats(0.5, 6), min_size=3, max_size=3), max_size=7)


@given(LOSSES, st.lists(st.floats(0, 1), min_size=9, max_size=9), st.integers(1, 4), st.booleans())
def test_skill_it_in_matrices(losses: list[list[float]], helps: list[float], window: int, relative: bool) -> None:
    adjacency = np.reshape(helps, (3, 3))
    policy = begun(SkillIt(0.5, window, adjacency.tolist(), relative=relative), "a", "b", "c")
    for row in losses:
        policy.observe(0, dict(zip("abc", row, strict=True)))
    seen = np.array(losses) / losses[0] if relative and losses else np.array(losses)
    powers = np.exp(0.5 * (adjacency @ seen[-window:].sum(0) if losses else adjacency.sum(1)))
    assert list(policy.weights(0).values()) == pytest.approx(list(powers / powers.sum()))


@given(LOSSES, st.lists(st.floats(0.1, 1), min_size=3, max_size=3))
def test_topics_in_arrays(losses: list[list[float]], start: list[float]) -> None:
    policy = begun(TopicPerplexity(0.9, dict(zip("abc", start, strict=True)), {"b": 1.4}, floor=0), "a", "b", "c")
    expected = np.array(start) / sum(start)
    for number, row in enumerate(losses):
        policy.observe(0, dict(zip("abc", row, strict=True)))
        change = np.exp(row) - np.exp(losses[number - 1]) if number else np.zeros(3)
        if change.any():
            factors = 1 + 0.9 * change / np.abs(change).max() * np.array([1, 1.4, 1])
            expected = expected * factors.clip(0.5, 2)
            expected /= expected.sum()
    assert list(policy.weights(0).values()) == pytest.approx(list(expected))


def test_feedback_raises_replay_while_earlier_domains_are_worse_than_allowed() -> None:
    policy = begun(Feedback(gain=0.5, target=0.1, start=0.05, highest=0.4), "new", "a", "b")
    policy.observe(0, {"a": 2.0, "b": 2.0, "new": 9.0})
    assert values(policy) == [0.99, 0.005, 0.005]  # 0.05 - 0.5 * 0.1, held at the lowest
    policy.observe(1, {"a": 2.4, "b": 2.2})
    assert policy.weights(0)["new"] == pytest.approx(1 - (0.01 + 0.5 * 0.2))
    policy.observe(2, {"a": 9.0, "b": 9.0})
    assert policy.weights(0)["new"] == pytest.approx(0.6)


def test_shares_that_are_fixed() -> None:
    assert values(begun(NewOnly(), "new", "a")) == [1, 0]
    assert values(begun(FixedReplay(0.2), "new", "a", "b")) == [0.8, 0.1, 0.1]
    assert values(begun(FixedReplay(0.2, sizes={"a": 30, "b": 10, "new": 5}), "new", "a", "b")) == [0.8, 0.15, 0.05]
    assert values(begun(FixedReplay(0.2), "new")) == [1]
    assert values(begun(TiC(), "new", "a", "b", "c")) == [0.25, 0.25, 0.25, 0.25]
    assert values(begun(TiC(0.5), "new", "a", "b")) == [0.5, 0.25, 0.25]
    assert values(begun(PretrainLike({"web": 0.82, "b": 0.1, "c": 0.08}, "web"), "new", "b", "c")) == [0.82, 0.1, 0.08]


def test_a_slice_that_is_substituted_is_read_no_more() -> None:
    assert values(begun(PretrainLike({"web": 6, "b": 2}, "web"), "new", "web", "b", "other")) == [0.75, 0, 0.25, 0]


def test_additive_phases_are_longer() -> None:
    assert begun(FixedReplay(0.2, budget="additive"), "new", "a").growth() == pytest.approx(1.25)
    assert begun(FixedReplay(0.2), "new", "a").growth() == 1
    assert begun(FixedReplay(0.2, budget="additive"), "new").growth() == 1
    assert begun(TiC(budget="additive"), "new", "a", "b", "c").growth() == pytest.approx(4)


def test_how_domains_are_read() -> None:
    replay = begun(FixedReplay(0.2, order="in_order"), "new", "a")
    assert replay.reading("a") == Reading("in_order") and replay.reading("new") == Reading()
    assert begun(Curriculum(), "new", "a").reading("new").order == "in_order"


@given(
    st.sampled_from(sorted(ALL)),
    st.lists(st.lists(st.floats(0, 20), min_size=3, max_size=3), max_size=8),
)
@settings(deadline=None)
def test_weights_lie_on_the_simplex_and_are_saved(name: str, losses: list[list[float]]) -> None:
    domains = ("new", "b", "c")
    policy, other = begun(ALL[name](), *domains), begun(ALL[name](), *domains)
    for step, row in enumerate(losses):
        policy.observe(step, dict(zip(domains, row, strict=True)), tokens=64 * step)
    weights = policy.weights(3)
    assert tuple(weights) == domains
    assert min(weights.values()) >= 0 and sum(weights.values()) == pytest.approx(1, abs=1e-9)
    other.load_state_dict(policy.state_dict())
    assert other.weights(3) == weights
    for each in (policy, other):
        each.observe(9, dict.fromkeys(domains, 1.5))
    assert policy.weights(4) == other.weights(4)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8).filter(any), st.floats(0, 0.125))
def test_a_floor_holds_for_all(shares: list[float], floor: float) -> None:
    lifted = guarded({str(i): share for i, share in enumerate(shares)}, floor)
    assert sum(lifted.values()) == pytest.approx(1)
    assert min(lifted.values()) >= floor - 1e-12


def test_a_reset_forgets() -> None:
    for name, make in ALL.items():
        policy = begun(make(), "new", "b", "c")
        fresh = policy.weights(0)
        for loss in (1.0, 3.0):
            policy.observe(1, {"new": 1.0, "b": loss, "c": 0.5})
        policy.reset(("new", "b", "c"), "new")
        assert policy.weights(0) == fresh, name


def test_taylor_softmax() -> None:
    assert [round(value, 4) for value in taylor_softmax([0, 1, 2])] == [0.1176, 0.2941, 0.5882]
    assert min(taylor_softmax([-1.0, -9.0, 3.0])) > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FixedReplay(1.5), "share=1.5 is no share"),
        (lambda: FixedReplay(-0.1), "share=-0.1 is no share"),
        (lambda: FixedReplay(1.0, budget="additive"), "no room for new"),
        (lambda: TiC(2.0), "alpha=2.0 is no share"),
        (lambda: PretrainLike({"web": 1}, "book"), "no domain 'book'"),
        (lambda: PretrainLike({"web": -1, "b": 2}, "web"), "no proportions"),
        (lambda: begun(PretrainLike({"web": 1, "b": 2}, "web"), "new"), "no domain 'b'"),
        (lambda: begun(FixedReplay(0.1, sizes={"a": 1}), "new", "b"), "no domain 'b'"),
        (lambda: SkillIt(window=0), "window=0"),
        (lambda: SkillIt(adjacency=[[-1]]), "no negative"),
        (lambda: begun(SkillIt(adjacency=[[1, 0]]), "a", "b"), "2 rows of 2"),
        (lambda: begun(SkillIt(floor=0.6), "a", "b"), "more than the whole batch"),
        (lambda: begun(SkillIt(), "a", "b").observe(1, {"a": 1.0}), "no domain 'b'"),
        (lambda: TopicPerplexity(clip=(1.5, 2.0)), "clip"),
        (lambda: Feedback(1.0, start=0.7), "start=0.7"),
        (lambda: NewOnly().reset(["a"], "b"), "none of a"),
    ],
)
def test_what_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
