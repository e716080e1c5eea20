"""Archives as files: writing them so that equal content gives equal bytes, reading strangers' ones within limits.

Nothing is extracted to a path that an archive names: members are handed out by name, one after another.
"""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from clbench.errors import UserError
from clbench.sharing.strict_json import shown

SUFFIXES = (".zip", ".tar.gz", ".tgz")
EPOCH = (1980, 1, 1, 0, 0, 0)
CHUNK = 1 << 16


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most. ratio: of unpacked to packed bytes, looked at above 8 MiB."""

    archive_bytes: int = 1 << 29
    members: int = 40_000
    member_bytes: int = 1 << 26
    total_bytes: int = 1 << 29
    ratio: int = 200


LIMITS = Limits()
FREE_BYTES = 1 << 23


def archive_suffix(path: Path) -> str:
    """How an archive is written, by its name. Raises UserError."""
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return suffix
    raise UserError(f"{path}: name the archive NAME.zip or NAME.tar.gz")


def write_archive(file: IO[bytes], suffix: str, members: Iterable[tuple[str, bytes]]) -> None:
    """Write members in the order given. Equal members give equal bytes (with an equal zlib)."""
    if suffix == ".zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as zipped:
            for name, content in members:
                entry = zipfile.ZipInfo(name, EPOCH)
                entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
                zipped.writestr(entry, content, zipfile.ZIP_DEFLATED, compresslevel=9)
        return
    with (
        gzip.GzipFile("", "wb", 9, file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tarred,
    ):
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            tarred.addfile(info, io.BytesIO(content))


def read_archive(path: Path, limits: Limits = LIMITS) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every member, in order; the kind of archive is told by its first bytes.

    Raises UserError in one line for what is damaged, too large, no archive, or holds anything but plain files.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(4)
            file.seek(0)
            if size > limits.archive_bytes:
                raise UserError(f"{path} is larger than {limits.archive_bytes >> 20} MiB: export fewer runs at a time")
            if first[:2] == b"PK":
                members = _unzipped(file, path, limits)
            elif first[:2] == b"\x1f\x8b":
                members = _untarred(file, path, limits)
            else:
                raise UserError(f"{path} is no archive of `clbench export` (a .zip or a .tar.gz)")
            budget = _Budget(path, size, limits)
            for name, content in members:
                budget.take(len(content))
                yield name, content
    except UserError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from None
        raise _damaged(path, error) from None
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise _damaged(path, error) from None
    except (NotImplementedError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError) as error:
        raise _damaged(path, error) from None  # what the standard library raises on broken headers


class _Budget:
    """Counts unpacked bytes and members, and stops where there are too many."""

    def __init__(self, path: Path, packed: int, limits: Limits) -> None:
        self.path, self.limits = path, limits
        self.most = min(limits.total_bytes, max(FREE_BYTES, packed * limits.ratio))
        self.taken = self.members = 0

    def take(self, count: int) -> None:
        self.members += 1
        self.taken += count
        if self.taken > self.most or self.members > self.limits.members:
            raise UserError(f"{self.path} unpacks to far too much: refused (a decompression bomb?)")


def _unzipped(file: IO[bytes], path: Path, limits: Limits) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(file) as zipped:
        entries = zipped.infolist()
        if len(entries) > limits.members:
            raise UserError(f"{path} holds {len(entries)} files: too many")
        for entry in entries:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG) or entry.is_dir():
                raise _no_plain_file(path, entry.filename)
            if entry.flag_bits & 0x1:
                raise UserError(f"{path}: {shown(entry.filename)} is encrypted")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(f"{path}: {shown(entry.filename)} is packed in a way that is not read here")
            with zipped.open(entry) as member:
                yield entry.filename, _bounded(member, path, entry.filename, limits)


def _untarred(file: IO[bytes], path: Path, limits: Limits) -> Iterator[tuple[str, bytes]]:
    """By way of a temporary file: going back and forth in a gzip stream would unpack it again and again."""
    with tempfile.TemporaryFile() as plain:
        budget = _Budget(path, path.stat().st_size, limits)
        with gzip.GzipFile(fileobj=file, mode="rb") as packed:
            while block := packed.read(CHUNK):
                budget.take(len(block))
                budget.members = 0
                plain.write(block)
        plain.seek(0)
        with tarfile.open(fileobj=_Capped(plain, limits.member_bytes), mode="r:") as tarred:  # type: ignore[call-overload]
            for info in tarred:
                if not info.isreg() or info.sparse is not None:
                    raise _no_plain_file(path, info.name)
                member = tarred.extractfile(info)
                assert member is not None
                content = _bounded(member, path, info.name, limits)
                if len(content) != info.size:
                    raise tarfile.ReadError("it ends too early")
                yield info.name, content


def _bounded(member: IO[bytes], path: Path, name: str, limits: Limits) -> bytes:
    blocks, total = [], 0
    while block := member.read(CHUNK):
        blocks.append(block)
        total += len(block)
        if total > limits.member_bytes:
            raise UserError(f"{path}: {shown(name)} is larger than {limits.member_bytes >> 20} MiB")
    return b"".join(blocks)


class _Capped:
    """A file of which no more than `most` bytes are read at once: headers that announce gigabytes end here."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file, self._most = file, most

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= self._most:
            raise tarfile.ReadError("a header announces too much")
        return self._file.read(count)

    def seek(self, place: int, whence: int = 0) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    closed = False


def _no_plain_file(path: Path, name: str) -> UserError:
    return UserError(f"{path}: {shown(name)} is a folder, a link or a device: refused")


def _damaged(path: Path, error: Any) -> UserError:
    reason = shown(" ".join(str(error).split()) or type(error).__name__)
    return UserError(f"{path} is damaged, or no archive of `clbench export`: {reason}")
