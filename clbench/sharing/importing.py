"""Taking in others' runs: checked first, then added to a results folder, marked with where they came from."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clbench.errors import UserError
from clbench.files import disk_error, sync_folder
from clbench.record import Record, now, read_record, write_record
from clbench.seal import record_fingerprint
from clbench.sharing.hide import hide_folders
from clbench.sharing.unpack import Found, examined

STAGING = ".clbench-import-"
STALE_SECONDS = 3600
OWN = ("seal", "origin", "verification")


@dataclass
class Import:
    """What an import did. added: folders. known: folders of runs that were here. refused: "RUN: why", not taken."""

    added: list[Path] = field(default_factory=list)
    known: list[Path] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def import_archive(archive: Path, out: Path, partial: bool = False) -> Import:
    """Add the runs of an archive to `out`/runs, marked as unverified; none, unless all can be taken.

    A run that is here already is passed over; another one of the same name gets a new name; nothing is overwritten,
    and nothing in the archive is run. partial: take what can be taken. Raises UserError where nothing is taken.
    """
    if not archive.is_file():
        raise UserError(f"no such archive: {archive}")
    try:
        with _staging(out) as staging:
            found = examined(archive, staging)
            done = Import(refused=[f"{run.path}: {run.faults[0]}" for run in found if run.faults])
            good = [run for run in found if not run.faults]
            if done.refused and not (partial and good):
                more = f" (and {len(done.refused) - 1} more)" if len(done.refused) > 1 else ""
                hint = "; --partial takes the others" if good else ""
                raise UserError(f"{archive}: nothing was taken: {done.refused[0]}{more}{hint}")
            moves = _planned(good, staging, out, _fingerprint(archive), done)
            _move(moves, done)
            return done
    except OSError as error:
        raise disk_error(OSError(error.errno, error.strerror), out) from None


def identity(record: Record) -> str:
    """Fingerprint of what a run is, wherever it lies: without its seal, origin, stamps and folders."""
    plain = hide_folders({key: value for key, value in record.items() if key not in OWN})[0]
    return record_fingerprint(plain)


def _planned(runs: list[Found], staging: Path, out: Path, fingerprint: str, done: Import) -> list[tuple[Path, Path]]:
    """(from, to) for each run that is not here yet, its record marked and sealed anew."""
    here: dict[Path, dict[str, Path]] = {}
    taken: set[str] = set()
    moves = []
    for run in runs:
        source, target = staging / str(run.number), out / run.path
        record = read_record(source)
        if target.parent not in here:
            here[target.parent] = _identities(target.parent)
        known = here[target.parent]
        mark = identity(record)
        if mark in known:
            done.known.append(known[mark])
            continue
        target = _free(target, taken)
        known[mark] = target
        write_record(source, _marked(record, run, fingerprint))
        moves.append((source, target))
    return moves


def _marked(record: Record, run: Found, fingerprint: str) -> Record:
    earlier = record.get("origin") or {}
    through = [*earlier.get("through", []), *([earlier["archive"]] if earlier else [])]
    origin: dict[str, Any] = {
        "archive": fingerprint,
        "imported": now(),
        "clbench": version("clbench"),
        "sealed": record["seal"]["record"],
        "hidden": run.hidden,
        "verification": record.get("verification", []),
        "through": through[-10:],
    }
    return {**record, "verification": [], "origin": origin}


def _identities(parent: Path) -> dict[str, Path]:
    """Identity -> folder of the runs in a folder; unreadable ones are no one's equal."""
    found = {}
    for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
        with suppress(UserError, KeyError, TypeError, AttributeError):
            found[identity(read_record(folder))] = folder
    return found


def _free(target: Path, taken: set[str]) -> Path:
    """A name that nothing has, whatever the case of its letters."""
    names = {path.name.casefold() for path in target.parent.iterdir()} if target.parent.is_dir() else set()
    number, free = 0, target
    while free.name.casefold() in names or str(free).casefold() in taken:
        number += 1
        free = target.with_name(f"{target.name}-{number}")
    taken.add(str(free).casefold())
    return free


def _move(moves: list[tuple[Path, Path]], done: Import) -> None:
    """Move every run to its place; all back where one cannot be moved."""
    made: list[Path] = []
    try:
        for source, target in moves:
            for parent in [p for p in reversed(target.parents) if not p.exists()]:
                parent.mkdir()
                made.append(parent)
            for path in source.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            source.rename(target)
            done.added.append(target)
            sync_folder(target.parent)
    except BaseException:
        for target in done.added:
            shutil.rmtree(target, ignore_errors=True)
        for parent in reversed(made):
            with suppress(OSError):
                parent.rmdir()
        raise


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A folder on the disk of `out`, gone afterwards; those of imports that were killed go, too."""
    near = next(path for path in (out, *out.absolute().parents) if path.is_dir())
    for left in near.glob(f"{STAGING}*"):
        with suppress(OSError), _alone(left):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=STAGING, dir=near))
    try:
        with _alone(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _fingerprint(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
