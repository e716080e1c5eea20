"""What a stream says every batch is made of, applied to the phases of any strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from clbench.errors import UserError
from clbench.mixtures.pools import BUFFER, PRETRAINING, BatchQuota
from clbench.phase import Phase
from clbench.rng import Randomness
from clbench.samples import Samples
from clbench.stream import Stream


def mixed(phase: Phase, stream: Stream, task: int, random: Randomness) -> Phase:
    """The phase with the stream's mixture, where the stream has one: its data, the pre-training's, earlier tasks'.

    Phases without an optimiser, and those that make their data themselves, stay as they are. Raises UserError for a
    phase that has sources of its own.
    """
    mixture = stream.mixture
    if mixture is None or phase.optimizer is None:
        return phase
    if phase.sources is not None:
        raise UserError(
            f"{stream.name} says what batches are made of, but the strategy's phase {phase.name!r} mixes sources of "
            "its own: --set stream.mixture=[0,1,0] leaves that to the strategy"
        )
    if not isinstance(phase.data, Samples):
        return phase
    sources: dict[str, Samples | None] = {_own_name(stream.tasks[max(0, task)].name): phase.data}
    before, earlier = mixture.pretraining, [each.train for each in stream.tasks[: max(0, task)]]
    if before is not None and len(before) and mixture.shares[0] > 0:
        sources[PRETRAINING] = before
    if earlier and mixture.shares[2] > 0:
        sources[BUFFER] = buffer(earlier, mixture.capacity, random)
    return replace(phase, sources=sources, mixture=BatchQuota(mixture.shares, phase.batch_size))


def _own_name(task: str) -> str:
    """What the task's own data are called among the sources: a task may be called as another source is."""
    return f"task {task}" if task in (PRETRAINING, BUFFER) else task


def buffer(earlier: Sequence[Samples], capacity: int | None, random: Randomness) -> Samples:
    """All samples of earlier tasks or, where there are more than `capacity`, that many, evenly from their classes.

    Every row of the pool has a number drawn once for the run; of each class the lowest stay. So what is kept after a
    task is a part of what was kept before it and of its own data.
    """
    everything = Samples.union(earlier)
    if capacity is None or len(everything) <= capacity:
        return everything
    drawn = torch.rand(len(everything.pool.labels), generator=random.fixed("buffer"), dtype=torch.float64)
    drawn, labels = drawn[everything.index], everything.labels
    ranks = ranks_in_class(drawn, labels)
    order = drawn.argsort(stable=True)
    order = order[ranks[order].argsort(stable=True)]
    return everything.subset(order[:capacity].sort().values)


def ranks_in_class(drawn: Tensor, labels: Tensor) -> Tensor:
    """int64 [n]: the place of each sample among those of its label, by what it drew."""
    order = drawn.argsort(stable=True)
    order = order[labels[order].argsort(stable=True)]
    counts = torch.unique_consecutive(labels[order], return_counts=True)[1]
    starts = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order)) - starts
    return ranks
