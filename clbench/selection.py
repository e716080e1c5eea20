"""What a user means by RUN on a command line: a run, or a row of a board as STRATEGY@STREAM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

from clbench.board_records import board_records, warn_left_out
from clbench.errors import UserError, did_you_mean
from clbench.leaderboard import Board, Row, make_boards
from clbench.runs import RESULTS, find_run

ROW = "@"


def select_runs(texts: list[str], out: Path = RESULTS) -> list[Path]:
    """Folders, each once: of runs (as `find_run` takes them), and of all runs in rows named STRATEGY@STREAM.

    Raises UserError where one names nothing.
    """
    found: dict[Path, None] = {}
    for text in texts:
        folders = [folder for row in select_rows(text, out) for folder, _ in row.runs] if names_a_row(text) else []
        found.update(dict.fromkeys(folders or [find_run(text, out)]))
    return list(found)


def names_a_row(text: str) -> bool:
    """Whether a text is STRATEGY@STREAM and no path."""
    return ROW in text and not Path(text).expanduser().exists()


def select_rows(text: str, out: Path = RESULTS) -> list[Row]:
    """The rows STRATEGY@STREAM of every board of the stream: several where settings, models or budgets differ.

    Raises UserError where there is none.
    """
    strategy, _, stream = text.partition(ROW)
    if not strategy or not stream:
        raise UserError(f"{text!r} names no row: write STRATEGY@STREAM")
    boards = board_rows(stream, out)
    rows = [row for board in boards for row in board.rows if row.strategy == strategy]
    if not rows:
        names = {row.strategy for board in boards for row in board.rows}
        raise UserError(f"no completed runs of {strategy!r} on {stream}{did_you_mean(strategy, names)}")
    return rows


def board_rows(stream: str | None, out: Path = RESULTS, warn: Callable[[str], None] = warn_left_out) -> list[Board]:
    """Boards of a stream, or all; records that are left out are told to `warn`. Raises UserError where there are no
    completed runs."""
    boards = make_boards(board_records(out, warn, stream), stream=stream, warn=warn)
    if not boards:
        raise UserError(f"no completed runs{f' on {stream!r}' if stream else ''} in {out / 'runs'}")
    return boards


def sample_runs(rows: list[Row], count: int | None, seed: int = 0) -> list[Path]:
    """Folders of `count` runs drawn at random, at least one of every row; all runs where count is None. Equal seeds
    and rows give equal samples."""
    if count is None:
        return [folder for row in rows for folder, _ in row.runs]
    random = Random(seed)
    drawn = [random.choice(row.runs)[0] for row in rows]
    others = [folder for row in rows for folder, _ in row.runs if folder not in set(drawn)]
    chosen = {*drawn, *random.sample(others, min(len(others), max(0, count - len(drawn))))}
    return [folder for row in rows for folder, _ in row.runs if folder in chosen]
