"""The plan of continual evaluation for a session, from its specification alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from clbench.engine.grid import SUBSETS, TRAINING_COST, Plan, plan, subset_size
from clbench.upstream import OWN

if TYPE_CHECKING:
    from clbench.engine.session import Session


def evaluation_plan(session: Session) -> Plan:
    """Thinned by the estimated samples of training: epochs (or steps) of the strategy's settings over each task that
    the run trains itself (an adopted upstream's evaluations are its own)."""
    needs, stream, config = session.strategy.needs, session.stream, session.strategy.config
    setting = session.spec.eval_grid if needs.predicts_between_boundaries else "none"
    batch = getattr(config, "batch_size", None) or 64
    steps, epochs = getattr(config, "steps", None), getattr(config, "epochs", None) or 1
    allowed = session.allowance.steps if session.allowance else [None] * len(stream.tasks)
    tasks = stream.tasks[session.spec.upstream != OWN :] or stream.tasks
    lengths = [allowed[task.index] or steps for task in tasks]
    samples = [float(n * batch if n else len(t.train) * epochs) for t, n in zip(tasks, lengths, strict=True)]
    held_out = sum(s.belongs_to is None for s in stream.eval_sets)
    scored = [
        held_out + sum(s.belongs_to is not None and s.belongs_to <= task.index for s in stream.eval_sets)
        for task in tasks
    ]
    subsets: tuple[int, ...] = SUBSETS
    if session.objective.scores_whole:
        largest = max(subset_size(s) for s in stream.eval_sets)
        subsets = (largest, *(size for size in SUBSETS if size < largest))
    return plan(
        setting,
        samples,
        [math.ceil(n / batch) for n in samples],
        scored,
        max(len(s.data) for s in stream.eval_sets),
        1.0 if needs.gradient_free else TRAINING_COST,
        subsets,
    )
