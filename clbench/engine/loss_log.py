"""The loss of every evaluated block while a run lasts: an append-only file beside the table's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clbench.table import Row


class LossLog:
    """Values one after another (float32), in the order of the table's rows that have them. `mark`: bytes so far.

    kept: whether anything is written: by a run's first process, of an objective whose values are kept.
    """

    def __init__(self, path: Path, kept: bool = True) -> None:
        self.path = path
        self.kept = kept
        self._file: BinaryIO | None = path.open("ab") if kept else None

    @property
    def mark(self) -> int:
        return 0 if self._file is None else self._file.tell()

    def append(self, values: Iterable[Tensor]) -> None:
        """Each float32 [n], on the CPU."""
        if self._file is not None:
            for per_sample in values:
                self._file.write(per_sample.numpy().tobytes())
            self._file.flush()

    def sync(self) -> None:
        """Make what was written durable (before a checkpoint refers to it)."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def rewind(self, length: int) -> None:
        """Drop what came after a mark."""
        if self._file is not None:
            self._file.truncate(length)
            self._file.seek(length)

    def values(self) -> NDArray[np.float32]:
        """All of them, one after another."""
        return np.fromfile(self.path, np.float32) if self.kept else np.empty(0, np.float32)

    def close(self) -> None:
        """Close the file. What could not be written was an error when it was appended."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    def remove(self) -> None:
        """The run is complete: what was logged stands in another file."""
        self.path.unlink(missing_ok=True)


def kept_of(rows: Iterable[Row], primary: str) -> list[Row]:
    """The rows whose blocks' losses are logged, `n` each: those of the primary metric that have a value."""
    return [row for row in rows if row.metric == primary and row.value is not None]
