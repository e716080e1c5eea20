"""Choosing what boards show: by what strategies declare, what they cost, what chose their settings, and the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clbench.board_terms import CHOSEN
from clbench.budgets import is_multiple, limit_text
from clbench.errors import UserError, did_you_mean
from clbench.leaderboard import Board, Row, metric_value

# name -> (declared need, the value it must have, what such a strategy does)
ONLY: dict[str, tuple[str, bool, str]] = {
    "exemplar-free": ("stores_samples", False, "stores no samples"),
    "no-stored-features": ("stores_features", False, "stores no features"),
    "no-task-boundaries": ("task_boundaries", False, "is not told when tasks begin and end"),
    "no-task-id": ("task_id_at_test", False, "is not given the task at test"),
    "no-oracle": ("sees_all_data", False, "does not see the data of all tasks"),
    "no-horizon": ("knows_horizon", False, "does not know how many tasks there are"),
    "gradient-free": ("gradient_free", True, "trains without gradients"),
    "any-time": ("predicts_between_boundaries", True, "predicts at any time, not only when a task has ended"),
}
COST_OF = {
    "flops": "flops_train",
    "maf": "maf_train",
    "seconds": "seconds_train",
    "steps": "steps",
    "memory": "stored_bytes",
}


@dataclass(frozen=True)
class Filter:
    """Which boards and rows to keep; without arguments: all.

    only: names from ONLY, all of which must hold. limits: the budget class, upper limits (flops, seconds, steps of
    training, maf; memory: bytes stored) that every run of a row must have kept, whether it had to or not; of a multiple
    of full fine-tuning, the boards of runs that were given it. unlimited: only boards without a budget. Raises
    UserError for unknown names.
    """

    only: Sequence[str] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    unlimited: bool = False
    chosen_on: str | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        for name in self.only:
            if name not in ONLY:
                raise UserError(f"--only: unknown need {name!r}{did_you_mean(name, ONLY)}")
        if self.chosen_on is not None and self.chosen_on not in CHOSEN:
            raise UserError(f"--chosen-on: unknown choice {self.chosen_on!r}{did_you_mean(self.chosen_on, CHOSEN)}")
        for name in self.limits:
            if name not in COST_OF:
                raise UserError(f"--budget-class: unknown limit {name!r}{did_you_mean(name, COST_OF)}")

    def boards(self, boards: Sequence[Board]) -> list[Board]:
        """The boards with the rows that are kept, and how many are hidden; boards without any are dropped.

        Raises UserError for a model that no board has.
        """
        models = {board.model for board in boards}
        if self.model is not None and models and self.model not in models:
            raise UserError(f"--model: no finished runs with model {self.model!r}{did_you_mean(self.model, models)}")
        kept = []
        for board in boards:
            if (self.model is not None and board.model != self.model) or (self.unlimited and board.budget):
                continue
            if any(is_multiple(name, limit) and board.budget.get(name) != limit for name, limit in self.limits.items()):
                continue
            rows = [row for row in board.rows if self.keeps(row)]
            board.hidden += len(board.rows) - len(rows)
            board.rows = rows
            kept.append(board)
        return [board for board in kept if board.rows]

    def keeps(self, row: Row) -> bool:
        """Whether a row is shown."""
        if self.chosen_on is not None and row.chosen_on != self.chosen_on:
            return False
        if any(row.needs.get(ONLY[name][0]) is not ONLY[name][1] for name in self.only):
            return False
        amounts = {name: limit for name, limit in self.limits.items() if not is_multiple(name, limit)}
        return all(_within(row, COST_OF[name], limit) for name, limit in amounts.items())

    def describe(self) -> str:
        """What is chosen, in a few words; empty where everything is."""
        parts = [*self.only]
        if self.limits:
            limits = sorted(self.limits.items())
            amounts = [f"{name} {limit:g}" for name, limit in limits if not is_multiple(name, limit)]
            parts += ["at most " + ", ".join(amounts)] if amounts else []
            parts += [f"{name} {limit_text(name, limit)}" for name, limit in limits if is_multiple(name, limit)]
        if self.unlimited:
            parts.append("no budget set")
        if self.chosen_on is not None:
            parts.append(f"settings chosen on {self.chosen_on}")
        if self.model is not None:
            parts.append(f"model {self.model}")
        return "; ".join(parts)


def _within(row: Row, cost: str, limit: float) -> bool:
    """Whether every run is known to have kept the limit."""
    values = [metric_value(record, cost) for _, record in row.runs]
    return bool(values) and all(value is not None and value <= limit for value in values)
