"""Losses that bring the embeddings of images and of their captions together, per sample.

All take similarities [B, B], images in rows and texts in columns, and caption ids, int64 [B]: equal texts have equal
ids. The mean over samples is the loss of the batch. A sample's value needs the whole batch: the others are what its
image and its text are told apart from.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.captions import Loss


def same_text(y: Tensor) -> Tensor:
    """bool [B, B]: whether two samples have the same caption."""
    return y[:, None] == y[None, :]


def collisions(y: Tensor) -> tuple[int, int]:
    """Ordered pairs of different samples with the same caption, and all such pairs."""
    n = len(y)
    return int(same_text(y).sum()) - n, n * (n - 1)


def clip(logits: Tensor, y: Tensor) -> Tensor:
    """Symmetric InfoNCE (Radford et al. 2021, arXiv 2103.00020): cross-entropy of a row and of a column, halved; the
    target is the diagonal, also where captions are equal. float [B]."""
    target = torch.arange(len(logits), device=logits.device)
    rows = F.cross_entropy(logits, target, reduction="none")
    columns = F.cross_entropy(logits.T, target, reduction="none")
    return (rows + columns) / 2


def clip_mp(logits: Tensor, y: Tensor) -> Tensor:
    """The same with several positives: the target is spread evenly over all samples of the caption. float [B]."""
    same = same_text(y).to(logits.dtype)
    target = same / same.sum(1, keepdim=True)
    rows = -(target * logits.log_softmax(1)).sum(1)
    columns = -(target * logits.T.log_softmax(1)).sum(1)
    return (rows + columns) / 2


def siglip(logits: Tensor, y: Tensor) -> Tensor:
    """Sigmoid loss (Zhai et al. 2023, arXiv 2303.15343): an image and a text go together, or not, each pair decided by
    itself; those of the diagonal do. Summed over an image's texts, as in the paper. float [B]."""
    return _sigmoid(logits, torch.eye(len(logits), dtype=torch.bool, device=logits.device))


def siglip_mp(logits: Tensor, y: Tensor) -> Tensor:
    """The same where all samples of a caption go together. float [B]."""
    return _sigmoid(logits, same_text(y))


def _sigmoid(logits: Tensor, together: Tensor) -> Tensor:
    return -F.logsigmoid(torch.where(together, logits, -logits)).sum(1)


LOSSES: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    "clip": clip,
    "clip-mp": clip_mp,
    "siglip": siglip,
    "siglip-mp": siglip_mp,
}


def similarity_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence from the teacher's distributions over texts and over images to the student's, softened by the
    temperature, times its square, the mean of both directions: float [B] of similarities [B, B]."""
    both = [
        F.kl_div((s / temperature).log_softmax(1), (t / temperature).log_softmax(1), reduction="none", log_target=True)
        for s, t in ((student, teacher), (student.T, teacher.T))
    ]
    return (both[0].sum(1) + both[1].sum(1)) / 2 * temperature**2
