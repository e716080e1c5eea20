"""Writing files so that a crash leaves the old content or the new, never a part."""

from __future__ import annotations

import errno
import os
from hashlib import blake2b
from pathlib import Path

from clbench.errors import ClbenchError, RunFailed, UserError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write, fsync, rename."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    data = content.encode() if isinstance(content, str) else content
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checksum(path: Path) -> str:
    """blake2b (hex, 32 bytes) of a file's content."""
    digest = blake2b(digest_size=32)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def disk_error(error: OSError, folder: Path) -> ClbenchError:
    """What the user is told when `folder` cannot be written: RunFailed where the disk is full, else UserError."""
    where = error.filename or folder
    reason = {
        errno.ENOSPC: "the disk is full: free some space",
        errno.EDQUOT: "the disk quota is used up: free some space",
        errno.EFBIG: "the file would be larger than is allowed here (ulimit -f)",
        errno.EROFS: "the file system is read-only: choose another --out",
        errno.EACCES: "no permission to write there: choose another --out",
        errno.EPERM: "no permission to write there: choose another --out",
        errno.ENOTDIR: "a part of the path is a file: choose another --out",
        errno.EEXIST: "there is a file in its place: choose another --out",
    }.get(error.errno or 0, error.strerror or str(error))
    kind = RunFailed if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO) else UserError
    return kind(f"cannot write {where}: {reason}")
