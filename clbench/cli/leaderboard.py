"""`clbench leaderboard`: the boards of a results folder in one of many formats."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from clbench.board_filter import Filter
from clbench.board_records import board_records, warn_left_out
from clbench.cli.board_text import Shown
from clbench.errors import UserError, did_you_mean
from clbench.files import write_atomically
from clbench.leaderboard import COLUMNS, Board, make_boards

Writer = Callable[[Sequence[Shown], str], str]
FORMATS = ("table", "md", "csv", "json", "latex", "html")
SUFFIXES = {".md": "md", ".csv": "csv", ".json": "json", ".tex": "latex", ".html": "html", ".htm": "html"}


def leaderboard_command(
    stream: str | None,
    metric: str | None,
    format: str,
    out: Path | None,
    results: Path,
    choose: Filter | None = None,
    across: bool = False,
) -> None:
    """Print the boards of all finished runs under `results`, or write them to `out` (whose suffix chooses a format).

    format: one of FORMATS. metric: what ranks the rows; None: the first of a board's columns, which is `average` but of
    streams whose sets have roles. choose: boards and rows to show. across:
    compare strategies over streams instead. Raises UserError for an unknown stream, metric, model or format, or a file
    that cannot be written.
    """
    if format not in FORMATS:
        raise UserError(f"unknown format {format!r}{did_you_mean(format, FORMATS)}")
    if format == "table" and out is not None:
        format = SUFFIXES.get(out.suffix.lower(), format)
    choose = choose or Filter()
    boards = make_boards(board_records(results, stream=stream), metric, stream, warn_left_out, choose)
    if not boards and not across:
        sys.stderr.write(_nothing(stream, results, choose))
    if across:
        from clbench.cli.across import across_text

        text = across_text(boards, metric or COLUMNS[0], format)
    elif format == "html":
        text = _page(boards, metric, choose.describe())
    else:
        shown = [Shown(board, _first(board.columns, metric)) for board in boards]
        text = _writer(format)(shown, choose.describe())
    if out is None:
        sys.stdout.write(text)
        return
    try:
        write_atomically(out, text)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}; choose another --out") from None
    sys.stderr.write(f"{out}\n")


def chosen_rows(only: Sequence[str], budget_class: Sequence[str], chosen_on: str | None, model: str | None) -> Filter:
    """The filter that options ask for. budget_class: limits as `clbench run --budget` takes them, or `none`.

    Raises UserError for unknown names and limits that cannot be read."""
    limits = [text for text in budget_class if text != "none"]
    parsed: dict[str, float] = {}
    if limits:
        from clbench.cli.specify import parse_budget

        try:
            parsed = parse_budget(limits)
        except UserError as error:
            raise UserError(str(error).replace("--budget ", "--budget-class ", 1)) from None
    return Filter(tuple(only), parsed, "none" in budget_class, chosen_on, model)


def _writer(format: str) -> Writer:
    if format == "latex":
        from clbench.cli.board_latex import latex_text

        return latex_text
    from clbench.cli import board_formats

    writers: dict[str, Writer] = {
        "table": board_formats.table_text,
        "md": board_formats.markdown_text,
        "csv": board_formats.csv_text,
        "json": board_formats.json_text,
    }
    return writers[format]


def _first(columns: Sequence[str], metric: str | None) -> list[str]:
    """The columns with what ranks the rows put first."""
    return [metric, *(key for key in columns if key != metric)] if metric else list(columns)


def _page(boards: Sequence[Board], metric: str | None, chosen: str) -> str:
    from clbench.page.build import page

    return page(boards, metric=metric, chosen=chosen)


def _nothing(stream: str | None, results: Path, choose: Filter) -> str:
    where = f" of {stream}" if stream else ""
    chosen = choose.describe()
    if chosen:
        return f"no completed runs{where} in {results} that fit: {chosen}\n"
    return f"no completed runs{where} in {results} yet; make one: clbench run nmc split-digits\n"
