"""When a run is saved, and how it is interrupted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NoReturn

from clbench.engine.checkpoint import Checkpoints
from clbench.engine.cursor import START, Stage
from clbench.engine.saving import restore_state, saved_state
from clbench.errors import Interrupted

if TYPE_CHECKING:
    from clbench.engine.session import Session

TASK_BORDERS = (Stage.INITIAL, Stage.BEGIN_TASK, Stage.EVALUATE, Stage.DONE)
RESTART = "start again from the beginning"
CHECKPOINT_SHARE = 0.02
FIRST_CHECKPOINT_COST = 0.1


class Saver:
    """The checkpoints of a session: at a cadence that costs 2 % of its time, or every so many steps of a phase."""

    def __init__(self, session: Session, every: int | None) -> None:
        self.session = session
        self.every = every
        self.checkpoints = Checkpoints(session.folder / "checkpoint")
        self._cost = FIRST_CHECKPOINT_COST
        self._latest = time.perf_counter()

    def restore(self) -> bool:
        """Put the session back to its newest checkpoint; whether there is one."""
        saved = self.checkpoints.load(self.session.warn)
        if saved is not None:
            restore_state(self.session, *saved)
        return saved is not None

    def start_clock(self) -> None:
        """From here on it counts how long nothing was saved."""
        self._latest = time.perf_counter()

    def save(self) -> None:
        """Write a checkpoint of the session's position."""
        session = self.session
        if not session.ranks.first:
            return
        started = time.perf_counter()
        session.table.sync()
        session.losses.sync()
        self.checkpoints.save(*saved_state(session))
        self._latest = time.perf_counter()
        self._cost = self._latest - started
        session.meters.add("seconds_checkpoints", self._cost)

    def save_if_due(self) -> None:
        """At every position. Raises Interrupted where the user has asked for it."""
        session = self.session
        cursor = session.cursor
        if session.ranks.interrupted(session.interrupted):
            self.stop()
        if cursor == session.resumed_at or not self._may_save():
            return
        if self.every is not None:
            at_step = cursor.stage == Stage.PHASE and cursor.step >= 0
            due = not at_step or cursor.step % self.every == 0
        else:
            since = time.perf_counter() - self._latest
            due = since >= self._cost / CHECKPOINT_SHARE or session.strategy.needs.resume == "task"
        if due:
            self.save()

    def stop(self) -> NoReturn:
        """Leave the run here, saved as far as it can be."""
        session = self.session
        if (session.cursor != session.resumed_at or session.resumed_at == START) and self._may_save():
            self.save()
        way = {"step": "continue", "task": "continue from the last task's end", "none": RESTART}
        raise Interrupted(f"interrupted; {way[session.strategy.needs.resume]} with: clbench resume {session.folder}")

    def _may_save(self) -> bool:
        """Whether the strategy can be taken up again from a checkpoint of this position."""
        resume = self.session.strategy.needs.resume
        return resume == "step" or (resume == "task" and self.session.cursor.stage in TASK_BORDERS)
