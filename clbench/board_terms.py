"""What every format of a board calls the needs that strategies declare, and what chose their settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Need(NamedTuple):
    """mark: its letter in narrow columns. meaning: what a strategy with this need does, from its verb on."""

    name: str
    mark: str
    meaning: str


# keys are fields of `clbench.strategy.Needs` that say what a strategy uses beyond the batches it is given
NEEDS = {
    "task_boundaries": Need("task boundaries", "B", "is told when tasks begin and end"),
    "task_id_at_test": Need("task id at test", "T", "is given the task at test"),
    "stores_samples": Need("stored samples", "S", "stores samples"),
    "stores_features": Need("stored features", "F", "stores features"),
    "sees_all_data": Need("all data", "A", "sees the data of all tasks (an upper bound, not a competitor)"),
    "knows_horizon": Need("number of tasks", "H", "knows how many tasks there are"),
    "resume": Need("restarts", "R", "starts its task, or the whole run, again after an interruption"),
}


def uses(needs: Mapping[str, Any], key: str) -> bool:
    """Whether a strategy with these declared needs has the need of this key."""
    return needs.get(key) not in (None, False, "step")


CHOSEN = {"nothing": "no data", "validation": "validation", "test": "test data"}
"""What chose a run's settings (`chosen_on` of a specification), and its name on boards."""
