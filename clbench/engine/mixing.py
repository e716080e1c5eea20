"""Batches of a phase that draws from several sources: shares of a policy, whole samples, every source in its order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clbench.engine.hooks import hook
from clbench.engine.sampling import phase_length
from clbench.errors import RunFailed, UserError
from clbench.mixtures import Policy, Quotas
from clbench.phase import Phase
from clbench.samples import Batch, Samples

if TYPE_CHECKING:
    from clbench.engine.session import Session
    from clbench.stream import Task

NEARLY = 1e-6


class Mixing:
    """What outlives a step of such phases; it is in the checkpoint.

    places: how often each source was read to its end, how far since, and how long a pass is. drawn: samples read of
    it in the run. running: the phase under way, whose quotas and policy are saved as well.
    """

    def __init__(self) -> None:
        self.places: dict[str, list[int]] = {}
        self.drawn: dict[str, int] = {}
        self.running: Mixer | None = None
        self._saved: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        phase = None if self.running is None else self.running.state_dict()
        places = {name: list(place) for name, place in self.places.items()}
        return {"places": places, "drawn": dict(self.drawn), "phase": phase}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.places = {name: list(place) for name, place in state["places"].items()}
        self.drawn = dict(state["drawn"])
        self._saved = state["phase"]

    def report(self) -> dict[str, dict[str, float]]:
        """Of each source: samples drawn in the run, and how many passes over it (epochs) they make."""
        return {
            name: {"samples": self.drawn.get(name, 0), "epochs": self.drawn.get(name, 0) / max(1, length)}
            for name, (_, _, length) in self.places.items()
        }

    def end_saved(self) -> None:
        """The phase that was set aside is not taken up again: it ends where it stood."""
        saved, self._saved = self._saved, None
        if saved is not None:
            self.end(saved["current"])

    def end(self, current: str) -> None:
        """Where the current source of a phase is read again, in other phases, it is from its start."""
        place = self.places[current]
        if place[1]:
            place[:2] = [place[0] + 1, 0]
        self.running = None

    def take_saved(self) -> dict[str, Any]:
        """What the checkpoint holds of the phase that is taken up again."""
        saved, self._saved = self._saved, None
        assert saved is not None
        return saved


class Mixer:
    """Batches of one phase. The first source is the current one: it begins anew, the others go on where they stopped.

    A batch holds the samples of one source after another. Where the policy leaves the phase's length alone, steps and
    batch sizes are those of a phase without a mixture; where it makes it longer, all batches are full but the last. A
    source that is None has its share of every batch left out: the strategy fills it.
    """

    def __init__(self, session: Session, task: Task, number: int, phase: Phase) -> None:
        assert phase.sources is not None
        if phase.mixture is None:
            raise RunFailed(f"phase {phase.name!r} has sources, but no mixture that says what to draw from them")
        self.session = session
        self.phase = phase
        self.names = list(phase.sources)
        self._given: dict[str, Samples] = {name: s for name, s in phase.sources.items() if s is not None}
        self.policy: Policy = phase.mixture
        self.task = task.index
        self.place = (task.index, number)
        self.quotas = Quotas(phase.batch_size, self.names)
        self._orders: dict[str, tuple[int, Tensor]] = {}
        empty = [name for name, samples in self._given.items() if not len(samples)]
        if empty:
            raise UserError(f"phase {phase.name!r}: there are no samples of {empty[0]!r} to draw from")
        self._samples = _of_one_pool(list(self._given.values()))

    # -- the phase -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """On fresh entry, before `Phase.begin`."""
        self.reset()
        self.session.services.mixing.places[self.names[0]] = [0, 0, 0]
        self.session.services.mixing.running = self

    def prepare(self, samples: Samples, fresh: bool) -> None:
        """On every entry: the phase's length, from the data of the task and the policy's budget."""
        mixing = self.session.services.mixing
        if not fresh:
            self.reset()
            saved = mixing.take_saved()
            self.quotas.load_state_dict(saved["quotas"])
            self.policy.load_state_dict(saved["policy"])
            mixing.running = self
        size, n, plain = self.phase.batch_size, len(samples), phase_length(self.phase, len(samples))
        per_epoch = max(1, math.ceil(n / size))
        self.sizes = [min(size, n - step % per_epoch * size) for step in range(plain)]
        if (growth := self.policy.growth()) > 1:
            total = math.floor(sum(self.sizes) * growth + NEARLY)  # the quotas of the current source round up
            self.sizes = [min(size, total - start) for start in range(0, total, size)]
        self.length = len(self.sizes)
        self._check_single_pass(plain, per_epoch)

    def leave(self) -> None:
        self.session.services.mixing.end(self.names[0])

    def reset(self) -> None:
        """Tell the policy of the sources. Raises UserError where it does not fit them."""
        with hook(self.session.strategy, "mixture.reset", self.task, self.session.log):
            self.policy.reset(self.names, self.names[0], self.session.services.generator("mixture"))

    def _check_single_pass(self, length: int, per_epoch: int) -> None:
        """On an online stream, neither more samples than the task has nor some of them again."""
        if not self.session.stream.single_pass:
            return
        current = self._given.get(self.names[0])
        drawn = sum(self.sizes) * self.policy.weights(0)[self.names[0]]
        if length > per_epoch or (current is not None and drawn > len(current) + self.phase.batch_size):
            raise UserError(
                f"{self.session.stream.name} is an online stream: one pass over a task's data, but phase "
                f"{self.phase.name!r} reads some of it again (set epochs=1)"
            )

    # -- batches -------------------------------------------------------------------------------------------------

    def batch(self, step: int) -> Batch:
        """The batch of this 0-based step; steps must come one after another. `part` numbers the sources."""
        counts = self._counts(step)
        epoch = self.session.services.mixing.places[self.names[0]][0]
        taken = {name: self._take(name, counts[name]) for name in self._given}
        batch = self._read(taken, epoch)
        batch.left_out = sum(counts.values()) - len(batch.labels)
        batch.part = torch.cat(
            [torch.full((len(rows),), self.names.index(name), dtype=torch.int64) for name, rows in taken.items()]
        )
        return batch

    def _counts(self, step: int) -> Mapping[str, int]:
        """Samples of each source in the batch of a step."""
        size = self.sizes[step]
        full = self.policy.in_full_batch() if size == self.phase.batch_size else None
        return self.quotas.next(self.weights(step), size) if full is None else full

    def weights(self, step: int) -> dict[str, float]:
        """The policy's shares at a step, checked."""
        with hook(self.session.strategy, "mixture.weights", self.task, self.session.log):
            weights = self.policy.weights(step)
        fits = weights.keys() == set(self.names) and min(weights.values()) >= 0
        if not fits or not abs(sum(weights.values()) - 1) < NEARLY:
            raise RunFailed(f"the mixture of phase {self.phase.name!r} gives {weights}: no shares of {self.names}")
        return weights

    def _take(self, name: str, count: int) -> Tensor:
        """int64 [count]: the source's next positions; at its end it begins again."""
        mixing = self.session.services.mixing
        place = mixing.places.setdefault(name, [0, 0, 0])
        mixing.drawn[name] = mixing.drawn.get(name, 0) + count
        if name != self.names[0]:
            self.session.meters.add("samples_of_other_sources", count)
        parts = [torch.empty(0, dtype=torch.int64)]
        while count > 0:
            order = self._order(name, place[0])
            if place[1] >= len(order):
                place[:] = [place[0] + 1, 0, len(order)]
                continue
            place[2] = len(order)
            parts.append(order[place[1] : place[1] + count])
            place[1] += len(parts[-1])
            count -= len(parts[-1])
        return torch.cat(parts)

    def _order(self, name: str, epoch: int) -> Tensor:
        """Positions in the order of one pass. The current source's are those of a phase without a mixture."""
        known = self._orders.get(name)
        if known is None or known[0] != epoch:
            samples, reading = self._given[name], self.policy.reading(name)
            order = torch.arange(len(samples))
            if reading.order == "shuffled" or reading.take is not None:
                place: tuple[int | str, ...] = self.place if name == self.names[0] else ("source", name)
                order = torch.randperm(len(samples), generator=self.session.random.fixed("order", *place, epoch))
                order = order[: reading.take]
            if reading.order == "in_order":
                order = order.sort().values
            known = self._orders[name] = (epoch, order)
        return known[1]

    def _read(self, taken: dict[str, Tensor], epoch: int) -> Batch:
        services, view = self.session.services, self.phase.view
        view = view if any(len(rows) for rows in taken.values()) else "plain"
        if self._samples is not None:
            index = torch.cat([self._given[name].index[rows] for name, rows in taken.items()])
            return services.batch(Samples(self._samples.pool, index), torch.arange(len(index)), view, epoch)
        parts = {name: rows for name, rows in taken.items() if len(rows)} or taken
        batches = [services.batch(self._given[name], rows, view, epoch) for name, rows in parts.items()]
        return Batch.join(batches)

    def state_dict(self) -> dict[str, Any]:
        return {"current": self.names[0], "quotas": self.quotas.state_dict(), "policy": self.policy.state_dict()}


def _of_one_pool(sources: list[Samples]) -> Samples | None:
    """One of the sources, where all have the same pool."""
    return sources[0] if len({id(samples.pool) for samples in sources}) == 1 else None
