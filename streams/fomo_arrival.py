"""In which order concepts come, and in which tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clbench.errors import UserError

from .cutting import cut, task_sizes
from .fomo_concepts import Concept
from .fomo_config import FomoConfig
from .fomo_counts import counts_in_file, counts_in_pool
from .fomo_file import read_stream_file
from .fomo_orders import REVERSE, Known, ordered
from .fomo_scores import BaseModel
from .fomo_source import SourceSet

TASKS = 10
ONE_BY_ONE = ("dataset", "listed", "time_chunk")


@dataclass
class Arrived:
    """Concepts in the order in which they come, in tasks; then those held out, then those of the pool."""

    tasks: list[list[Concept]]
    held_out: list[Concept]
    pool: list[Concept]

    @property
    def adapted(self) -> list[Concept]:
        return [concept for task in self.tasks for concept in task]

    @property
    def all(self) -> list[Concept]:
        """By label."""
        return [*self.adapted, *self.held_out, *self.pool]


def arrive(
    stream: str, c: FomoConfig, sets: Sequence[SourceSet], concepts: Sequence[Concept], seed: int, model: str
) -> Arrived:
    """The concepts as they come. model: whose scores order them where the settings name none. Raises UserError."""
    by_key = {concept.key: concept for concept in concepts if concept.role == "adaptation"}
    if c.stream_file is not None:
        keys = read_stream_file(Path(c.stream_file).expanduser(), list(by_key))
    else:
        keys = ordered(c.ordering, _known(stream, c, sets, concepts, model), seed)
    held_out = [concept for concept in concepts if concept.role == "held-out"]
    pool = [concept for concept in concepts if concept.role == "pretraining"]
    return Arrived(_in_tasks(stream, c, [by_key[key] for key in keys]), held_out, pool)


def _in_tasks(stream: str, c: FomoConfig, order: list[Concept]) -> list[list[Concept]]:
    """Contiguous parts: one a set where sets come one by one, else of n // T concepts, the first n mod T one larger."""
    if c.tasks is None and c.stream_file is None and c.ordering.removeprefix(REVERSE) in ONE_BY_ONE:
        starts = [i for i, each in enumerate(order) if i == 0 or each.source.name != order[i - 1].source.name]
        return [order[a:b] for a, b in zip(starts, [*starts[1:], len(order)], strict=True)]
    tasks = min(TASKS, len(order)) if c.tasks is None else c.tasks
    if tasks > len(order):
        raise UserError(
            f"{stream}: tasks={tasks}: more tasks than concepts, the sets have {len(order)}; use tasks={len(order)} or "
            "fewer"
        )
    groups = cut(range(len(order)), task_sizes(len(order), tasks) if len(order) > 1 else [1])
    return [[order[i] for i in group] for group in groups]


def _known(stream: str, c: FomoConfig, sets: Sequence[SourceSet], concepts: Sequence[Concept], model: str) -> Known:
    wanted = [concept for concept in concepts if concept.role == "adaptation"]
    base = BaseModel(c.base_model or model, wanted, c.size)

    def counts() -> np.ndarray:
        if c.counts is not None:
            return counts_in_file(Path(c.counts).expanduser(), wanted)
        pool = [concept for concept in concepts if concept.role != "adaptation" and len(concept.train)]
        if not pool:
            raise UserError(
                f"{stream}: ordering={c.ordering} counts names in captions of the pre-training pool, and there is "
                "none: name pretraining=[...], or a file of counts=..."
            )
        return counts_in_pool(wanted, pool)

    return Known(
        keys=[concept.key for concept in wanted],
        set_of={concept.key: concept.source.name for concept in wanted},
        years={each.name: each.year for each in sets if each.role == "adaptation"},
        counts=counts,
        scores=lambda which: base.scores(which or c.score),
        embeddings=base.embeddings,
        clusters=c.tasks or TASKS,
    )
