"""What a run tells while it lasts. The default says nothing; the command line has one with a live display."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from clbench.engine.session import Session
    from clbench.table import Row


class Reporter:
    """Called by the engine; must be quick and never raise."""

    def started(self, session: Session) -> None:
        """Built, or restored from a checkpoint; nothing has been run in this sitting."""

    def stage(self, task: int, name: str) -> None:
        """A stage of a task begins: begin_task, a phase's name, end_task, evaluate."""

    def stepped(self, task: int, step: int, length: int, loss: Tensor | None) -> None:
        """A step of a phase with `length` steps is done. Reading `loss` synchronises a GPU."""

    def evaluated(self, rows: list[Row]) -> None:
        """Rows were added to the table."""

    def note(self, text: str) -> None:
        """One line the user should see."""

    def finished(self) -> None:
        """The sitting ends, for whatever reason."""
