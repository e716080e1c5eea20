"""Where a run stands: the unit of resuming."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Stage(IntEnum):
    """The stages of a task, in order. INITIAL stands before the first task."""

    INITIAL = 0
    BEGIN_TASK = 1
    PHASE = 2
    END_TASK = 3
    EVALUATE = 4
    DONE = 5


class Cursor(NamedTuple):
    """What is to be done next. Positions compare in the order in which they are reached.

    phase and step count within Stage.PHASE; step -1 is the phase's `begin`.
    """

    task: int
    stage: Stage
    phase: int = 0
    step: int = 0


START = Cursor(-1, Stage.INITIAL)
