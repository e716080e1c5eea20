"""Whether a model knows enough, before any training, for its forgetting to mean something."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clbench.stream import EvalSet
from clbench.table import Row

LEAST = 1.5
"""Times chance, or half of the way from chance to 1 where that is less."""


def invalid_base(rows: Iterable[Row], sets: Sequence[EvalSet], metric: str) -> dict[str, float] | None:
    """Mean score and mean chance of the held-out sets before training, where the score is too low; None where it is
    not, where a stream has no such sets, and where smaller scores are better. metric: the primary one."""
    held_out = {s.name for s in sets if s.role == "held-out"}
    found = [
        (row.value, row.base)
        for row in rows
        if (row.tasks_seen, row.kind, row.weights, row.metric) == (0, "boundary", "deploy", metric)
        and row.eval_set in held_out
        and row.value is not None
        and row.base is not None
    ]
    if not found:
        return None
    score, chance = (sum(column) / len(found) for column in zip(*found, strict=True))
    return {"score": score, "chance": chance} if score < min(LEAST * chance, (1 + chance) / 2) else None


def told(found: dict[str, float]) -> str:
    """The warning, one line."""
    return (
        f"the model scores {found['score']:.3f} on the held-out sets before training, where chance is "
        f"{found['chance']:.3f}: there is nothing to retain, and the run is marked invalid_base"
    )
