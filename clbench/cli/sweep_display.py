"""What a sweep shows on stderr while it lasts: a bar and a line for each running job on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clbench.cli.display import duration
from clbench.cli.text import number
from clbench.errors import UserError
from clbench.record import read_record
from clbench.sweeps.job import Ended, Event, Job, Note, Progress, Started
from clbench.sweeps.time_left import TimeLeft

if TYPE_CHECKING:
    from rich.console import RenderableType

SECONDS_BETWEEN = 0.2
MOST_LINES = 16
BAR_WIDTH = 24
SHARE_WIDTH = 8


class SweepDisplay:
    """Lines: notes, and each run as it ends; with `quiet`, notes only. Use as a context.

    done: how many of the sweep's runs were there before.
    """

    def __init__(self, jobs: Sequence[Job], done: int, quiet: bool = False) -> None:
        self.total = len(jobs) + done
        self.done = done
        self.failed = 0
        self._quiet = quiet
        self._labels = {job.number: job.label for job in jobs}

    def __enter__(self) -> SweepDisplay:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to put away."""

    def note(self, text: str) -> None:
        self._line(text)

    def event(self, event: Event) -> None:
        if isinstance(event, Note):
            self.note(event.text)
        elif isinstance(event, Ended) and event.status != "interrupted":
            self.done += event.status == "completed"
            self.failed += event.status != "completed"
            if not self._quiet:
                self._ended(event)

    def _ended(self, event: Ended) -> None:
        self._line(self._ended_text(event))

    def _ended_text(self, event: Ended) -> str:
        score = "" if event.status != "completed" else _score(event)
        what = f"{event.status}{score} in {duration(event.seconds)}"
        error = f": {event.error}" if event.error else ""
        return f"[{self.done + self.failed}/{self.total}] {self._labels[event.job]}: {what}{error}"

    def _line(self, text: str) -> None:
        sys.stderr.write(f"clbench: {text}\n")
        sys.stderr.flush()


class LiveSweepDisplay(SweepDisplay):
    """On a terminal. Drawn at most five times a second; failures and notes scroll by above."""

    def __init__(self, jobs: Sequence[Job], done: int, time_left: TimeLeft) -> None:
        super().__init__(jobs, done)
        from rich.console import Console
        from rich.live import Live

        self._time_left = time_left
        self._running: dict[int, Progress] = {}
        self._shown = 0.0
        self._live = Live(console=Console(stderr=True, highlight=False), auto_refresh=False, transient=True)

    def __enter__(self) -> SweepDisplay:
        self._live.start()
        self._draw()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def event(self, event: Event) -> None:
        super().event(event)
        self._time_left.event(event)
        if isinstance(event, Started):
            self._running[event.job] = Progress(event.job, 0.0, f"starting in {event.where}")
        elif isinstance(event, Progress):
            self._running[event.job] = event
        elif isinstance(event, Ended):
            self._running.pop(event.job, None)
        if time.perf_counter() - self._shown >= SECONDS_BETWEEN or isinstance(event, Ended):
            self._draw()

    def _ended(self, event: Ended) -> None:
        if event.status != "completed":
            self._line(self._ended_text(event))

    def _line(self, text: str) -> None:
        self._live.console.print(f"clbench: {text}", markup=False, soft_wrap=True)

    def _draw(self) -> None:
        self._shown = time.perf_counter()
        self._live.update(self._lines(), refresh=True)

    def _lines(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        shown = list(self._running.values())[: max(1, min(MOST_LINES, self._live.console.height - 4))]
        more = len(self._running) - len(shown)
        left = self._time_left.seconds()
        parts = [f"{self.done}/{self.total} runs"]
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{duration(left)} left"] if left is not None else []
        running = sum(progress.fraction for progress in self._running.values())
        share = (self.done + self.failed + running) / max(1, self.total)
        rows = [_bar(share, BAR_WIDTH, "sweep", " · ".join(parts))]
        rows += [_bar(job.fraction, SHARE_WIDTH, self._labels[job.job], job.doing) for job in shown]
        return Group(*rows, *([Text(f"and {more} more")] if more > 0 else []))


def make_sweep_display(jobs: Sequence[Job], done: int, quiet: bool, time_left: TimeLeft) -> SweepDisplay:
    """A live display where stderr is a terminal and nobody asked for quiet."""
    stream: Any = sys.stderr
    live = not quiet and stream.isatty()
    return LiveSweepDisplay(jobs, done, time_left) if live else SweepDisplay(jobs, done, quiet)


def _bar(share: float, width: int, title: str, text: str) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    line = Table.grid(padding=(0, 1), expand=False)
    line.add_column(no_wrap=True)
    line.add_column(no_wrap=True, overflow="ellipsis")
    line.add_column(no_wrap=True, overflow="ellipsis")
    line.add_row(ProgressBar(total=1.0, completed=min(1.0, share), width=width), Text(title), Text(text))
    return line


def _score(event: Ended) -> str:
    """`, average 0.853`, where the run has it."""
    try:
        value = read_record(event.folder)["metrics"].get("average") if event.folder else None
    except (UserError, KeyError, AttributeError):
        return ""
    return "" if value is None else f", average {number(value, 3)},"
