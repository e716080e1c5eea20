"""`clbench leaderboard`: what is printed, as a table, Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench.errors import UserError, did_you_mean
from clbench.files import write_atomically
from clbench.leaderboard import COLUMNS, COSTS, TRUE_NEEDS, Board, Row, Value, make_boards, metric_keys
from clbench.metrics.definitions import COUNT, DEFINITIONS, base_key
from clbench.runs import iter_records

if TYPE_CHECKING:
    from rich.table import Table

SUFFIXES = {".md": "md", ".csv": "csv", ".json": "json"}
FILE_WIDTH = 200
MARKS = {
    "task_boundaries": ("B", "is told when tasks begin and end"),
    "task_id_at_test": ("T", "is given the task at test"),
    "stores_samples": ("S", "stores samples"),
    "stores_features": ("F", "stores features"),
    "sees_all_data": ("A", "sees the data of all tasks (an upper bound, not a competitor)"),
    "knows_horizon": ("H", "knows how many tasks there are"),
}
CHOSEN = {"nothing": "published", "validation": "validation", "test": "test data"}
INTERVAL = "± half of a 95 % interval over n runs: Student's t, from five runs on the bootstrap; one run has none"


def leaderboard_command(stream: str | None, metric: str | None, format: str, out: Path | None, results: Path) -> None:
    """Print the boards of all finished runs under `results`, or write them to `out` (whose suffix chooses a format).

    format: table, md, csv or json. metric: what ranks the rows; None: `average`. Raises UserError for an unknown
    stream, metric or format, or a file that cannot be written.
    """
    writers = {"table": _tables, "md": _markdown, "csv": _csv, "json": _json}
    if format not in writers:
        raise UserError(f"unknown format {format!r}{did_you_mean(format, writers)}")
    if format == "table" and out is not None:
        format = SUFFIXES.get(out.suffix.lower(), format)
    metric = metric or COLUMNS[0]
    boards = make_boards(iter_records(results), metric, stream, warn=_warn)
    if not boards:
        where = f" of {stream}" if stream else ""
        sys.stderr.write(f"no completed runs{where} in {results} yet; make one: clbench run nmc split-digits\n")
    columns = [metric, *(key for key in COLUMNS if key != metric)]
    text = writers[format](boards, columns)
    if out is None:
        sys.stdout.write(text)
        return
    try:
        write_atomically(out, text)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}; choose another --out") from None
    sys.stderr.write(f"{out}\n")


def row_object(board: Board, row: Row) -> dict[str, Any]:
    """A row for JSON: the board it stands on, every metric and cost with its interval, and the runs behind it."""
    keys = metric_keys(record for _, record in row.runs)
    costs = sorted({key for _, record in row.runs for key in record["cost"]})
    return {
        **board.as_dict(),
        "strategy": row.strategy,
        "summary": row.summary,
        "settings": row.settings,
        "needs": row.needs,
        "chosen_on": row.chosen_on,
        "n": len(row.runs),
        "diverged": row.diverged,
        "other_source_left_out": row.other_source,
        "metrics": {key: row.value(key).as_dict() for key in keys},
        "cost": {key: row.value(key).as_dict() for key in costs},
        "runs": [str(folder) for folder, _ in row.runs],
    }


def _json(boards: Sequence[Board], columns: Sequence[str]) -> str:
    rows = [row_object(board, row) for board in boards for row in board.rows]
    return json.dumps(rows, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _csv(boards: Sequence[Board], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = list(dict.fromkeys([*columns, *COSTS]))
    about = ("stream", "content", "scenario", "model", "head", "tune", "budget", "strategy", "settings")
    parts = ("mean", "low", "high", "n")
    writer.writerow([*about, "needs", "chosen_on", "n", "diverged", *(f"{key}_{p}" for key in keys for p in parts)])
    for board in boards:
        for row in board.rows:
            what = [board.stream, board.content, board.scenario, board.model, board.head, board.tune]
            values = [row.value(key).as_dict() for key in keys]
            writer.writerow(
                [
                    *what,
                    json.dumps(board.budget) if board.budget else "",
                    row.strategy,
                    _settings(row),
                    " ".join(name for name in TRUE_NEEDS if row.needs.get(name)),
                    row.chosen_on,
                    len(row.runs),
                    row.diverged,
                    *("" if value[p] is None else value[p] for value in values for p in parts),
                ]
            )
    return text.getvalue()


def _markdown(boards: Sequence[Board], columns: Sequence[str]) -> str:
    lines: list[str] = []
    for board in boards:
        shown = _shown(board, columns)
        head = _header(board, shown)
        lines += [f"## {_title(board)}", "", _about(board), ""]
        lines += ["| " + " | ".join(head) + " |", "|" + "|".join([" --- "] * 2 + [" ---: "] * (len(head) - 2)) + "|"]
        for rank, row in enumerate(board.rows, 1):
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(rank, row, shown)) + " |")
        lines += ["", *(f"- {note}" for note in _notes(board)), ""]
    return "\n".join(lines)


def _tables(boards: Sequence[Board], columns: Sequence[str]) -> str:
    from rich.console import Console

    text = io.StringIO()
    terminal = sys.stdout.isatty()
    width = Console().width if terminal else FILE_WIDTH
    console = Console(file=text, width=width, force_terminal=terminal, highlight=False, markup=False)
    for board in boards:
        shown = _shown(board, columns)
        console.print(_title(board), style="bold")
        console.print(_about(board), soft_wrap=True)
        console.print(_rich_table(board, shown))
        for note in _notes(board):
            console.print(note, style="dim", soft_wrap=True)
        console.print()
    return text.getvalue()


def _rich_table(board: Board, shown: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(_header(board, shown)):
        table.add_column(name, justify="left" if i == 1 else "right", overflow="fold", no_wrap=i != 1, min_width=1)
    for rank, row in enumerate(board.rows, 1):
        table.add_row(*_cells(rank, row, shown))
    return table


def _shown(board: Board, columns: Sequence[str]) -> list[str]:
    """The chosen metric, and those of the others that a row has a value of."""
    return [key for i, key in enumerate(columns) if i == 0 or any(row.value(key).estimate for row in board.rows)]


def _header(board: Board, shown: Sequence[str]) -> list[str]:
    return ["#", "strategy", *shown, "needs", "train s", "stored", "FLOPs", "n", "chosen on"]


def _cells(rank: int, row: Row, shown: Sequence[str]) -> list[str]:
    marks = "".join(MARKS[name][0] for name in TRUE_NEEDS if row.needs.get(name)) or "-"
    runs = f"{len(row.runs)}" + (f" (+{row.diverged} diverged)" if row.diverged else "")
    seconds, stored, flops = (row.value(key).estimate for key in COSTS)
    return [
        str(rank),
        row.strategy + (f" ({_settings(row)})" if row.settings else ""),
        *(_cell(row.value(key), key, len(row.runs)) for key in shown),
        marks,
        "-" if seconds is None else f"{seconds.mean:.1f}",
        "-" if stored is None else _short(stored.mean, "B"),
        "-" if flops is None else _short(flops.mean, ""),
        runs,
        CHOSEN[row.chosen_on],
    ]


def _cell(value: Value, key: str, runs: int) -> str:
    estimate = value.estimate
    if estimate is None:
        return "-"
    definition = DEFINITIONS.get(base_key(key))
    counted = definition is not None and definition.sign == COUNT
    digits = 1 if counted or abs(estimate.mean) >= 100 else 4
    text = f"{estimate.mean:.{digits}f}"
    if estimate.half_width is not None:
        text += f" ± {estimate.half_width:.{digits}f}"
    return text + (f" [{estimate.n} of {runs}]" if value.left_out else "")


def _settings(row: Row) -> str:
    return row.label[len(row.strategy) + 1 :]


def _short(number: float, unit: str) -> str:
    """A large number with a metric prefix: 1.6 G."""
    prefixes = ["", "k", "M", "G", "T", "P", "E"]
    while abs(number) >= 1000 and len(prefixes) > 1:
        number /= 1000
        del prefixes[0]
    return f"{number:.3g} {prefixes[0]}{unit}".rstrip()


def _title(board: Board) -> str:
    return f"{board.stream} (data {board.content[:8]})" + (f": {board.notes}" if board.notes else "")


def _about(board: Board) -> str:
    """What is equal for all rows of the board."""
    weights = f", weights {board.weights[:8]}" if board.weights else ""
    measure = f"scores are {board.primary}: higher is better"
    if board.direction == "lower":
        measure = f"scores are -{board.primary}: closer to 0 is better"
    parts = [f"{board.objective}, {board.scenario}-incremental", f"model {board.model}{weights}"]
    parts += [f"{board.head} head", f"tuned: {board.tune}", measure]
    if board.budget:
        parts.append("budget " + ", ".join(f"{key} {limit:g}" for key, limit in sorted(board.budget.items())))
    if board.chosen_on_test:
        parts.append("hyper-parameters CHOSEN ON TEST DATA: not comparable with other boards")
    return "; ".join(parts)


def _notes(board: Board) -> list[str]:
    used = [name for name in TRUE_NEEDS if any(row.needs.get(name) for row in board.rows)]
    notes = ["needs: " + "; ".join(f"{MARKS[name][0]} {MARKS[name][1]}" for name in used)] if used else []
    if any(len(row.runs) > 1 for row in board.rows):
        notes.append(INTERVAL)
    for row in board.rows:
        if row.other_source:
            notes.append(
                f"{row.label}: {row.other_source} runs made with another source of it than the newest are left out"
            )
    return notes


def _warn(text: str) -> None:
    sys.stderr.write(f"clbench: left out: {text}\n")
