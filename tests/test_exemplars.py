"""Sets of exemplars: their order, their shares, what they count."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clbench.errors import RunFailed, UserError
from clbench.exemplars import Exemplars
from clbench.samples import Pool, Samples
from clbench.state import pack, stored_bytes, unpack


def images(n: int, first: int = 0) -> Tensor:
    """Images that say their number."""
    return torch.arange(first, first + n, dtype=torch.uint8)[:, None, None, None].expand(n, 1, 2, 2).contiguous()


def filled() -> Exemplars:
    exemplars = Exemplars(13)
    for label, first in ((4, 0), (2, 50)):
        exemplars.add(label, images(min(6, exemplars.make_room(2 - exemplars.sets)), first))
    return exemplars


def numbers(samples: Samples) -> list[int]:
    return samples.raw(torch.arange(len(samples)))[:, 0, 0, 0].tolist()


def test_sets_keep_their_order_and_lose_their_ends() -> None:
    exemplars = filled()
    assert numbers(exemplars.samples(4)) == [0, 1, 2, 3, 4, 5]
    assert exemplars.make_room(1) == 4
    exemplars.add(4, images(4, 90))
    assert exemplars.labels == [4, 2, 4]
    assert numbers(exemplars.samples()) == [0, 1, 2, 3, 50, 51, 52, 53, 90, 91, 92, 93]
    assert numbers(exemplars.samples(4)) == [0, 1, 2, 3, 90, 91, 92, 93]
    assert exemplars.samples().labels.tolist() == [4] * 4 + [2] * 4 + [4] * 4
    assert len(exemplars) == 12


def test_never_more_than_the_size() -> None:
    exemplars = filled()
    with pytest.raises(ValueError, match="more than 13"):
        exemplars.add(7, images(4))
    with pytest.raises(RunFailed, match="13 exemplars cannot be shared by 14 sets"):
        exemplars.make_room(12)
    with pytest.raises(UserError, match="1 or more"):
        Exemplars(0)


def test_joined_with_samples_of_another_pool() -> None:
    pool = Pool(images(10, 100), torch.arange(10))
    joined = filled().joined(Samples(pool, [7, 3]))
    assert numbers(joined) == [107, 103, 0, 1, 2, 3, 4, 5, 50, 51, 52, 53, 54, 55]
    assert joined.labels.tolist() == [7, 3] + [4] * 6 + [2] * 6
    alone = Samples(pool, [1])
    assert Exemplars(3).joined(alone) is alone


def test_they_are_saved_and_counted() -> None:
    exemplars = filled()
    tensors: dict[str, Tensor] = {}
    again = unpack(pack(exemplars, "e", tensors), tensors, Exemplars(13))
    assert again.labels == exemplars.labels and numbers(again.samples()) == numbers(exemplars.samples())
    assert stored_bytes(exemplars) == 12 * 4
    exemplars.make_room(1)
    assert stored_bytes(exemplars) == 8 * 4
