"""Runs on disk: every record under a results folder, and the folder a user means by a path, an id or its beginning."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from clbench.errors import UserError, did_you_mean
from clbench.record import Record, read_record
from clbench.seal import broken_seal

RESULTS = Path("results")
SHOWN = 3


def run_folders(out: Path = RESULTS) -> list[Path]:
    """Folders of all runs under `out`/runs, oldest first (an id begins with the time); whole or not."""
    found = (path for path in (out / "runs").glob("*/*/*") if path.is_dir() and not path.name.startswith("."))
    return sorted(found, key=lambda path: (path.name, str(path)))


def iter_records(out: Path = RESULTS, warn: Callable[[str], None] | None = None) -> Iterator[tuple[Path, Record]]:
    """(folder, record) of every run, oldest first. A record that cannot be read is told to `warn` (default: one line
    on stderr) and passed over."""
    for folder in run_folders(out):
        try:
            record = read_record(folder)
            _check_shape(record, folder)
        except UserError as error:
            (warn or _warn)(str(error))
            continue
        yield folder, record


def find_run(text: str | Path, out: Path = RESULTS) -> Path:
    """The folder of a run, given as a path, as its id, or as the beginning of its id. Raises UserError where none or
    more than one fits; the folder may hold an unfinished run."""
    if not str(text).strip():
        raise UserError("the run's name is empty (`clbench runs list`)")
    direct = Path(text).expanduser()
    if direct.name == "record.json" and direct.is_file():
        return direct.parent
    if (direct / "record.json").is_file():
        return direct
    if direct.is_dir():
        raise UserError(f"no run in {direct}: record.json is missing (`clbench runs list`)")
    name = str(text)
    if os.sep in name:
        raise UserError(f"no such run folder: {direct} (`clbench runs list`)")
    folders = run_folders(out)
    exact = [folder for folder in folders if folder.name == name]
    fits = exact or [folder for folder in folders if folder.name.startswith(name)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        more = f" and {len(fits) - SHOWN} more" if len(fits) > SHOWN else ""
        shown = ", ".join(str(folder) for folder in fits[:SHOWN])
        raise UserError(f"{name!r} fits {len(fits)} runs: {shown}{more}; give more of the id, or the folder")
    near = did_you_mean(name, {folder.name for folder in folders})
    near = near if near.startswith("; did") else ""
    raise UserError(f"no run {name!r} in {out / 'runs'}{near} (`clbench runs list`)")


def is_active(folder: Path) -> bool:
    """Whether a process is at work in a run's folder."""
    try:
        handle = os.open(folder / ".lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def never_began(folder: Path) -> bool:
    """Whether nothing has been scored or saved in a run's folder (an empty head gives rows of null)."""
    if (folder / "checkpoint").exists():
        return False
    log = folder / "evaluations.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return all('"value": null' in line for line in lines)


def status_of(folder: Path, record: Record) -> str:
    """A record's status; "killed" where it says running and no process is, "edited" where its seal is broken."""
    status = str(record["status"])
    if status == "running":
        return status if is_active(folder) else "killed"
    return "edited" if broken_seal(folder, record) else status


def _check_shape(record: Record, folder: Path) -> None:
    parts = ("spec", "strategy", "stream", "metrics", "cost")
    missing = [key for key in parts if not isinstance(record.get(key), dict)]
    if missing or not isinstance(record.get("status"), str):
        raise UserError(f"{folder / 'record.json'} is incomplete: {', '.join(missing) or 'status'} is missing")


def _warn(text: str) -> None:
    sys.stderr.write(f"clbench: left out: {text}\n")
