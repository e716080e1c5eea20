from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from clbench.pairs import Embeddings, Pairs
from clbench.samples import Batch, Share


def pairs(n: int) -> Pairs:
    return Pairs(torch.arange(3.0 * n).view(n, 3, 1, 1), torch.arange(2 * n).view(n, 2))


def batch(n: int) -> Batch:
    labels = torch.arange(n)
    return Batch(x=pairs(n), y=labels, raw=labels, labels=labels, index=labels)


def equal(a: Pairs, b: Pairs) -> bool:
    assert a.tokens is not None and b.tokens is not None
    return torch.equal(images(a), images(b)) and torch.equal(a.tokens, b.tokens)


def cat(*parts: Any) -> Any:
    """By `torch.cat`, whose signature knows of tensors alone."""
    return torch.cat(parts)


def images(x: Pairs) -> Tensor:
    assert x.images is not None
    return x.images


def test_rows_are_selected_split_and_joined_as_those_of_tensors() -> None:
    x = pairs(5)
    assert [len(part) for part in x.split(2)] == [2, 2, 1]
    assert equal(cat(*x.split(2)), x)
    assert equal(x[torch.tensor([4, 0])], cat(x[4:], x[:1]))
    assert images(x.to(torch.float64)).dtype == torch.float64


def test_batches_and_shares_hold_them() -> None:
    whole = batch(6)
    parts = [Share.of(whole, rank, 3) for rank in range(3)]
    assert equal(Batch.join(parts).x, whole.x)
    joined = Batch.join([batch(2), batch(3)])
    assert equal(joined.x, cat(pairs(2), pairs(3))) and len(joined) == 5


def test_one_side_may_be_missing_but_not_of_some_parts() -> None:
    alone = pairs(4).only_images()
    assert len(alone[1:]) == 3 and alone[1:].tokens is None
    with pytest.raises(ValueError, match="lack a side"):
        cat(alone, pairs(2))


def test_similarities_are_of_every_image_to_every_text() -> None:
    image, text = torch.eye(3), torch.eye(3)[[1, 2, 0]]
    out = Embeddings(image, text, torch.tensor(2.0), torch.tensor(-1.0))
    assert out.logits().tolist() == [[-1, -1, 1], [1, -1, -1], [-1, 1, -1]]
    again = cat(out[:1], out[1:])
    assert torch.equal(again.logits(), out.logits())


def test_embeddings_have_no_columns_of_classes() -> None:
    out = Embeddings(torch.eye(2), torch.eye(2), torch.tensor(1.0))
    n = out.shape[-1]
    assert out.masked_fill((torch.arange(n) < n) & (torch.tensor([8, 9]) >= n)[:, None], 0.0) is out
    with pytest.raises(ValueError, match="no columns"):
        out.masked_fill(torch.ones(2, 3, dtype=torch.bool), 0.0)
