"""Quotas: exact in the long run, never off by a sample."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clbench.errors import UserError
from clbench.mixtures import Quotas


@st.composite
def shares(draw: st.DrawFn) -> dict[str, float]:
    parts = draw(st.lists(st.integers(0, 200), min_size=1, max_size=7).filter(any))
    return {f"d{i}": part / sum(parts) for i, part in enumerate(parts)}


def test_one_in_twenty_of_batches_of_eight() -> None:
    quotas = Quotas(8, ["new", "old"])
    drawn = [quotas.next({"new": 0.95, "old": 0.05}) for _ in range(10)]
    assert [counts["old"] for counts in drawn] == [0, 0, 1, 0, 1, 0, 0, 1, 0, 1]
    assert {sum(counts.values()) for counts in drawn} == {8}


@given(st.integers(1, 33), shares(), st.integers(1, 60))
@settings(deadline=None)
def test_every_batch_is_full_and_no_domain_is_off_by_a_sample(batch: int, weights: dict[str, float], n: int) -> None:
    quotas = Quotas(batch, list(weights))
    drawn = dict.fromkeys(weights, 0)
    for step in range(1, n + 1):
        counts = quotas.next(weights)
        assert sum(counts.values()) == batch and min(counts.values()) >= 0
        for name, count in counts.items():
            drawn[name] += count
            assert abs(drawn[name] - batch * weights[name] * step) < 1


@given(st.integers(1, 16), st.lists(shares(), min_size=1, max_size=20))
@settings(deadline=None)
def test_shares_that_change_still_fill_every_batch(batch: int, several: list[dict[str, float]]) -> None:
    domains = sorted({name for weights in several for name in weights})
    quotas, meant = Quotas(batch, domains), dict.fromkeys(domains, 0.0)
    drawn = dict.fromkeys(domains, 0)
    for weights in several:
        counts = quotas.next({name: weights.get(name, 0.0) for name in domains})
        assert sum(counts.values()) == batch and min(counts.values()) >= 0
        for name in domains:
            drawn[name] += counts[name]
            meant[name] += batch * weights.get(name, 0.0)
    for name in domains:
        assert abs(drawn[name] - meant[name]) < len(domains)


@pytest.mark.parametrize("share", [0.005, 0.01, 0.25, 1 / 3, 0.5, 0.95])
def test_a_share_is_exact_in_the_long_run(share: float) -> None:
    quotas = Quotas(8, ["new", "a", "b"])
    weights = {"new": 1 - share, "a": share / 2, "b": share / 2}
    total = [quotas.next(weights) for _ in range(3000)]
    assert sum(counts["a"] + counts["b"] for counts in total) == pytest.approx(24000 * share, abs=1)


def test_a_smaller_batch_owes_less() -> None:
    quotas = Quotas(8, ["new", "old"])
    assert [quotas.next({"new": 0.5, "old": 0.5}, n) for n in (3, 3, 2)] == [
        {"new": 2, "old": 1},
        {"new": 1, "old": 2},
        {"new": 1, "old": 1},
    ]


def test_what_is_owed_is_saved() -> None:
    one, other = Quotas(8, ["new", "old"]), Quotas(8, ["new", "old"])
    weights = {"new": 0.97, "old": 0.03}
    for _ in range(3):
        one.next(weights)
    other.load_state_dict(one.state_dict())
    assert [one.next(weights) for _ in range(20)] == [other.next(weights) for _ in range(20)]


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(UserError, match="1 sample or more"):
        Quotas(0, ["new"])
