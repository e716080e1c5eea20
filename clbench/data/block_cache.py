"""Packed token blocks on disk, found again by a hash of what they were made from, and mapped instead of read.

The cache is a convenience: whatever goes wrong with it (unwritable, full, damaged), the caller packs anew.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from clbench.data.root import cache_dir

FORMAT = 1
WORTHWHILE = 1 << 20  # bytes; fewer blocks are packed faster than the folder would fill up


def key_of(parts: Any) -> str:
    """The key of an entry, from everything its blocks hang on (JSON values)."""
    return sha256(json.dumps([FORMAT, parts], sort_keys=True).encode()).hexdigest()[:32]


def load_blocks(key: str) -> tuple[np.ndarray, dict[str, Any]] | None:
    """(blocks, meta) stored under the key, or None. The blocks are mapped copy-on-write: the file never changes."""
    folder = _entries()
    if folder is None or not (folder / key).is_dir():
        return None
    try:
        meta = json.loads((folder / key / "meta.json").read_text(encoding="utf-8"))
        blocks = np.load(folder / key / "blocks.npy", mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return (blocks, meta) if [*blocks.shape, blocks.dtype.str] == meta.get("stored") else None


def store_blocks(key: str, blocks: np.ndarray, meta: dict[str, Any]) -> None:
    """Store an entry, whole or not at all; small ones are not worth it."""
    folder = _entries()
    if folder is None or blocks.nbytes < WORTHWHILE:
        return
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
        try:
            np.save(temporary / "blocks.npy", blocks)
            stored = {**meta, "stored": [*blocks.shape, blocks.dtype.str]}
            (temporary / "meta.json").write_text(json.dumps(stored), encoding="utf-8")
            if (folder / key).is_dir() and load_blocks(key) is None:  # damaged: make room
                shutil.rmtree(folder / key, ignore_errors=True)
            temporary.rename(folder / key)  # fails if another process was first; its entry is the same
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _entries() -> Path | None:
    folder = cache_dir()
    return folder / "text" if folder else None
