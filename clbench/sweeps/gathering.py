"""Gathering: finished run folders put at a URL (fsspec: file://, s3://, gs://, ssh:// ...), as they end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

from clbench.errors import UserError, did_you_mean
from clbench.files import write_atomically
from clbench.sweeps.shipping import LAST, pack
from clbench.urls import without_secrets

PENDING = ".not-gathered.json"
RUN_PARTS = 3


class Gathering:
    """Puts run folders of the results folder `out` at `url`/runs/STREAM/STRATEGY/RUN, in the background.

    A run's record is written last: where there is one, the run is whole. What cannot be put stays in `out`, is noted
    in a file there, and is tried again the next time. Raises UserError where the URL cannot be written.
    """

    def __init__(self, url: str, out: Path) -> None:
        self._shown = without_secrets(url)
        self._files, self._root = _open(url, self._shown)
        self._out = out
        self._pool = ThreadPoolExecutor(1, "gathering")
        self._under_way: dict[Future[str | None], str] = {}
        self._check_writable()
        self._left = self._read_left()
        for run in list(self._left):
            if (out / "runs" / run / LAST).is_file():
                self.put(out / "runs" / run)
            else:
                self._left.discard(run)

    def put(self, folder: Path) -> None:
        """Put a run folder there, soon; what became of it is told by `notes`."""
        run = "/".join(folder.parts[-RUN_PARTS:])
        self._under_way[self._pool.submit(self._put, folder, run)] = run

    def notes(self, wait: bool = False) -> Iterator[str]:
        """A line for every run that could not be put since the last call. wait: until all have been tried."""
        for future in [future for future in self._under_way if wait or future.done()]:
            run = self._under_way.pop(future)
            reason = future.result()
            before = set(self._left)
            self._left = self._left - {run} if reason is None else self._left | {run}
            if self._left != before:
                self._write_left()
            if reason is not None:
                here = self._out / "runs" / run
                yield f"{here} could not be put at {self._shown}: {reason}; the next sweep tries again"

    def close(self) -> None:
        """Give up what has not begun; it counts as not gathered."""
        for future, run in self._under_way.items():
            if future.cancel() or not future.done() or future.result() is not None:
                self._left = self._left | {run}
        if self._under_way:
            self._write_left()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _put(self, folder: Path, run: str) -> str | None:
        """Why it failed, in one line; None where it is there."""
        try:
            packed = pack(folder, unfinished=False)
            record = packed.pop(LAST)
            place = f"{self._root}/runs/{run}"
            self._files.makedirs(place, exist_ok=True)
            for name, content in [*packed.items(), (LAST, record)]:
                parent = f"{place}/{name}".rpartition("/")[0]
                if parent != place:
                    self._files.makedirs(parent, exist_ok=True)
                self._files.pipe_file(f"{place}/{name}", content)
            return None
        except Exception as error:  # of whatever library speaks the protocol
            return _reason(error)

    def _check_writable(self) -> None:
        probe = f"{self._root}/.clbench-{uuid4().hex[:8]}"
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(probe, b"")
            self._files.rm_file(probe)
        except Exception as error:  # as above
            raise UserError(f"--gather {self._shown} cannot be written: {_reason(error)}") from None

    def _read_left(self) -> set[str]:
        return set(_pending(self._out).get(self._shown, []))

    def _write_left(self) -> None:
        everything = _pending(self._out)
        everything[self._shown] = sorted(self._left)
        kept = {url: runs for url, runs in everything.items() if runs}
        if kept:
            write_atomically(self._out / PENDING, json.dumps(kept, indent=1) + "\n")
        else:
            (self._out / PENDING).unlink(missing_ok=True)


def _open(url: str, shown: str) -> tuple[Any, str]:
    import fsspec

    protocol, separator, rest = url.partition("://")
    if not separator or not rest.strip("/"):
        raise UserError(f"--gather {shown}: use a URL such as file:///shared/results or s3://bucket/results")
    known = fsspec.available_protocols()
    if protocol not in known:
        near = did_you_mean(protocol, known)
        near = near if near.startswith("; did") else ""
        raise UserError(f"--gather {shown}: unknown protocol {protocol!r}{near}")
    try:
        files, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise UserError(f"--gather {shown}: {_reason(error)}") from None
    except Exception as error:  # of whatever library speaks the protocol
        raise UserError(f"--gather {shown} cannot be opened: {_reason(error)}") from None
    return files, str(root).rstrip("/")


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, OSError) and text else f"{type(error).__name__}: {text or 'no reason is given'}"


def _pending(out: Path) -> dict[str, list[str]]:
    """Runs not gathered, by URL; a damaged file counts as empty."""
    try:
        found = json.loads((out / PENDING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
