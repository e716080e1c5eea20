"""Which samples a step sees: a pure function of (seed, task, phase, step)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from clbench.phase import Phase
from clbench.rng import Randomness


class Sampler:
    """Positions of each step's batch. An epoch's permutation is drawn once, from its own keyed generator."""

    def __init__(self, phase: Phase, n: int, random: Randomness, place: tuple[int, int]) -> None:
        self.n = n
        self.batch_size = phase.batch_size
        self.shuffle = phase.shuffle
        self.per_epoch = max(1, math.ceil(n / phase.batch_size))
        self.length = phase_length(phase, n)
        self._random = random
        self._place = place
        self._epoch = -1
        self._order = torch.arange(n)

    def epoch(self, step: int) -> int:
        return step // self.per_epoch

    def positions(self, step: int) -> Tensor:
        """int64 [b]: positions in the phase's samples of the batch of this 0-based step."""
        epoch, place = divmod(step, self.per_epoch)
        if self.shuffle and epoch != self._epoch:
            self._order = torch.randperm(self.n, generator=self._random.fixed("order", *self._place, epoch))
            self._epoch = epoch
        return self._order[place * self.batch_size : (place + 1) * self.batch_size]


def phase_length(phase: Phase, n: int) -> int:
    """Steps of a phase over n samples: `steps`, or ceil(n / batch) times the epochs, rounded up."""
    if n == 0:
        return 0
    if phase.steps is not None:
        return phase.steps
    assert phase.epochs is not None
    return math.ceil(math.ceil(n / phase.batch_size) * phase.epochs)
