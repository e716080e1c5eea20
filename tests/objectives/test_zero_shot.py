from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.objectives.zero_shot import TextCache, chance_of_recall, class_embeddings, recall


def unit(n: int, d: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


class Encoder:
    """Unit vectors by id, and what was asked for."""

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.asked: list[list[int]] = []

    def __call__(self, ids: Tensor) -> Tensor:
        self.asked.append(ids.tolist())
        return self.table[ids]


def test_a_text_is_embedded_once_while_the_tower_is_the_same() -> None:
    first, second = Encoder(unit(6, 3, 0)), Encoder(unit(6, 3, 1))
    texts = TextCache()
    texts.update([4, 1], "a", first)
    texts.update([1, 2], "a", first)
    assert first.asked == [[1, 4], [2]]
    assert torch.equal(texts[[2, 4]], first.table[[2, 4]])
    texts.update([1], "b", second)
    assert second.asked == [[1]] and torch.equal(texts[[1]], second.table[[1]])
    texts.update([1], None, first)
    texts.update([1], None, first)
    assert first.asked[2:] == [[1], [1]]


def test_a_class_is_the_mean_of_its_captions() -> None:
    table = unit(5, 3, 0)
    texts = TextCache()
    texts.update(range(5), None, Encoder(table))
    found = class_embeddings(texts, [[0], [1, 4]])
    torch.testing.assert_close(found, torch.stack([table[0], F.normalize(table[1] + table[4], dim=0)]))


def plain_recall(images: Tensor, texts: Tensor, own: list[tuple[int, int]], k: int) -> list[float]:
    """From the definition, one query after another."""
    near = images @ texts.T
    out = []
    for i in range(len(images)):
        mine = [t for j, t in own if j == i]
        nearest = near[i].argsort(descending=True)[:k].tolist()
        back = [any((j, t) in own for j in near[:, t].argsort(descending=True)[:k].tolist()) for t in mine]
        out.append((float(any(t in nearest for t in mine)) + sum(back) / len(back)) / 2)
    return out


@pytest.mark.parametrize("k", [1, 2, 5])
def test_recall_of_both_directions(k: int) -> None:
    images, texts = unit(7, 3, 0), unit(9, 3, 1)
    own = sorted({(i, i) for i in range(7)} | {(0, 7), (3, 8), (5, 2)})
    found = recall(images, texts, torch.tensor(own).T, k)
    torch.testing.assert_close(found, torch.tensor(plain_recall(images, texts, own, k)))


def test_chance_is_what_random_embeddings_score() -> None:
    own = torch.tensor(sorted({(i, i) for i in range(12)} | {(0, 12), (1, 13), (5, 3)})).T
    found = torch.stack([recall(unit(12, 24, s), unit(14, 24, 100 + s), own, 3).mean() for s in range(400)])
    assert abs(float(found.mean()) - chance_of_recall(own, 12, 14, 3)) < 4 * float(found.std()) / 20


def test_everything_is_found_among_few() -> None:
    own = torch.tensor([[0, 1], [0, 1]])
    assert recall(unit(2, 3, 0), unit(2, 3, 1), own, 5).tolist() == [1.0, 1.0]
    assert chance_of_recall(own, 2, 2, 5) == 1.0
