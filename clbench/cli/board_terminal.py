"""A leaderboard as wide as the terminal: columns that have no room are left out and named."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from clbench.cli.board_text import Shown, about, cells, header, notes, title

if TYPE_CHECKING:
    from rich.table import Table

NAME = 24  # characters that a line of a strategy's name and settings has at least, if it needs them
GAP = 2  # characters between columns
NARROWEST = 60  # narrower terminals break the lines themselves


def terminal_text(boards: Sequence[Shown], chosen: str, width: int | None = None) -> str:
    """Tables with colours. width: characters to a line; None: the terminal's."""
    from rich.console import Console

    text = io.StringIO()
    width = max(width or Console().width, NARROWEST)
    console = Console(file=text, width=width, force_terminal=True, highlight=False, markup=False)
    for shown in boards:
        table, left_out = _fitting(shown, width)
        console.print(title(shown.board), style="bold")
        console.print(about(shown.board))
        console.print(table)
        if left_out:
            where = "a wider window, --format md or --out FILE"
            console.print(f"no room for {', '.join(left_out)}: {where} shows all columns", style="dim")
        for note in notes(shown, chosen):
            console.print(note, style="dim")
        console.print()
    return text.getvalue()


def _fitting(shown: Shown, width: int) -> tuple[Table, list[str]]:
    """The table with the columns there is room for, and the names of those that are left out."""
    from rich.cells import cell_len

    lines = [header(shown), *(cells(shown, i) for i in range(len(shown.board.rows)))]
    widths = {column[0]: max(map(cell_len, column)) for column in zip(*lines, strict=True)}
    name = widths["strategy"]
    widths["strategy"] = min(NAME, name)
    left_out = []
    for column in _least_important_first(shown):
        if _room(widths, width) >= 0:
            break
        del widths[column]
        left_out.append(column)
    widths["strategy"] = min(name, NAME + max(0, _room(widths, width)))
    kept = [i for i, column in enumerate(lines[0]) if column in widths]
    return _table(list(widths.values()), [[line[i] for i in kept] for line in lines]), left_out


def _least_important_first(shown: Shown) -> list[str]:
    """Columns that may be left out; rank, strategy, the metric that ranks, and the number of runs always stay."""
    second, rest = shown.filled[1:3], shown.filled[3:]
    return ["FLOPs", "stored", *reversed(rest), "train s", "verified", "chosen on", *reversed(second), "needs"]


def _room(widths: Mapping[str, int], width: int) -> int:
    """Characters that are left in a line, below 0 where some are wanting."""
    return width - sum(widths.values()) - GAP * len(widths)


def _table(widths: Sequence[int], lines: Sequence[Sequence[str]]) -> Table:
    """Only names are broken into several lines."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for i, (column, width) in enumerate(zip(lines[0], widths, strict=True)):
        table.add_column(column, justify="left" if i == 1 else "right", width=width, overflow="fold")
    for line in lines[1:]:
        table.add_row(*line)
    return table
