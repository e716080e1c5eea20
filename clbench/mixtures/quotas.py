"""Whole numbers of samples for each batch from shares that are none: what a batch owes is carried to the next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from clbench.errors import UserError

NEARLY = 1e-9  # what sums of shares may be off by rounding


class Quotas:
    """Error diffusion: a domain's carry grows by batch x share; its whole part is drawn now, the rest stays.

    What the whole parts leave of a batch goes first to `rest` (the new domain; default: the first one), then to the
    domains that will be owed a whole sample soonest, the largest remainder first. With constant shares the samples
    drawn so far differ from batch x share x batches by less than 1 for every domain and at every batch, and with two
    domains the other one's are the whole part of that product: 5 % of batches of 8 is 0,0,1,0,1,0,0,1,0,1. Drawn at
    random, the same share would vary by its square root.
    """

    def __init__(self, batch: int, domains: Sequence[str], rest: str | None = None) -> None:
        if batch < 1:
            raise UserError(f"a batch holds 1 sample or more, not {batch}")
        self.batch = batch
        self.domains = tuple(domains)
        self.rest = self.domains[0] if rest is None else rest
        self.carry = dict.fromkeys(self.domains, 0.0)

    def next(self, weights: Mapping[str, float], batch: int | None = None) -> dict[str, int]:
        """Samples of each domain in the next batch; they sum to its size. `batch`: of another size than usual."""
        size = self.batch if batch is None else batch
        gain = {name: size * weights[name] for name in self.domains}
        owed = {name: self.carry[name] + gain[name] for name in self.domains}
        counts = {name: max(0, math.floor(owed[name] + NEARLY)) for name in self.domains}
        left = size - sum(counts.values())
        while left > 0:
            for name in self._soonest(owed, counts, gain)[:left]:
                counts[name] += 1
                left -= 1
        while left < 0:  # only shares that change from batch to batch can owe more than there is room for
            name = min((n for n in self.domains if counts[n]), key=lambda n: owed[n] - counts[n])
            counts[name] -= 1
            left += 1
        self.carry = {name: owed[name] - counts[name] for name in self.domains}
        return counts

    def _soonest(self, owed: Mapping[str, float], counts: Mapping[str, int], gain: Mapping[str, float]) -> list[str]:
        """Domains that are owed part of a sample, in the order in which they get a whole one; else those with a share.

        By the first batch whose whole part must hold the sample: the earliest deadline first meets every deadline.
        """

        def rank(name: str) -> tuple[bool, float, float]:
            part = owed[name] - counts[name]
            deadline = math.ceil((1 - part) / gain[name] - NEARLY) if gain[name] > 0 else math.inf
            return name != self.rest, deadline, -part

        due = [name for name in self.domains if owed[name] - counts[name] > NEARLY]
        return sorted(due or [name for name in self.domains if gain[name] > 0], key=rank)

    def state_dict(self) -> dict[str, Any]:
        return {"carry": dict(self.carry)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.carry = dict(state["carry"])
