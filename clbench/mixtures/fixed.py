"""Policies whose shares do not depend on losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from clbench.errors import UserError
from clbench.mixtures.policy import Budget, Order, Policy, Reading, checked_share, known_domains, normalised, spread

if TYPE_CHECKING:
    import torch


class NewOnly(Policy):
    """Nothing but the new domain. order: of its samples; take: how many of them a pass draws (None: all)."""

    def __init__(self, order: Order = "shuffled", take: int | None = None) -> None:
        self.new = Reading(order, take)

    def weights(self, step: int) -> dict[str, float]:
        return {name: float(name == self.current) for name in self.domains}

    def reading(self, domain: str) -> Reading:
        return self.new if domain == self.current else Reading()


class Curriculum(NewOnly):
    """The new domain's blocks as they stand: from low to high perplexity, where `sorted_by` has put them so
    (Llama-3-SynE, arXiv 2407.18743)."""

    def __init__(self) -> None:
        super().__init__("in_order")


class FixedReplay(Policy):
    """A share x of every batch from earlier domains, 1 - x from the new one (Ibrahim et al. 2024, arXiv 2403.08763).

    budget: compute_equivalent leaves the phase as long as it was, so that x of the new domain's samples are not read;
    additive reads them all, and the phase is 1 / (1 - x) times as long. order: in_order reads an earlier domain from
    its start, as the paper does. sizes: tokens (or samples) of the domains, to divide x in proportion to them; None:
    evenly. Without an earlier domain everything is new.
    """

    def __init__(
        self,
        share: float,
        order: Order = "shuffled",
        budget: Budget = "compute_equivalent",
        sizes: Mapping[str, float] | None = None,
    ) -> None:
        self.share = checked_share(share, "fixed replay", "share")
        if budget == "additive" and self.share == 1:
            raise UserError("fixed replay: share=1 leaves no room for new samples; use less, or compute_equivalent")
        self.order = order
        self.budget = budget
        self.sizes = sizes

    def reset(self, domains: Sequence[str], current: str, generator: torch.Generator | None = None) -> None:
        super().reset(domains, current, generator)
        spread(1.0, self.others, self.sizes)

    def weights(self, step: int) -> dict[str, float]:
        share = self._share()
        return {self.current: 1 - share, **spread(share, self.others, self.sizes)}

    def growth(self) -> float:
        return 1 / (1 - self._share()) if self.budget == "additive" else 1.0

    def reading(self, domain: str) -> Reading:
        return Reading() if domain == self.current else Reading(self.order)

    def _share(self) -> float:
        return self.share if self.others else 0.0


class TiC(FixedReplay):
    """A share alpha of the current time slice, the rest uniform over the past ones (TiC-LM, apple/ml-tic-lm).

    alpha: "1/t" in the t-th slice (t = 1, 2, ...: the number of domains), or a number; 1/2 in the paper.
    """

    def __init__(
        self,
        alpha: float | Literal["1/t"] = "1/t",
        order: Order = "shuffled",
        budget: Budget = "compute_equivalent",
        sizes: Mapping[str, float] | None = None,
    ) -> None:
        fixed = 0.0 if alpha == "1/t" else 1 - checked_share(alpha, "TiC", "alpha")
        super().__init__(fixed, order, budget, sizes)
        self.alpha = alpha

    def _share(self) -> float:
        return 1 - 1 / len(self.domains) if self.alpha == "1/t" else super()._share()


class PretrainLike(Policy):
    """The mixture of the first pre-training, one slice of which gives its place to the new domain.

    Guo et al. 2024 (arXiv 2406.14833), third strategy. shares: of the slices in pre-training, in any unit.
    substitute: the slice whose share goes to the new domain. Slices with a share that are no domains of the phase
    raise a UserError. take: what a pass draws of the new domain.
    """

    def __init__(self, shares: Mapping[str, float], substitute: str, take: int | None = None) -> None:
        known_domains([substitute], shares, "shares of the pre-training")
        self.shares = normalised(shares)
        self.substitute = substitute
        self.take = take

    def reset(self, domains: Sequence[str], current: str, generator: torch.Generator | None = None) -> None:
        super().reset(domains, current, generator)
        known_domains([name for name in self.shares if name != self.substitute], domains, "the phase's domains")

    def weights(self, step: int) -> dict[str, float]:
        kept = {name: 0.0 if name == self.substitute else self.shares.get(name, 0.0) for name in self.others}
        return {self.current: self.shares[self.substitute], **kept}

    def reading(self, domain: str) -> Reading:
        return Reading(take=self.take) if domain == self.current else Reading()
