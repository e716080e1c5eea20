"""Plain text on stdout: aligned columns, numbers, JSON."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any


def columns(rows: Sequence[Sequence[str]], right: bool = True, indent: str = "  ") -> list[str]:
    """Lines of a table: the first column to the left, the others to the right (or left)."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows), default=0))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if right and i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append((indent + "  ".join(cells)).rstrip())
    return lines


def number(value: Any, digits: int = 4) -> str:
    """`0.9775`, `12`, `-` for nothing."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def size(count: float | None) -> str:
    """Bytes for a reader: `3.2 MB`."""
    if count is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def short(count: float | None) -> str:
    """A large count: `1.2e+09`, or as it is."""
    if count is None:
        return "-"
    return f"{count:.3g}" if abs(count) >= 1e6 else f"{count:,.0f}"


def width() -> int:
    """Columns of the terminal, 120 at most and where there is none."""
    return min(120, shutil.get_terminal_size((120, 40)).columns)


def wrapped(text: str, indent: str = "  ") -> list[str]:
    """Paragraphs filled to the width, blank lines kept."""
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        lines += [*_filled(paragraph, indent, indent), ""]
    return lines[:-1]


def _filled(text: str, first: str, others: str) -> list[str]:
    return textwrap.wrap(text, width(), initial_indent=first, subsequent_indent=others, break_on_hyphens=False)


def reflowed(doc: str, indent: str = "  ") -> list[str]:
    """A docstring's paragraphs filled to the width. Items ("- ", further lines indented) hang; a paragraph that is
    indented as a whole stays as it is."""
    lines: list[str] = []
    for paragraph in doc.strip("\n").split("\n\n"):
        if paragraph.startswith(" "):
            lines += [indent + line for line in paragraph.split("\n")]
        else:
            for piece in _pieces(paragraph):
                hanging = indent + "  " if piece.startswith("- ") else indent
                lines += _filled(piece, indent, hanging)
        lines.append("")
    return lines[:-1]


def _pieces(paragraph: str) -> list[str]:
    """A paragraph's items, and what stands before and after them."""
    pieces: list[str] = []
    for line in paragraph.split("\n"):
        after_item = bool(pieces) and pieces[-1].startswith("- ") and not line.startswith(" ")
        if not pieces or line.startswith("- ") or after_item:
            pieces.append(line)
        else:
            pieces[-1] += f" {line.strip()}"
    return pieces


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def print_lines(lines: Sequence[str]) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
