"""Where a run stands: the unit of resuming."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal


class Stage(IntEnum):
    """The stages of a task, in order. INITIAL stands before the first task."""

    INITIAL = 0
    BEGIN_TASK = 1
    PHASE = 2
    END_TASK = 3
    EVALUATE = 4
    DONE = 5


@dataclass(frozen=True, order=True)
class Cursor:
    """What is to be done next. Positions compare in the order in which they are reached.

    line: 1 on the second line of a task that forks, else 0. phase and step count within Stage.PHASE; step -1 is the
    phase's `begin`.
    """

    task: int
    line: int = field(default=0, kw_only=True)
    stage: Stage
    phase: int = 0
    step: int = 0

    def as_json(self) -> list[int]:
        """For a checkpoint; the line comes last, as the field that was added last."""
        return [self.task, int(self.stage), self.phase, self.step, self.line]

    @staticmethod
    def from_json(saved: list[int]) -> Cursor:
        """What `as_json` gave; checkpoints without a line are of tasks that do not fork."""
        task, stage, phase, step, *line = saved
        return Cursor(task, Stage(stage), phase, step, line=line[0] if line else 0)


START = Cursor(-1, Stage.INITIAL)

View = Literal["whole", "trunk", "branch"]


@dataclass(frozen=True)
class Line:
    """A way to a task's end. Most tasks have one; one that forks has two, the one that is left again first.

    view: what of the task it is: all of it, or from the fork on the trunk's end or the branch. kept: whether training
    goes on from its end.
    """

    task: int
    number: int = 0
    view: View = "whole"
    kept: bool = True

    def at(self, stage: Stage, phase: int = 0, step: int = 0) -> Cursor:
        """A position on this line."""
        return Cursor(self.task, stage, phase, step, line=self.number)

    def as_json(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"task": self.task, "number": self.number, "view": self.view, "kept": self.kept}
