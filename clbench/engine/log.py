"""The table while a run lasts: an append-only file beside the rows in memory."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from clbench.table import EvaluationTable, Row


class TableLog:
    """Rows in memory and, one JSON line each, on disk. `mark` is (rows, bytes): what a checkpoint remembers.

    kept: whether this process writes the file; another one only reads it, up to a mark.
    """

    def __init__(self, path: Path, kept: bool = True) -> None:
        self.path = path
        self.table = EvaluationTable()
        self._kept = kept
        self._file = (path if kept else Path(os.devnull)).open("ab")

    @property
    def mark(self) -> tuple[int, int]:
        return len(self.table), self._file.tell()

    @property
    def last_step(self) -> int:
        """Step of the latest row that is of no branch; -1 while there is none."""
        return self.table.last_step

    def append(self, rows: list[Row]) -> None:
        self.table.extend(rows)
        self._file.write("".join(row.to_json() + "\n" for row in rows).encode())
        self._file.flush()

    def sync(self) -> None:
        """Make what was written durable (before a checkpoint refers to it)."""
        os.fsync(self._file.fileno())

    def rewind(self, rows: int, length: int) -> None:
        """Drop what came after a mark; the rows before it are read from disk."""
        self.table = EvaluationTable()
        if self._kept:
            self._file.truncate(length)
            self._file.seek(length)
        if length:
            with self.path.open("rb") as file:
                self.table.extend([Row.from_json(line.decode()) for line in file.read(length).splitlines()])
        if len(self.table) != rows:
            raise ValueError(f"{self.path} holds {len(self.table)} rows where the checkpoint expects {rows}")

    def close(self) -> None:
        """Close the file. What could not be written was an error when it was appended."""
        with contextlib.suppress(OSError):
            self._file.close()
