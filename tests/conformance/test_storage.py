"""Training samples are recognised in whatever form they are kept."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from clbench.conformance.storage import Rows
from clbench.samples import Pool, Samples

IMAGES = torch.randint(0, 256, (6, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def known() -> Rows:
    rows = Rows()
    rows.add(IMAGES)
    return rows


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (IMAGES, 6),
        (IMAGES[2:4].flatten(1).double(), 2),
        (IMAGES[3], 1),
        (IMAGES[3].flatten().tolist(), 1),
        (IMAGES[:2].numpy().astype(np.int16), 2),
        (IMAGES[1].numpy().tobytes(), 1),
        (IMAGES.reshape(2, 3, 16).transpose(0, 1), 6),
        (deque([IMAGES[0], IMAGES[0]]), 1),
        ({"a": [SimpleNamespace(kept=IMAGES[5])]}, 1),
        (Samples(Pool(IMAGES, torch.zeros(6)), [1, 4]), 2),
        (IMAGES + 1, 0),
        (IMAGES.double().mean(0), 0),
        (torch.zeros(6, 16), 0),
        (None, 0),
        ("text", 0),
    ],
)
def test_rows_are_counted(known: Rows, value: Any, count: int) -> None:
    assert known.count(value) == count


def test_those_of_another_set_are_left_out(known: Rows) -> None:
    latest = Rows()
    latest.add(IMAGES[:2])
    assert known.count(IMAGES[:3], latest) == 1
