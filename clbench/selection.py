"""What a user means by RUN on a command line: a run, or a row of a board as STRATEGY@STREAM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

from clbench.board_records import board_records, warn_left_out
from clbench.errors import UserError, did_you_mean
from clbench.leaderboard import Board, Row, make_boards, plain
from clbench.runs import RESULTS, find_run

ROW = "@"
OWN = ("seed", "order_seed", "threads", "device", "data_root")  # these differ within a row
MOST_VALUES = 6


def select_runs(texts: list[str], out: Path = RESULTS, warn: Callable[[str], None] = warn_left_out) -> list[Path]:
    """Folders, each once: of runs (as `find_run` takes them), and of all runs in rows named STRATEGY@STREAM (see
    `select_rows`). Records that are left out are told to `warn`, each once.

    Raises UserError where one names nothing.
    """
    found: dict[Path, None] = {}
    told: set[str] = set()

    def once(line: str) -> None:
        if line not in told:
            told.add(line)
            warn(line)

    for text in texts:
        rows = select_rows(text, out, once) if names_a_row(text) else []
        folders = [folder for row in rows for folder, _ in row.runs]
        found.update(dict.fromkeys(folders or [find_run(text, out)]))
    return list(found)


def names_a_row(text: str) -> bool:
    """Whether a text is STRATEGY@STREAM and no path."""
    return ROW in text and not Path(text).expanduser().exists()


def select_rows(text: str, out: Path = RESULTS, warn: Callable[[str], None] = warn_left_out) -> list[Row]:
    """The rows STRATEGY@STREAM of every board of the stream: several where settings, models or budgets differ.

    STRATEGY@STREAM,KEY=VALUE,... leaves those with other values out; KEY is a setting of the strategy or the stream, or
    a key of the specification. Records that are left out are told to `warn`. Raises UserError where there is no row.
    """
    strategy, _, rest = text.partition(ROW)
    stream, *conditions = rest.split(",")
    if not strategy or not stream:
        raise UserError(f"{text!r} names no row: write STRATEGY@STREAM")
    boards = board_rows(stream, out, warn)
    rows = [row for board in boards for row in board.rows if row.strategy == strategy]
    if not rows:
        names = {row.strategy for board in boards for row in board.rows}
        raise UserError(f"no completed runs of {strategy!r} on {stream}{did_you_mean(strategy, names)}")
    for condition in conditions:
        rows = _having(rows, condition, text)
    return rows


def _having(rows: list[Row], condition: str, text: str) -> list[Row]:
    """The rows whose newest run has the setting. Raises UserError for a key or a value that none of them has."""
    key, equals, value = (part.strip() for part in condition.partition("="))
    if not key or not equals:
        raise UserError(f"{text!r}: write a condition as KEY=VALUE, not {condition!r}")
    known = [_settings(row) for row in rows]
    keys = {name for settings in known for name in settings}
    if key not in keys:
        raise UserError(f"{text!r}: these runs have no setting {key!r}{did_you_mean(key, keys)}")
    kept = [row for row, settings in zip(rows, known, strict=True) if settings.get(key) == value]
    if not kept:
        values = sorted({settings[key] for settings in known if key in settings})
        raise UserError(f"{text!r}: no runs with {key}={value}; there are {', '.join(values[:MOST_VALUES])}")
    return kept


def _settings(row: Row) -> dict[str, str]:
    """What the runs of a row have in common, as text."""
    record = row.runs[0][1]
    spec = record["spec"]
    shared = {key: value for key, value in spec.items() if key not in OWN and not isinstance(value, dict)}
    return {
        key: plain(value)
        for key, value in {**shared, **spec["stream_settings"], **spec["strategy_settings"], **row.all_settings}.items()
    }


def board_rows(stream: str | None, out: Path = RESULTS, warn: Callable[[str], None] = warn_left_out) -> list[Board]:
    """Boards of a stream, or all, with the rows that have completed runs; records that are left out are told to `warn`.

    Raises UserError where there are no completed runs."""
    boards = make_boards(board_records(out, warn, stream), stream=stream, warn=warn)
    for board in boards:
        board.rows = [row for row in board.rows if row.runs]
    boards = [board for board in boards if board.rows]
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
