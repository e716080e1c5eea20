"""Decoded image arrays on disk, found again by a hash of what they were made from.

The cache is a convenience: whatever goes wrong with it (unwritable, full, damaged), the caller decodes anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clbench.data.root import cache_dir

MAP_SHARE = 0.25  # arrays larger than this share of the memory are decoded into a mapped file
STALE_SECONDS = 86_400  # left-overs of killed processes are removed after a day


def memory_bytes() -> int:
    """Memory of this machine, or of its control group where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def is_large(nbytes: int) -> bool:
    return nbytes > MAP_SHARE * memory_bytes()


def load(key: str) -> tuple[np.ndarray, np.ndarray, dict[str, Any]] | None:
    """(x, y, meta) stored under the key, or None.

    x is mapped, so that only the images used take memory; copy-on-write, so that the file never changes.
    """
    folder = _entries()
    if folder is None or not (folder / key).is_dir():
        return None
    try:
        meta = json.loads((folder / key / "meta.json").read_text())
        path = folder / key / "x.npy"
        x = np.load(path, mmap_mode="c", allow_pickle=False)
        y = np.load(folder / key / "y.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    intact = x.dtype == np.uint8 and len(x) == len(y) and list(x.shape) == meta.get("shape")
    return (x, y, meta) if intact else None


def beside(key: str | None, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """A small array that follows from the entry `key`, stored with it the first time it is made."""
    folder = _entries()
    if key is None or folder is None or not (folder / key).is_dir():
        return make()
    path = folder / key / f"{name}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        return np.load(path, allow_pickle=False)
    array = make()
    with contextlib.suppress(OSError):
        handle, temporary = tempfile.mkstemp(prefix=f".{name}-", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            np.save(file, array)
        Path(temporary).replace(path)
    return array


class Writer:
    """One entry in the making: `array` to fill, then `finish`; `discard` in any case."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        entries = _entries()
        if entries is not None:
            with contextlib.suppress(OSError):
                entries.mkdir(parents=True, exist_ok=True)
                _remove_stale(entries)
                self.folder = Path(tempfile.mkdtemp(prefix=".new-", dir=entries))

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        """An unfilled uint8 array: in the entry's file if it is large and there is room, else in memory."""
        nbytes = int(np.prod(shape, dtype=np.int64))
        if self.folder is not None and is_large(nbytes):
            path = self.folder / "x.npy"
            with contextlib.suppress(OSError):
                mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
                with path.open("r+b") as file:  # reserve the blocks now: a full disk must not kill the process later
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
                return mapped
            self.discard()
        return np.empty(shape, np.uint8)

    def finish(self, key: str, x: np.ndarray, y: np.ndarray, meta: dict[str, Any]) -> None:
        """Store the entry under its key, whole or not at all."""
        if self.folder is None:
            return
        with contextlib.suppress(OSError):
            if isinstance(x, np.memmap):
                x.flush()
            else:
                np.save(self.folder / "x.npy", x)
            np.save(self.folder / "y.npy", y)
            (self.folder / "meta.json").write_text(json.dumps({**meta, "shape": list(x.shape)}))
            target = self.folder.parent / key
            if target.is_dir() and load(key) is None:  # damaged: make room
                shutil.rmtree(target, ignore_errors=True)
            self.folder.rename(target)  # fails if another process was first; its entry is the same
            self.folder = None

    def discard(self) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's contents, remembered by (path, size, time of change)."""
    state = path.stat()
    place, stamp = str(path.resolve()), [state.st_size, state.st_mtime_ns, state.st_ino]
    folder = cache_dir()
    index = _read_index(folder / "sha256.json") if folder else {}
    known = index.get(place)
    if isinstance(known, list) and known[:3] == stamp:
        return str(known[3])
    with path.open("rb") as file:
        sha = _digest(file)
    if folder is not None:
        with contextlib.suppress(OSError):
            _write_index(folder / "sha256.json", {**index, place: [*stamp, sha]})
    return sha


def _digest(file: Any) -> str:
    total = hashlib.sha256()
    while block := file.read(1 << 20):
        total.update(block)
    return total.hexdigest()


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return index if isinstance(index, dict) else {}


def _write_index(path: Path, index: dict[str, Any]) -> None:
    handle, temporary = tempfile.mkstemp(prefix=".sha256-", dir=path.parent)
    with os.fdopen(handle, "w") as file:
        json.dump(index, file)
    Path(temporary).replace(path)


def _entries() -> Path | None:
    folder = cache_dir()
    return folder / "images" if folder else None


def _remove_stale(entries: Path) -> None:
    for path in entries.glob(".new-*"):
        if time.time() - path.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
