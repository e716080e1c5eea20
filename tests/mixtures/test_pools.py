"""Whole samples of pre-training, task and buffer: the published numbers, and what holds for any batch and shares."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clbench.errors import UserError
from clbench.mixtures import BatchQuota, FixedReplay, Quotas, pool_counts

PUBLISHED = (0.33, 0.34, 0.33)


@pytest.mark.parametrize(
    ("batch", "shares", "pretraining", "buffer", "counts"),
    [
        (512, PUBLISHED, True, True, (169, 175, 168)),
        (512, PUBLISHED, True, False, (253, 259, 0)),
        (512, PUBLISHED, False, False, (0, 512, 0)),
        (64, (0.0, 0.5, 0.5), False, True, (0, 32, 32)),
        (64, (0.0, 0.5, 0.5), False, False, (0, 64, 0)),
        (9, (0.5, 0.5, 0.0), True, True, (5, 4, 0)),
        (10, (0.3, 0.4, 0.3), True, False, (4, 6, 0)),
    ],
)
def test_counts(
    batch: int,
    shares: tuple[float, float, float],
    pretraining: bool,
    buffer: bool,
    counts: tuple[int, int, int],
) -> None:
    assert pool_counts(batch, shares, pretraining, buffer) == counts


parts = st.tuples(*[st.integers(0, 20)] * 3).filter(lambda p: p[1] > 0)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 600), parts, st.booleans(), st.booleans())
def test_counts_sum_to_the_batch_and_absent_parts_get_none(
    batch: int, proportions: tuple[int, int, int], pretraining: bool, buffer: bool
) -> None:
    shares = tuple(part / sum(proportions) for part in proportions)
    before, task, after = pool_counts(batch, shares, pretraining, buffer)
    assert before + task + after == batch
    assert min(before, task, after) >= 0
    assert pretraining or before == 0
    assert buffer or after == 0
    if pretraining and buffer:
        for count, share in zip((before, task, after), shares, strict=True):
            assert abs(count - batch * share) < 1 + 1e-9
            assert share > 0 or count == 0
    if pretraining and not buffer and shares[0] > 0:
        full = pool_counts(batch, shares, True, True)
        assert (before, task) == (full[0] + full[2] // 2, full[1] + full[2] - full[2] // 2)


@settings(deadline=None, max_examples=50)
@given(st.integers(3, 600), parts, st.booleans())
def test_every_full_batch_has_the_same_numbers(batch: int, proportions: tuple[int, int, int], buffer: bool) -> None:
    shares = tuple(part / sum(proportions) for part in proportions)
    policy = BatchQuota(shares, batch)
    domains = ["task", *(["pretraining"] if shares[0] else []), *(["buffer"] if buffer and shares[2] else [])]
    try:
        policy.reset(domains, "task")
    except UserError:
        return
    quotas = Quotas(batch, domains)
    before, task, after = pool_counts(batch, shares, "pretraining" in domains, "buffer" in domains)
    wanted = {"task": task, "pretraining": before, "buffer": after}
    for step in range(7):
        assert quotas.next(policy.weights(step)) == {name: wanted[name] for name in domains}


@settings(deadline=None, max_examples=20)
@given(st.integers(3, 200), parts)
def test_the_numbers_of_full_batches_are_the_policys(batch: int, proportions: tuple[int, int, int]) -> None:
    """Whatever a smaller batch between them still owes."""
    shares = tuple(part / sum(proportions) for part in proportions)
    policy = BatchQuota(shares, batch)
    try:
        policy.reset(["task", "pretraining", "buffer"], "task")
    except UserError:
        return
    before, task, after = pool_counts(batch, shares, True, True)
    assert policy.in_full_batch() == {"task": task, "pretraining": before, "buffer": after}
    assert FixedReplay(0.5).in_full_batch() is None


def test_a_batch_without_room_for_the_task_is_refused() -> None:
    with pytest.raises(UserError, match="no room for the task's own samples"):
        BatchQuota((0.5, 0.1, 0.4), 2).reset(["task", "pretraining", "buffer"], "task")
