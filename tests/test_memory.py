"""Memories: what they keep, how they draw, and that they come back from a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clbench.errors import UserError
from clbench.memory import POLICIES, Memory
from clbench.samples import Batch
from clbench.state import pack, unpack


def batch_of(labels: Tensor | list[int], first: int = 0) -> Batch:
    """A batch whose stored values are the samples' numbers in the stream: int32 [B, 1]."""
    labels = torch.as_tensor(labels)
    number = torch.arange(first, first + len(labels))
    return Batch(x=number.float(), y=labels, raw=number[:, None].int(), labels=labels, index=number)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def filled(memory: Memory, labels: Tensor, batch_size: int, seed: int = 0) -> Memory:
    drawing = generator(seed)
    for start in range(0, len(labels), batch_size):
        memory.add(batch_of(labels[start : start + batch_size], start), drawing)
    return memory


def numbers(memory: Memory) -> list[int]:
    return memory.all().raw[:, 0].tolist()


def chi_square(counts: Tensor, expected: float) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


# -- reservoir ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["reservoir", "class-balanced"])
@pytest.mark.parametrize(("batch_size", "runs"), [(1, 150), (7, 700)])
def test_inclusion_is_uniform(policy: str, batch_size: int, runs: int) -> None:
    """Every item of 40 is kept with probability 10 / 40. Inclusions without replacement: the statistic has the law of
    (1 - K/n) chi-square with n - 1 degrees of freedom, 95.0 at a millionth above."""
    n, size = 40, 10
    counts = torch.zeros(n)
    for seed in range(runs):
        memory = filled(Memory(size, policy), torch.zeros(n, dtype=torch.int64), batch_size, seed)
        counts[numbers(memory)] += 1
    assert counts.sum() == runs * size
    assert chi_square(counts, runs * size / n) / (1 - size / n) < 95.0


def test_the_first_items_fill_the_slots_in_order() -> None:
    memory = filled(Memory(8), torch.arange(8), 3)
    assert numbers(memory) == list(range(8))
    assert memory.all().labels.tolist() == list(range(8))


def test_a_batch_is_offered_item_by_item() -> None:
    """Slots as drawn one after another; in one slot the last item stays."""
    size, n = 4, 4 + 60
    memory = Memory(size)
    memory.add(batch_of(torch.zeros(n, dtype=torch.int64)), generator(5))
    draws = (torch.rand(n, dtype=torch.float64, generator=generator(5)) * torch.arange(1, n + 1)).long().tolist()
    slots = [-1] * size
    for item in range(n):
        slot = item if item < size else draws[item]
        if slot < size:
            slots[slot] = item
    assert numbers(memory) == slots


# -- by class ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["class-balanced", "ring", "first"])
def test_quotas_shrink_as_classes_arrive(policy: str) -> None:
    memory = Memory(12, policy)
    drawing = generator()
    expected = {1: 12, 2: 6, 3: 4, 4: 3, 5: 2}
    for label in range(5):
        memory.add(batch_of([label] * 20, 20 * label), drawing)
        assert memory.classes() == dict.fromkeys(range(label + 1), expected[label + 1])


def test_a_ring_keeps_the_latest_of_each_class_and_first_the_first() -> None:
    labels = torch.tensor([0, 1] * 20)
    assert sorted(numbers(filled(Memory(6, "ring"), labels, 4))) == [34, 35, 36, 37, 38, 39]
    assert sorted(numbers(filled(Memory(6, "first"), labels, 4))) == [0, 1, 2, 3, 4, 5]


def test_a_fixed_quota_caps_from_the_start() -> None:
    memory = Memory(10, "first")
    memory.quota = 2
    filled(memory, torch.tensor([0] * 10 + [1] * 10 + [2]), 5)
    assert memory.classes() == {0: 2, 1: 2, 2: 1}
    assert sorted(numbers(memory)) == [0, 1, 10, 11, 20]


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_invariants(policy: str, data: st.DataObject) -> None:
    """Never above its size, each row a sample of the stream with its own label, none twice."""
    size = data.draw(st.integers(1, 9))
    labels = torch.tensor(data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=60)))
    memory = filled(Memory(size, policy), labels, data.draw(st.integers(1, 11)))
    kept = numbers(memory)
    assert len(memory) == len(kept) <= size
    assert len(set(kept)) == len(kept)
    assert memory.all().labels.tolist() == labels[kept].tolist()
    assert memory.seen == len(labels)
    if policy == "reservoir":
        assert len(memory) == min(size, len(labels))
    if policy in ("class-balanced", "ring", "first") and size >= len(labels.unique()):
        quota = size // len(labels.unique())
        for count in memory.classes().values():
            assert count <= quota
        assert set(memory.classes()) == set(labels.unique().tolist())


# -- greedy ------------------------------------------------------------------------------------------------------------


def test_greedy_balances() -> None:
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate([300, 50, 120, 40])])
    memory = filled(Memory(60, "greedy"), labels, 16)
    assert memory.classes() == {0: 15, 1: 15, 2: 15, 3: 15}
    filled_again = filled(Memory(50, "greedy"), torch.tensor([0, 1, 2] * 100), 16)
    assert sorted(filled_again.classes().values()) == [16, 17, 17]


def test_greedy_keeps_all_of_a_rare_class() -> None:
    labels = torch.tensor([0] * 50 + [1] * 3 + [2] * 50)
    memory = filled(Memory(30, "greedy"), labels, 8)
    assert memory.classes()[1] == 3
    assert {50, 51, 52} <= set(numbers(memory))
    assert len(memory) == 30


# -- drawing, columns, saving ------------------------------------------------------------------------------------------


def test_samples_are_drawn_without_replacement_and_uniformly() -> None:
    memory = filled(Memory(20), torch.arange(20), 5)
    drawing = generator(1)
    counts = torch.zeros(20)
    for _ in range(500):
        rows = memory.sample(8, drawing)
        assert len(set(rows.positions.tolist())) == 8
        counts[rows.raw[:, 0].long()] += 1
    assert chi_square(counts, 200) / (1 - 8 / 20) < 65.0
    assert sorted(memory.sample(100, drawing).raw[:, 0].tolist()) == list(range(20))
    assert memory.sample(3, generator(2)).positions.tolist() == memory.sample(3, generator(2)).positions.tolist()


def test_float_columns_grow_with_nan() -> None:
    memory = Memory(6)
    memory.add(batch_of([0, 0]), generator(), extra={"outputs": torch.ones(2, 2)})
    memory.add(batch_of([1, 1], 2), generator(), extra={"outputs": torch.full((2, 4), 2.0)})
    memory.add(batch_of([2], 4), generator(), extra={"outputs": torch.full((1, 3), 3.0)})
    outputs = memory.all().extra["outputs"]
    assert outputs.shape == (5, 4)
    assert outputs[0].nan_to_num(-1).tolist() == [1, 1, -1, -1]
    assert outputs[3].tolist() == [2, 2, 2, 2]
    assert outputs[4].nan_to_num(-1).tolist() == [3, 3, 3, -1]


def test_columns_must_stay_the_same() -> None:
    memory = Memory(6)
    memory.add(batch_of([0, 0]), generator(), extra={"outputs": torch.ones(2, 2)})
    with pytest.raises(ValueError, match="columns are"):
        memory.add(batch_of([0]), generator())
    with pytest.raises(ValueError, match="column outputs: rows of"):
        memory.add(batch_of([0]), generator(), extra={"outputs": torch.ones(1, 2, 2)})


def test_bytes_count_the_rows_in_use() -> None:
    memory = Memory(1000)
    assert memory.bytes == 0
    memory.add(batch_of([0, 0, 0]), generator(), extra={"outputs": torch.ones(3, 5)})
    assert memory.bytes == 3 * (4 + 8 + 5 * 4)


def test_rows_are_copies_and_samples_can_be_trained_on() -> None:
    memory = filled(Memory(5), torch.arange(5), 5)
    samples = memory.samples()
    assert samples.raw(torch.arange(5))[:, 0].tolist() == list(range(5))
    memory.all().raw.zero_()
    assert numbers(memory) == list(range(5))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_saved_memory_goes_on_as_if_nothing_had_happened(policy: str) -> None:
    labels = torch.randint(0, 6, (200,), generator=generator(9)).sort().values
    whole, drawing = Memory(17, policy), generator(3)
    whole.quota = 4 if policy == "first" else None
    for start in range(0, 100, 10):
        whole.add(batch_of(labels[start : start + 10], start), drawing, {"outputs": torch.ones(10, 1 + start // 50)})
    tensors: dict[str, Tensor] = {}
    packed: Any = pack(whole, "memory", tensors)
    assert all(len(t) == len(whole) for name, t in tensors.items() if "columns" in name)
    again = unpack(packed, {name: t.clone() for name, t in tensors.items()}, Memory(17, policy))
    drawing_again = torch.Generator()
    drawing_again.set_state(drawing.get_state())
    for start in range(100, 200, 10):
        for memory, source in ((whole, drawing), (again, drawing_again)):
            memory.add(batch_of(labels[start : start + 10], start), source, {"outputs": torch.ones(10, 3)})
    a, b = whole.all(), again.all()
    assert torch.equal(a.raw, b.raw) and torch.equal(a.labels, b.labels)
    assert torch.equal(a.extra["outputs"].nan_to_num(-1), b.extra["outputs"].nan_to_num(-1))
    assert torch.equal(whole.sample(5, drawing).positions, again.sample(5, drawing_again).positions)


def test_an_empty_memory_is_saved_and_loaded() -> None:
    tensors: dict[str, Tensor] = {}
    again = unpack(pack(Memory(3), "m", tensors), tensors, Memory(3))
    assert len(again) == 0
    filled(again, torch.arange(3), 3)
    assert len(again) == 3


def test_mistakes() -> None:
    with pytest.raises(UserError, match="did you mean reservoir"):
        Memory(3, "reservoire")
    with pytest.raises(UserError, match="size of 1 or more"):
        Memory(0)
    with pytest.raises(ValueError, match="empty"):
        Memory(3).sample(1, generator())
    with pytest.raises(ValueError, match="empty"):
        Memory(3).all()
