"""What a sweep leaves behind, in OUT/sweeps/NAME: the suite as read, the plan, a journal of events, a report.

One sweep at a time works in a results folder; plain runs beside it are not held up.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clbench.errors import UserError
from clbench.files import disk_error, write_atomically
from clbench.record import now
from clbench.sweeps.job import Ended, Event, Progress

LOCK = ".sweep.lock"


class Journal:
    """The files of one sweep. Events are appended to `journal.jsonl`, a line each, as they happen.

    Raises ClbenchError where the folder cannot be made. A disk that refuses a line later on stops no sweep: `warn` is
    told, once.
    """

    def __init__(self, out: Path, name: str, warn: Callable[[str], None]) -> None:
        self.folder = out / "sweeps" / _folder_name(name)
        self.output = self.folder / "output"
        self._warn = warn
        self._warned = False
        self._torn = False
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self.folder / "journal.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._end_torn_line()
        except OSError as error:
            raise disk_error(error, self.folder) from None

    def keep(self, name: str, content: str | dict[str, Any]) -> None:
        """Write a file of the sweep's folder, atomically; an object as JSON. Raises ClbenchError."""
        text = content if isinstance(content, str) else json.dumps(content, indent=1, allow_nan=False) + "\n"
        try:
            write_atomically(self.folder / name, text)
        except OSError as error:
            raise disk_error(error, self.folder / name) from None

    def event(self, event: Event) -> None:
        """Append an event; how far jobs are is not kept."""
        if isinstance(event, Progress):
            return
        values = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(event).items()}
        self.line(type(event).__name__.lower(), flush=isinstance(event, Ended), **values)

    def line(self, what: str, flush: bool = True, **values: Any) -> None:
        """Append `{"time": ..., "event": what, ...}`; with `flush`, it is on disk when this returns."""
        text = json.dumps({"time": now(), "event": what, **values}) + "\n"
        try:
            self._append(text.encode())
            if flush:
                os.fsync(self._handle)
        except OSError as error:
            if not self._warned:
                self._warned = True
                self._warn(f"the journal is not kept: {disk_error(error, self.folder / 'journal.jsonl')}")

    def close(self) -> None:
        """Outputs that hold nothing are removed."""
        os.close(self._handle)
        with suppress(OSError):  # the folder may have been moved meanwhile, or be full
            for file in self.output.glob("*.txt"):
                if file.stat().st_size == 0:
                    file.unlink()
            if not any(self.output.iterdir()):
                self.output.rmdir()

    def _append(self, line: bytes) -> None:
        """A full disk may take half a line: the next one begins on a line of its own."""
        data = b"\n" + line if self._torn else line
        self._torn = True
        if os.write(self._handle, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False

    def _end_torn_line(self) -> None:
        """A crash may have left half a line; what follows must not be joined to it."""
        length = os.lseek(self._handle, 0, os.SEEK_END)
        if length and os.pread(self._handle, 1, length - 1) != b"\n":
            os.write(self._handle, b"\n")


def _folder_name(name: str) -> str:
    """A suite may be called anything; its folder lies in `sweeps` and nowhere else."""
    return "".join(c if c.isalnum() or c in "-_.+" else "-" for c in name)[:100].lstrip(".") or "sweep"


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """The lines of a sweep's journal in order; half lines that a crash left are passed over. [] where there is none."""
    try:
        text = (folder / "journal.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


@contextmanager
def only_sweep(out: Path, name: str) -> Iterator[None]:
    """Hold the results folder against other sweeps. Raises UserError where one is at work, or writing is impossible."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out / LOCK, os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise disk_error(error, out) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            who = os.pread(handle, 300, 0).decode(errors="replace").strip()
            raise UserError(
                f"another sweep{f' ({who})' if who else ''} is at work in {out}: wait for it, or choose another --out"
            ) from None
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{name}, process {os.getpid()}".encode(), 0)
        except OSError as error:
            raise disk_error(error, out / LOCK) from None
        yield
    finally:
        os.close(handle)
