"""The mixture of a stream with pre-training data: the same numbers of samples in every batch (arXiv 2408.14471)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clbench.errors import UserError
from clbench.mixtures.policy import Policy

if TYPE_CHECKING:
    import torch

PRETRAINING, BUFFER = "pretraining", "buffer"


def pool_counts(
    batch: int, shares: tuple[float, float, float], pretraining: bool, buffer: bool
) -> tuple[int, int, int]:
    """Samples of (pre-training, task, buffer) in a batch of this size.

    The whole part of each share; what is left goes to them one by one, in this order. While there is no buffer (the
    first task) its samples are halved between task and pre-training, an odd one to the task; where there is no
    pre-training, its samples are the task's.
    """
    counts = [math.floor(batch * share + 1e-9) for share in shares]
    wanted = [i for i in range(3) if shares[i] > 0]
    for i in range(batch - sum(counts)):
        counts[wanted[i % len(wanted)]] += 1
    before, task, after = counts
    if not buffer:
        half = after // 2 if pretraining and shares[0] > 0 else 0
        before, task, after = before + half, task + after - half, 0
    return (before, task, after) if pretraining else (0, task + before, after)


class BatchQuota(Policy):
    """The same whole numbers of samples in every full batch: see `pool_counts`. The first domain is the task; the
    others, where they are there, are `pretraining` and `buffer`. Smaller batches keep the proportions: what one of them
    owes goes to the next."""

    def __init__(self, shares: tuple[float, float, float], batch: int) -> None:
        self.shares = shares
        self.batch = batch
        self.counts: dict[str, int] = {}

    def reset(self, domains: Sequence[str], current: str, generator: torch.Generator | None = None) -> None:
        super().reset(domains, current, generator)
        before, task, after = pool_counts(self.batch, self.shares, PRETRAINING in domains, BUFFER in domains)
        if not task and self.shares[1] > 0:
            raise UserError(
                f"mixture: a batch of {self.batch} has no room for the task's own samples; use a larger one"
            )
        numbers = {PRETRAINING: before, BUFFER: after}
        self.counts = {name: task if name == current else numbers[name] for name in domains}

    def weights(self, step: int) -> dict[str, float]:
        return {name: count / self.batch for name, count in self.counts.items()}

    def in_full_batch(self) -> dict[str, int]:
        return self.counts
