"""Looking at a stranger's archive: unpacked into a folder of our own under names of our own, and checked run by run.

`examined` does that in a process of its own with limits on memory and time, so that nothing an archive holds can crash
or stall the one that asked. Run as `python -m clbench.sharing.unpack ARCHIVE FOLDER` it is that process.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from clbench.errors import ClbenchError, UserError
from clbench.sharing.container import LIMITS, read_archive
from clbench.sharing.export import place_of
from clbench.sharing.manifest import MANIFEST, SOURCE, Manifest, Member, read_manifest
from clbench.sharing.plausible import doubts, foreign_record
from clbench.sharing.strict_json import shown, unsafe_text

MEMORY = 1 << 33
CPU_SECONDS = 900
LARGEST_ANSWER = 1 << 26


@dataclass
class Found:
    """A run of an archive. number: its folder's name among the unpacked ones. faults: why it is not taken."""

    number: int
    path: str
    hidden: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def examined(archive: Path, folder: Path) -> list[Found]:
    """Unpack and check in a process of its own. Raises UserError where the archive as a whole is refused, OSError where
    `folder` cannot be written."""
    command = [sys.executable, "-m", "clbench.sharing.unpack", str(archive.resolve()), str(folder.resolve())]
    environment = dict(os.environ)
    if Path(__file__).parents[2] != Path.cwd():
        environment["PYTHONSAFEPATH"] = "1"
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=environment)
    if done.returncode == -signal.SIGINT:
        raise KeyboardInterrupt
    try:
        answer = json.loads(done.stdout[:LARGEST_ANSWER])
        if answer.get("errno"):
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        if "error" in answer:
            raise UserError(str(answer["error"]))
        return [Found(**run) for run in answer["runs"]]
    except (ValueError, KeyError, TypeError):
        reason = shown(done.stderr.decode(errors="replace").strip().splitlines()[-1:] or f"signal {-done.returncode}")
        raise UserError(f"{archive} cannot be checked, and is refused: {reason}") from None


def examine(archive: Path, folder: Path) -> list[Found]:
    """Unpack into `folder`/NUMBER and check every run, in this process. Raises UserError as `examined` does."""
    manifest = unpack(archive, folder)
    found = []
    for number, run in enumerate(manifest.runs):
        place = folder / str(number)
        found.append(Found(number, run.path, run.hidden, [shown(line, 300) for line in _faults(place, run)]))
    return found


def unpack(archive: Path, folder: Path) -> Manifest:
    """Write the members of an archive to `folder`/NUMBER/FILE, each as its manifest announces it. Raises UserError."""
    members = read_archive(archive)
    name, content = next(members, ("", b""))
    if name != MANIFEST:
        raise UserError(f"{archive} is no archive of `clbench export`: its first member is not {MANIFEST}")
    manifest = read_manifest(content, str(archive))
    expected = {
        f"{run.path}/{file}": (folder / str(number) / file, fingerprint)
        for number, run in enumerate(manifest.runs)
        for file, fingerprint in run.files.items()
    }
    for number in range(len(manifest.runs)):
        (folder / str(number)).mkdir()
    for name, content in members:
        if name not in expected:
            raise UserError(f"{archive} holds {shown(name)}, which its manifest does not name (or names once)")
        path, fingerprint = expected.pop(name)
        if sha256(content).hexdigest() != fingerprint:
            raise UserError(f"{archive}: {shown(name)} is not what the manifest says: damaged, or changed")
        path.write_bytes(content)
    if expected:
        raise UserError(f"{archive} lacks {shown(next(iter(expected)))}: cut off?")
    return manifest


def _faults(folder: Path, run: Member) -> list[str]:
    try:
        record = foreign_record(folder)
        faults = doubts(folder, record)
        if not faults and place_of(record, "x").rpartition("/")[0] != run.path.rpartition("/")[0]:
            faults = ["it lies in the folder of another stream or strategy"]
        if not faults and (folder / SOURCE).exists() and not _readable(folder / SOURCE):
            faults = [f"{SOURCE} is no plain text"]
        return faults
    except ClbenchError as error:
        return [str(error).replace(str(folder), run.path)]
    except RecursionError:
        return ["it is nested too deeply"]
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError) as error:
        return [f"it cannot be checked ({type(error).__name__}: {error})"]  # its shape is right, its content absurd


def _readable(path: Path) -> bool:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return False
    return not any(unsafe_text(line) for line in lines)


def main() -> None:
    """Examine under limits; the answer as JSON on stdout."""
    limits = {
        resource.RLIMIT_AS: MEMORY,
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_FSIZE: LIMITS.total_bytes,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in limits.items():
        with suppress(ValueError, OSError):  # the system has it not, or has a stricter one
            resource.setrlimit(kind, (most, most))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        answer: dict[str, Any] = {"runs": [asdict(run) for run in examine(Path(sys.argv[1]), Path(sys.argv[2]))]}
    except ClbenchError as error:
        answer = {"error": str(error)}
    except (OSError, MemoryError, RecursionError) as error:
        answer = {"error": f"{sys.argv[1]} cannot be checked: {shown(error) or type(error).__name__}"}
        answer["errno"] = getattr(error, "errno", None)  # of a full disk, say: nothing the archive is to blame for
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
