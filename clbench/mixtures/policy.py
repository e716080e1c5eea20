"""The interface of mixture policies: which share of a batch each domain has, at every step of a phase."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from clbench.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import torch

Order = Literal["shuffled", "in_order"]
Budget = Literal["compute_equivalent", "additive"]


@dataclass(frozen=True)
class Reading:
    """How a domain's samples are read: in_order as they stand, shuffled anew in every pass over them.

    take: a pass draws only so many of them, others each time ("redraw"); None: all.
    """

    order: Order = "shuffled"
    take: int | None = None


class Policy:
    """A policy is told the phase's domains and, from time to time, losses; it is asked for shares.

    `reset` comes first, once a phase; `domains` holds the current one, the others are earlier or other domains.
    `observe` takes mean losses in nats by domain, on validation data kept for selection and never on the data of the
    reported numbers. `weights(step)` is a distribution over `domains`, a function of what was observed and of the
    step. What it is a function of is in `state_dict`.
    """

    domains: tuple[str, ...] = ()
    current: str = ""

    def reset(self, domains: Sequence[str], current: str, generator: torch.Generator | None = None) -> None:
        """A phase begins: forget the last one's losses. Raises UserError where the policy does not fit the domains."""
        if current not in domains:
            raise UserError(f"mixture: the new domain {current!r} is none of {', '.join(domains)}")
        self.domains = tuple(domains)
        self.current = current

    def observe(self, step: int, losses: Mapping[str, float], tokens: int = 0) -> None:
        """Losses after `step` steps of the phase (0: before the first), after `tokens` training targets."""

    def weights(self, step: int) -> dict[str, float]:
        """Shares at 0-based `step` of the phase: at least 0, summing to 1."""
        raise NotImplementedError

    def in_full_batch(self) -> Mapping[str, int] | None:
        """Whole samples of each domain in every full batch, where the policy says them itself; none: by `weights`."""
        return None

    def growth(self) -> float:
        """How many times longer the phase is than without other domains: above 1 where they come on top."""
        return 1.0

    def reading(self, domain: str) -> Reading:
        """How a domain's samples are read."""
        return Reading()

    def state_dict(self) -> dict[str, Any]:
        """What it has observed, in values that a checkpoint may hold."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, after a `reset` with the same domains."""

    @property
    def others(self) -> list[str]:
        """All domains but the current one."""
        return [name for name in self.domains if name != self.current]


def checked_share(value: float, owner: str, name: str) -> float:
    """`value`, if it lies in [0, 1]. Raises UserError."""
    if not (isinstance(value, (int, float)) and 0 <= value <= 1):
        raise UserError(f"{owner}: {name}={value} is no share: use a number from 0 to 1")
    return float(value)


def normalised(values: Mapping[str, float]) -> dict[str, float]:
    """The values divided by their sum. Raises UserError unless they are at least 0 and one is above."""
    total = sum(values.values())
    if not (math.isfinite(total) and total > 0 and min(values.values()) >= 0):
        raise UserError(f"mixture: shares {dict(values)} are no proportions: give numbers of 0 or more, not all 0")
    return {name: value / total for name, value in values.items()}


def guarded(values: Mapping[str, float], floor: float) -> dict[str, float]:
    """The nearest proportions of which none is below `floor`: what lies below is lifted, the rest scaled down.

    Raises UserError where so many domains have no room for it.
    """
    if floor * len(values) > 1 + 1e-12:
        raise UserError(f"mixture: a floor of {floor} for each of {len(values)} domains is more than the whole batch")
    shares = normalised(values)
    low: set[str] = set()
    while True:
        free = 1 - floor * len(low)
        above = sum(share for name, share in shares.items() if name not in low)
        scaled = {name: floor if name in low else share * free / above for name, share in shares.items()}
        below = {name for name, share in scaled.items() if name not in low and share < floor}
        if not below or len(low | below) == len(shares):
            return scaled if not below else dict.fromkeys(shares, 1 / len(shares))
        low |= below


def spread(share: float, domains: Sequence[str], sizes: Mapping[str, float] | None) -> dict[str, float]:
    """A share divided over domains: evenly, or in proportion to their sizes."""
    if not domains:
        return {}
    if sizes is None:
        return {name: share / len(domains) for name in domains}
    known_domains(dict.fromkeys(domains, 0.0), sizes, "sizes")
    total = sum(sizes[name] for name in domains)
    return {name: share * sizes[name] / total for name in domains}


def known_domains(wanted: Mapping[str, Any] | Sequence[str], known: Mapping[str, Any] | Sequence[str], of: str) -> None:
    """Raises UserError where a wanted name is not known."""
    for name in wanted:
        if name not in known:
            raise UserError(f"mixture: {of}: no domain {name!r} there{did_you_mean(name, known)}")
