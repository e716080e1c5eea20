"""Packing records into one archive: no weights, no checkpoints, no logs, no folders of this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from clbench.board_records import FINISHED
from clbench.errors import UserError
from clbench.files import disk_error, sync_folder
from clbench.record import Record, read_record
from clbench.seal import SEALED_FILES, broken_seal, record_fingerprint
from clbench.sharing.container import LIMITS, archive_suffix, write_archive
from clbench.sharing.hide import hide_folders
from clbench.sharing.manifest import MANIFEST, SOURCE, FileName, Manifest, Member, safe_name
from clbench.spec import make_spec, read_spec_file

LARGEST_SOURCE = 1 << 20


@dataclass
class Packed:
    """A run as it goes into an archive."""

    path: str
    files: dict[FileName, bytes]
    hidden: list[str]


@dataclass
class Export:
    """What was written. hidden: places in records from which folders were taken out, with the number of runs."""

    archive: Path
    runs: int
    bytes: int
    hidden: dict[str, int]


def export_runs(folders: Sequence[Path], archive: Path, with_source: bool = False) -> Export:
    """Write the finished runs in `folders` into one archive (.zip or .tar.gz); equal runs give equal bytes.

    with_source: the text of strategies that lie in files goes with them. Raises UserError for a run that is not
    finished or was edited, and for an archive that cannot be written, which leaves what was there.
    """
    suffix = archive_suffix(archive)
    if not folders:
        raise UserError("there are no runs to export")
    packed = sorted((pack_run(folder, with_source) for folder in folders), key=lambda run: run.path)
    _give_places(packed)
    prints = [Member(path=run.path, hidden=run.hidden, files=_prints(run.files)) for run in packed]
    manifest = Manifest(clbench=version("clbench"), runs=prints)

    def members() -> Iterator[tuple[str, bytes]]:
        yield MANIFEST, manifest.content()
        for run in packed:
            for name, content in sorted(run.files.items()):
                yield f"{run.path}/{name}", content

    _write(archive, suffix, members())
    counts: dict[str, int] = {}
    for place in (place for run in packed for place in run.hidden):
        counts[place] = counts.get(place, 0) + 1
    return Export(archive, len(packed), archive.stat().st_size, counts)


def pack_run(folder: Path, with_source: bool = False) -> Packed:
    """A run's record without this machine's folders, its configuration made from it, its table; sealed anew."""
    record = read_record(folder)
    if record["status"] not in FINISHED:
        raise UserError(f"{folder} is {record['status']}: only finished runs are exported")
    if broken := broken_seal(folder, record):
        raise UserError(f"not exported: {broken}")
    shared, hidden = hide_folders(record)
    table = (folder / "evaluations.parquet").read_bytes()
    if len(table) > LIMITS.member_bytes:
        raise UserError(f"{folder / 'evaluations.parquet'} is larger than {LIMITS.member_bytes >> 20} MiB")
    config = make_spec(shared["spec"]).yaml()
    files: dict[FileName, bytes] = {"evaluations.parquet": table, "config.yaml": config.encode()}
    files["record.json"] = _sealed(shared, files)
    if with_source and (source := _source(folder)):
        files[SOURCE] = source
    return Packed(place_of(shared, folder.name), files, hidden)


def place_of(record: Record, name: str) -> str:
    """`runs/STREAM/STRATEGY/RUN`, as `clbench.launch` lays runs out. Raises UserError for names that make no folder."""
    parts = [_plain(record["stream"]["name"]), _plain(record["strategy"]["name"]), _plain(name)]
    if not all(safe_name(part) for part in parts):
        raise UserError(f"{'/'.join(parts)} makes no folder: a name is empty, too long, or begins with a dot")
    return "/".join(["runs", *parts])


def _plain(name: str) -> str:
    """As folders of runs are named."""
    return "".join(c if c.isalnum() or c in "-_.+" else "-" for c in name).lstrip(".-")


def _sealed(record: Record, files: dict[FileName, bytes]) -> bytes:
    """The seal of `clbench.seal`, over the files as they are in the archive."""
    content = {key: value for key, value in record.items() if key != "seal"}
    prints = {name: _sha(found) for name, found in files.items() if name in SEALED_FILES}
    seal = {"record": record_fingerprint(content), "files": prints}
    return (json.dumps({**content, "seal": seal}, indent=1, allow_nan=False) + "\n").encode()


def _source(folder: Path) -> bytes | None:
    """The text of a strategy that lies in a file."""
    name = str(read_spec_file(folder / "config.yaml").get("strategy", ""))
    path = Path(name.rpartition(":")[0] if ".py:" in name else name)
    if path.suffix != ".py":
        return None
    try:
        content = path.read_bytes()
        content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the source of {folder}, {path}, cannot be read: {error}; leave out --with-source") from None
    if len(content) > LARGEST_SOURCE:
        raise UserError(f"{path} is larger than {LARGEST_SOURCE >> 10} KiB; leave out --with-source")
    return content


def _give_places(packed: list[Packed]) -> None:
    """Number runs that would share a place."""
    taken: set[str] = set()
    for run in packed:
        place, number = run.path, 0
        while run.path.casefold() in taken:
            number += 1
            run.path = f"{place}-{number}"
        taken.add(run.path.casefold())


def _write(archive: Path, suffix: str, members: Iterator[tuple[str, bytes]]) -> None:
    partial = archive.with_name(f".{archive.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            write_archive(file, suffix, members)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(archive)
        sync_folder(archive.parent)
    except OSError as error:
        raise disk_error(OSError(error.errno, error.strerror), archive) from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _prints(files: dict[FileName, bytes]) -> dict[FileName, str]:
    return {name: _sha(content) for name, content in files.items()}


def _sha(content: bytes) -> str:
    return sha256(content).hexdigest()
