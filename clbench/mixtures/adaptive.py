"""Policies that follow losses on validation data kept for selection."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clbench.errors import UserError
from clbench.mixtures.policy import Policy, Reading, checked_share, guarded, known_domains, normalised, spread

if TYPE_CHECKING:
    import torch

LARGEST_EXPONENT = 700.0


class Adaptive(Policy):
    """What the three have in common: a floor under every share, and the reading of the new domain.

    floor: no domain gets less of a batch. reading_new: how the new domain is read.
    """

    def __init__(self, floor: float = 0.0, reading_new: Reading | None = None) -> None:
        self.floor = checked_share(floor, "mixture", "floor")
        self.reading_new = reading_new or Reading()

    def reset(self, domains: Sequence[str], current: str, generator: torch.Generator | None = None) -> None:
        super().reset(domains, current, generator)
        guarded(dict.fromkeys(self.domains, 1.0), self.floor)

    def reading(self, domain: str) -> Reading:
        return self.reading_new if domain == self.current else Reading()


class TopicPerplexity(Adaptive):
    """Topics whose perplexity rises get more data, those whose falls get less (Llama-3-SynE, arXiv 2407.18743).

    From one observation to the next, with delta_i the change of topic i's perplexity divided by the largest absolute
    change, its proportion r_i is multiplied by f_i = 1 + alpha * delta_i * w_i, held within `clip`, and all are
    normalised; no proportion falls below `floor`. alpha and w are unpublished; dividing by the largest change is a
    choice of this project, as are clip and floor. start: the first proportions, in any unit (None: equal).
    """

    def __init__(
        self,
        alpha: float = 0.3,
        start: Mapping[str, float] | None = None,
        w: Mapping[str, float] | None = None,
        clip: tuple[float, float] = (0.5, 2.0),
        floor: float = 0.01,
        reading_new: Reading | None = None,
    ) -> None:
        super().__init__(floor, reading_new)
        if not 0 <= clip[0] <= 1 <= clip[1]:
            raise UserError(f"topic perplexity: clip={list(clip)} must hold 1, and nothing below 0")
        self.alpha = alpha
        self.start = None if start is None else dict(start)
        self.w = dict(w or {})
        self.clip = clip

    def reset(self, domains: Sequence[str], current: str, generator: torch.Generator | None = None) -> None:
        super().reset(domains, current, generator)
        if self.start is not None:
            known_domains(self.domains, self.start, "first proportions")
        first = {name: 1.0 if self.start is None else self.start[name] for name in self.domains}
        self.proportions = guarded(first, self.floor)
        self.before: dict[str, float] = {}

    def observe(self, step: int, losses: Mapping[str, float], tokens: int = 0) -> None:
        known_domains(self.domains, losses, "observed losses")
        now = {name: math.exp(min(losses[name], LARGEST_EXPONENT)) for name in self.domains}
        if self.before:
            self.proportions = self._updated({name: now[name] - self.before[name] for name in self.domains})
        self.before = now

    def _updated(self, change: Mapping[str, float]) -> dict[str, float]:
        largest = max(abs(value) for value in change.values())
        if largest == 0:
            return self.proportions
        low, high = self.clip
        factors = {n: 1 + self.alpha * change[n] / largest * self.w.get(n, 1.0) for n in self.domains}
        return guarded({n: self.proportions[n] * min(high, max(low, factors[n])) for n in self.domains}, self.floor)

    def weights(self, step: int) -> dict[str, float]:
        return dict(self.proportions)

    def state_dict(self) -> dict[str, Any]:
        return {"proportions": dict(self.proportions), "before": dict(self.before)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.proportions, self.before = dict(state["proportions"]), dict(state["before"])


class SkillIt(Adaptive):
    """Sample a skill in proportion to the exponential of the losses of all it helps (Skill-It, arXiv 2307.14430).

    p_i is proportional to exp(eta * sum over the last `window` observations of sum_j A_ij L_j), never multiplied by
    the p before; until the first observation to exp(eta * sum_j A_ij). A_ij >= 0 says how much training on i helps
    target j. adjacency: k rows (the domains in their order) of m numbers (the `targets` in theirs; None: the domains
    themselves); None: the identity, sampling by each domain's own loss. relative: losses are divided by the first ones.
    """

    def __init__(
        self,
        eta: float = 0.2,
        window: int = 3,
        adjacency: Sequence[Sequence[float]] | None = None,
        targets: Sequence[str] | None = None,
        relative: bool = False,
        floor: float = 0.0,
        reading_new: Reading | None = None,
    ) -> None:
        super().__init__(floor, reading_new)
        if window < 1:
            raise UserError(f"skill-it: window={window} must be 1 observation or more")
        if adjacency is not None and any(value < 0 for row in adjacency for value in row):
            raise UserError("skill-it: an adjacency holds no negative numbers")
        self.eta = eta
        self.window = window
        self.adjacency = None if adjacency is None else [[float(value) for value in row] for row in adjacency]
        self.targets = None if targets is None else tuple(targets)
        self.relative = relative

    def reset(self, domains: Sequence[str], current: str, generator: torch.Generator | None = None) -> None:
        super().reset(domains, current, generator)
        k, m = len(self.domains), len(self._targets())
        if self.adjacency is None and self.targets is not None:
            raise UserError("skill-it: targets other than the domains need an adjacency")
        if self.adjacency is not None and [len(row) for row in self.adjacency] != [m] * k:
            raise UserError(
                f"skill-it: the adjacency must have {k} rows of {m} numbers: one for each domain and target"
            )
        self.first: dict[str, float] = {}
        self.recent: list[dict[str, float]] = []

    def observe(self, step: int, losses: Mapping[str, float], tokens: int = 0) -> None:
        known_domains(self._targets(), losses, "observed losses")
        seen = {name: float(losses[name]) for name in self._targets()}
        if self.relative:
            self.first = self.first or seen
            seen = {name: loss / max(self.first[name], 1e-12) for name, loss in seen.items()}
        self.recent = [*self.recent, seen][-self.window :]

    def weights(self, step: int) -> dict[str, float]:
        observed = self.recent or [dict.fromkeys(self._targets(), 1.0)]
        helped = [sum(self._reward(i, losses) for losses in observed) for i in range(len(self.domains))]
        most = max(helped)
        powers = {n: math.exp(self.eta * (value - most)) for n, value in zip(self.domains, helped, strict=True)}
        return guarded(powers, self.floor)

    def _reward(self, i: int, losses: Mapping[str, float]) -> float:
        if self.adjacency is None:
            return losses[self.domains[i]]
        return sum(a * losses[name] for a, name in zip(self.adjacency[i], self._targets(), strict=True))

    def _targets(self) -> tuple[str, ...]:
        return self.domains if self.targets is None else self.targets

    def state_dict(self) -> dict[str, Any]:
        return {"first": dict(self.first), "recent": [dict(losses) for losses in self.recent]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.first = dict(state["first"])
        self.recent = [dict(losses) for losses in state["recent"]]


class Feedback(Adaptive):
    """More replay while the earlier domains are worse than allowed, less while they are better (an integrating
    controller, in the place of a learned agent such as arXiv 2507.15640).

    x <- clip(x + gain * (L_old - L_old at the first observation - target), lowest, highest), with L_old the mean loss
    of the earlier domains. x is divided over them evenly, or in proportion to `sizes`.
    """

    def __init__(
        self,
        gain: float,
        target: float = 0.0,
        start: float = 0.05,
        lowest: float = 0.01,
        highest: float = 0.5,
        sizes: Mapping[str, float] | None = None,
        reading_new: Reading | None = None,
    ) -> None:
        super().__init__(0.0, reading_new)
        for name, value in (("start", start), ("lowest", lowest), ("highest", highest)):
            checked_share(value, "feedback", name)
        if not lowest <= start <= highest:
            raise UserError(f"feedback: start={start} does not lie between lowest={lowest} and highest={highest}")
        self.gain, self.target = gain, target
        self.start, self.lowest, self.highest = start, lowest, highest
        self.sizes = sizes

    def reset(self, domains: Sequence[str], current: str, generator: torch.Generator | None = None) -> None:
        super().reset(domains, current, generator)
        spread(1.0, self.others, self.sizes)
        self.share = self.start
        self.first: float | None = None

    def observe(self, step: int, losses: Mapping[str, float], tokens: int = 0) -> None:
        known_domains(self.others, losses, "observed losses")
        if not self.others:
            return
        loss = sum(losses[name] for name in self.others) / len(self.others)
        if self.first is None:
            self.first = loss
        changed = self.share + self.gain * (loss - self.first - self.target)
        self.share = min(self.highest, max(self.lowest, changed))

    def weights(self, step: int) -> dict[str, float]:
        share = self.share if self.others else 0.0
        return normalised({self.current: 1 - share, **spread(share, self.others, self.sizes)})

    def state_dict(self) -> dict[str, Any]:
        return {"share": self.share, "first": self.first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.share, self.first = state["share"], state["first"]
