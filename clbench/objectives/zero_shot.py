"""Scores of images against texts: zero-shot classification and retrieval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 1024


class TextCache:
    """Embeddings of captions by id, valid while the text tower is the one with this key; None: never twice."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._place: dict[int, int] = {}
        self._values = torch.empty(0, 0)

    def update(self, ids: Sequence[int], key: str | None, encode: Callable[[Tensor], Tensor]) -> None:
        """Have the embeddings of these captions, `encode`d ([n, d] of ids, int64 [n]) where they are not known yet."""
        if key is None or key != self._key:
            self._key, self._place = key, {}
        missing = sorted(set(ids) - self._place.keys())
        if not missing:
            return
        new = encode(torch.tensor(missing)).float()
        self._values = torch.cat([self._values, new]) if self._place else new
        self._place |= {number: len(self._place) + i for i, number in enumerate(missing)}

    def __getitem__(self, ids: Sequence[int]) -> Tensor:
        """float32 [n, d]."""
        return self._values[[self._place[number] for number in ids]]


def class_embeddings(texts: TextCache, captions: Sequence[Sequence[int]]) -> Tensor:
    """Of each class the mean embedding of its captions, of unit length: [classes, d]."""
    flat = texts[[number for ids in captions for number in ids]]
    counts = torch.tensor([len(ids) for ids in captions], device=flat.device)
    owner = torch.arange(len(captions), device=flat.device).repeat_interleave(counts)
    sums = flat.new_zeros(len(captions), flat.shape[1]).index_add_(0, owner, flat)
    return F.normalize(sums, dim=-1)


def recall(images: Tensor, texts: Tensor, own: Tensor, k: int) -> Tensor:
    """Per image the mean of two: whether one of its captions is among the k texts nearest to it; the share of its
    captions to which one of their images is among the k nearest. float [n].

    images: [n, d], texts: [m, d], all different; own: int64 [2, p], images and the captions that are theirs.
    """
    image, text = own
    to_text = _found(images, texts, image, text, k)
    to_image = _found(texts, images, text, image, k)[text]
    shares = torch.zeros(len(images), device=images.device).index_add_(0, image, to_image)
    return (to_text + shares / torch.bincount(image, minlength=len(images)).clamp(min=1)) / 2


def _found(queries: Tensor, answers: Tensor, query: Tensor, answer: Tensor, k: int) -> Tensor:
    """float [queries]: whether a right answer is among the k nearest."""
    found = []
    for start in range(0, len(queries), ROWS):
        some = queries[start : start + ROWS]
        nearest = (some @ answers.T).topk(min(k, len(answers)), dim=1).indices
        mine = (query >= start) & (query < start + len(some))
        right = torch.zeros(len(some), len(answers), dtype=torch.bool, device=some.device)
        right[query[mine] - start, answer[mine]] = True
        found.append(right.gather(1, nearest).any(1))
    return torch.cat(found).float() if found else torch.zeros(0)


def chance_of_recall(own: Tensor, images: int, texts: int, k: int) -> float:
    """What `recall` gives on average where the order is random."""
    image, text = own.cpu()
    of_image, of_text = torch.bincount(image, minlength=images), torch.bincount(text, minlength=texts)
    to_text = torch.tensor([_chance(int(c), texts, k) for c in of_image], dtype=torch.float64)
    to_image = torch.tensor([_chance(int(c), images, k) for c in of_text], dtype=torch.float64)[text]
    shares = torch.zeros(images, dtype=torch.float64).index_add_(0, image, to_image) / of_image.clamp(min=1)
    return float((to_text + shares).mean()) / 2


def _chance(right: int, of: int, k: int) -> float:
    """Of k different ones drawn from `of`, that one is among the `right` ones."""
    return 1.0 - math.comb(of - right, min(k, of)) / math.comb(of, min(k, of))
