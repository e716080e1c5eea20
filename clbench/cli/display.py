"""What a run shows on stderr while it lasts: one live line on a terminal, notes only elsewhere.

It is drawn by hand, at most five times a second; the loss is read only then. No thread, no cost per step.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench.engine.reporter import Reporter
from clbench.engine.share import RunShare

if TYPE_CHECKING:
    from rich.console import RenderableType
    from torch import Tensor

    from clbench.engine.session import Session
    from clbench.table import Row

SECONDS_BETWEEN = 0.2
SHORTEST_ESTIMATE = 2.0


class Display(Reporter):
    """Notes on stderr, nothing else. `folder` is the run's once it has begun. Use as a context."""

    def __init__(self) -> None:
        self.folder: Path | None = None

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *exception: object) -> None:
        self.finished()

    def started(self, session: Session) -> None:
        self.folder = session.folder

    def note(self, text: str) -> None:
        sys.stderr.write(f"clbench: {text}\n")
        sys.stderr.flush()


class LiveDisplay(Display):
    """One line: where the run is, loss, score on the sets seen, time left."""

    def __init__(self, title: str) -> None:
        super().__init__()
        from rich.console import Console
        from rich.live import Live

        self._title = title
        self._live = Live(console=Console(stderr=True, highlight=False), auto_refresh=False, transient=True)
        self._shown = 0.0
        self._task = 0
        self._stage = "loading"
        self._step = self._length = 0
        self._loss: float | None = None
        self._score: tuple[str, float, int] | None = None
        self._share = RunShare()
        self._start: tuple[float, float] | None = None

    def __enter__(self) -> Display:
        self._live.start()
        self._draw()
        return self

    def started(self, session: Session) -> None:
        super().started(session)
        self._share = RunShare([len(task.train) for task in session.stream.tasks])
        self._task = max(0, session.resumed_at.task)
        self._share.enter(self._task)
        self._primary = session.objective.primary
        self._start = (time.perf_counter(), self._share.reached)
        self._draw()

    def stage(self, task: int, name: str) -> None:
        if task > self._task:
            self._share.enter(task)
        self._task, self._stage, self._length = max(0, task), name.replace("_", " "), 0
        self._draw_if_due()

    def stepped(self, task: int, step: int, length: int, loss: Tensor | None) -> None:
        now = time.perf_counter()
        if now - self._shown < SECONDS_BETWEEN:
            return
        self._step, self._length = step, length
        self._loss = float(loss) if loss is not None else None
        self._share.step(task, step, length)
        self._draw()

    def evaluated(self, rows: list[Row]) -> None:
        seen = [
            row.value
            for row in rows
            if row.metric == self._primary
            and row.value is not None
            and row.belongs_to is not None
            and row.belongs_to <= self._task
        ]
        if seen:
            self._score = (self._primary, sum(seen) / len(seen), len(seen))
        self._draw_if_due()

    def note(self, text: str) -> None:
        self._live.console.print(f"clbench: {text}", markup=False, soft_wrap=True)

    def finished(self) -> None:
        self._live.stop()

    def _draw_if_due(self) -> None:
        if time.perf_counter() - self._shown >= SECONDS_BETWEEN:
            self._draw()

    def _draw(self) -> None:
        self._shown = time.perf_counter()
        self._live.update(self._line(), refresh=True)

    def _line(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        left = self._seconds_left()
        parts = [f"task {min(self._task + 1, self._share.tasks)}/{self._share.tasks}"]
        parts += [f"{duration(left)} left"] if left is not None else []
        parts.append(f"{self._stage} step {self._step}/{self._length}" if self._length else self._stage)
        if self._loss is not None:
            parts.append(f"loss {self._loss:.3f}")
        if self._score is not None:
            name, value, sets = self._score
            parts.append(f"{name} {value:.3f} ({sets} set{'s' * (sets > 1)} seen)")
        line = Table.grid(padding=(0, 1), expand=False)
        line.add_column(no_wrap=True)
        line.add_column(no_wrap=True)
        line.add_column(no_wrap=True, overflow="ellipsis")
        bar = ProgressBar(total=1.0, completed=self._share.reached, width=12)
        line.add_row(Text(self._title), bar, Text(" · ".join(parts)))
        return line

    def _seconds_left(self) -> float | None:
        if self._start is None:
            return None
        began, share = self._start
        spent, done = time.perf_counter() - began, self._share.reached - share
        if spent < SHORTEST_ESTIMATE or done <= 0:
            return None
        return spent * (1 - self._share.reached) / done


def make_display(title: str, quiet: bool) -> Display:
    """A live line where stderr is a terminal and nobody asked for quiet."""
    stream: Any = sys.stderr
    return Display() if quiet or not stream.isatty() else LiveDisplay(title)


def duration(seconds: float) -> str:
    """`8 s`, `3:05`, `2:10:00`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
