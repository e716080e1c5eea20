"""Herding: the greedy choice of its definition, and a choice for fewer is a prefix of one for more."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.herding import herd


def by_definition(x: Tensor, m: int) -> list[int]:
    """argmin over what is left of |mean - (x + sum of the chosen) / k|, by trying every sample."""
    chosen: list[int] = []
    for k in range(1, m + 1):
        left = [i for i in range(len(x)) if i not in chosen]
        distances = [float((x.mean(0) - (x[i] + x[chosen].sum(0)) / k).norm()) for i in left]
        chosen.append(left[distances.index(min(distances))])
    return chosen


@pytest.mark.oracle("icarl", "herding is the greedy choice, found by trying every sample")
@pytest.mark.parametrize("unit", [False, True])
def test_it_is_the_greedy_choice(unit: bool) -> None:
    for seed in range(5):
        x = torch.randn(25, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5
        x = F.normalize(x, dim=1) if unit else x
        assert herd(x, 12).tolist() == by_definition(x, 12)


@pytest.mark.oracle("wa", "fewer exemplars are a prefix of more")
def test_fewer_are_a_prefix_of_more() -> None:
    x = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    most = herd(x, 60)
    assert sorted(most.tolist()) == list(range(60))
    assert all(torch.equal(herd(x, m), most[:m]) for m in (1, 7, 30))
    assert torch.equal(herd(x, 100), most)


def test_the_mean_is_met_sooner_than_by_chance() -> None:
    x = torch.randn(200, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    herded, first = ((x.mean(0) - rows.mean(0)).norm() for rows in (x[herd(x, 20)], x[:20]))
    assert herded < 0.2 * first
