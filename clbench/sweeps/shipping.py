"""Run folders as bytes: packed on the node that ran them, placed whole into a results folder elsewhere."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from clbench.files import sync_folder

UNFINISHED = ("checkpoint", "evaluations.jsonl", "block_losses.raw", "beginnings")
GATHERING = ".gathering-"
LAST = "record.json"

Packed = dict[str, bytes]


def pack(folder: Path, unfinished: bool) -> Packed:
    """Bytes by relative path. unfinished: with what only an unfinished run has, which resuming needs."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if path.is_file() and not hidden and (unfinished or name.parts[0] not in UNFINISHED):
            found[name.as_posix()] = path.read_bytes()
    return found


def unpack(packed: Packed, folder: Path) -> None:
    """Write the files into a folder, made where it is missing, and flush them to disk."""
    folder.mkdir(parents=True, exist_ok=True)
    folders = {folder}
    for name, content in packed.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        folders.add(path.parent)
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    for each in folders:
        sync_folder(each)


def place(packed: Packed, out: Path, run: str, again: bool = False) -> Path:
    """Put a run (STREAM/STRATEGY/RUN) into `out`/runs, whole or not at all; its folder.

    The files are written beside it and renamed. Where another run has the name, a number is added; `again`: the folder
    is this run's own, from an earlier sitting, and is brought up to date. Raises OSError.
    """
    target = out / "runs" / run
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=GATHERING, dir=out))
    try:
        unpack(packed, beside / "run")
        if again and target.is_dir():
            _update(target, beside / "run")
        else:
            target = _reserve(target)
            (beside / "run").replace(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target


def _reserve(target: Path) -> Path:
    """An empty folder of its own: a rename over it is atomic."""
    for number in range(1000):
        place = target.with_name(target.name if number == 0 else f"{target.name}-{number}")
        try:
            place.mkdir()
            return place
        except FileExistsError:
            continue
    raise FileExistsError(f"too many runs named {target.name}")


def _update(folder: Path, newer: Path) -> None:
    """File by file, the record last: after a crash in between, the run can still be resumed from what is there."""
    names = [path.relative_to(newer) for path in sorted(newer.rglob("*")) if path.is_file()]
    for name in sorted(names, key=lambda name: name.name == LAST):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (newer / name).replace(folder / name)
    sync_folder(folder)
    for gone in set(UNFINISHED) - {name.parts[0] for name in names}:
        left = folder / gone
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
