"""A progress bar on stderr, shown only on a terminal and only for long work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LONG = 5_000  # rows


@contextmanager
def progress(label: str, total: int | None, *, unit: str = "rows") -> Iterator[Callable[[int], None]]:
    """Yields `advance(n)`. `unit` is `rows` (a bar from LONG rows on) or `bytes` (always a bar)."""
    if not sys.stderr.isatty() or (unit == "rows" and (total or 0) < LONG):
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    amount = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda n: bar.advance(task, n)
