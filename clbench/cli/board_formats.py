"""A leaderboard as a table, Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from typing import Any

from clbench.board_terms import NEEDS, uses
from clbench.cli.board_text import Shown, about, cells, clean, header, name, notes, settings, title
from clbench.leaderboard import COSTS, metric_keys

ALL_PAIRS = 40  # rows; on larger boards JSON holds the differences to the best row only
FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # the last four are full-width forms
_MARKDOWN = {**{c: f"\\{c}" for c in "\\`*[]|"}, "<": "&lt;", ">": "&gt;", "&": "&amp;"}


def table_text(boards: Sequence[Shown], chosen: str) -> str:
    """For a terminal, or a text file."""
    if not sys.stdout.isatty():
        return "".join(_plain_table(shown, chosen) for shown in boards)
    from clbench.cli.board_terminal import terminal_text

    return terminal_text(boards, chosen)


def markdown_text(boards: Sequence[Shown], chosen: str) -> str:
    """GitHub's Markdown."""
    lines: list[str] = []
    for shown in boards:
        head = header(shown)
        lines += [f"## {_plain_markdown(title(shown.board))}", "", _plain_markdown(about(shown.board)), ""]
        lines += ["| " + " | ".join(head) + " |", "|" + "|".join([" --- "] * 2 + [" ---: "] * (len(head) - 2)) + "|"]
        for i in range(len(shown.board.rows)):
            lines.append("| " + " | ".join(_plain_markdown(text) for text in cells(shown, i)) + " |")
        lines += ["", *(f"- {_plain_markdown(note)}" for note in notes(shown, chosen)), ""]
    return "\n".join(lines)


def csv_text(boards: Sequence[Shown], chosen: str) -> str:
    """One line a row. Text that a spreadsheet would take for a formula gets an apostrophe before it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = list(dict.fromkeys([*(key for shown in boards for key in shown.columns), *COSTS]))
    parts = ("mean", "low", "high", "n")
    compared = ("mean", "low", "high", "n", "p", "p_holm")
    writer.writerow(
        [
            *("stream", "content", "scenario", "model", "head", "tune", "budget", "strategy", "settings", "needs"),
            *("chosen_on", "n", "diverged", "verified", "refuted", "imported", "ranked_by", "rank_first", "rank_last"),
            *(f"difference_to_best_{part}" for part in compared),
            *(f"{key}_{part}" for key in keys for part in parts),
        ]
    )
    for shown in boards:
        board = shown.board
        for i, row in enumerate(board.rows):
            placing, best = shown.ranking.placings[i], shown.ranking.best
            difference = shown.ranking.difference(i, best) if best not in (None, i) and placing else None
            found = difference.as_dict() if difference else {}
            values = [row.value(key).as_dict() for key in keys]
            line: list[Any] = [board.stream, board.content, board.scenario, board.model, board.head, board.tune]
            line += [json.dumps(board.budget) if board.budget else "", row.strategy, settings(row)]
            line += [" ".join(need for need in NEEDS if uses(row.needs, need)), row.chosen_on]
            line += [len(row.runs), row.diverged, row.verified, row.refuted, row.imported, shown.metric]
            line += [placing.first, placing.last] if placing else [None, None]
            line += [*(found.get(part) for part in compared), *(value[part] for value in values for part in parts)]
            writer.writerow([safe_cell(value) for value in line])
    return text.getvalue()


def json_text(boards: Sequence[Shown], chosen: str) -> str:
    """An array of rows, each with the board it stands on."""
    rows = [row_object(shown, i) for shown in boards for i in range(len(shown.board.rows))]
    lines = [json.dumps(row, allow_nan=False, ensure_ascii=False) for row in rows]  # indented it takes 10 times as long
    return "[" + ",\n".join(lines) + "]\n"


def row_object(shown: Shown, i: int) -> dict[str, Any]:
    """Row i for JSON: its board, its ranks, every metric and cost with its interval, and the runs behind it.

    differences: this row minus each row below it, so that every pair of a board stands there once; on boards of more
    than ALL_PAIRS rows this row minus the best one.
    """
    board, ranking = shown.board, shown.ranking
    row, placing = board.rows[i], ranking.placings[i]
    keys = metric_keys(record for _, record in row.runs)
    costs = sorted({key for _, record in row.runs for key in record["cost"]})
    others = range(i + 1, len(board.rows))
    if len(board.rows) > ALL_PAIRS:
        others = range(0, min(i, 1))
    ranks = {"first": placing.first, "last": placing.last, "label": placing.label} if placing else None
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
        "verified": row.verified,
        "refuted": row.refuted,
        "imported": row.imported,
        "ranked_by": shown.metric,
        "rank": ranks,
        "differences": [{"to": name(board.rows[j]), **ranking.describe(i, j)} for j in others],
        "metrics": {key: row.value(key).as_dict() for key in keys},
        "cost": {key: row.value(key).as_dict() for key in costs},
        "runs": [str(folder) for folder, _ in row.runs],
    }


def _plain_table(shown: Shown, chosen: str) -> str:
    """Lines as wide as they need to be."""
    from clbench.cli.text import columns

    rows = [header(shown), *(cells(shown, i) for i in range(len(shown.board.rows)))]
    width = max(len(line[1]) for line in rows)
    padded = [[line[0], line[1].ljust(width), *line[2:]] for line in rows]
    lines = [title(shown.board), about(shown.board), "", *columns(padded, indent=""), "", *notes(shown, chosen)]
    return "\n".join(lines) + "\n\n"


def _plain_markdown(text: str) -> str:
    return "".join(_MARKDOWN.get(c, c) for c in text)


def safe_cell(value: Any) -> Any:
    """A value for CSV. Spreadsheets run text that begins with a formula's signs (OWASP, CSV injection)."""
    if isinstance(value, str):
        text = clean(value)
        return f"'{text}" if text.lstrip()[:1] in FORMULA else text
    return "" if value is None else value
