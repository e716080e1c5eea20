"""Checkpoints: named tensors (safetensors) and JSON, checksummed, written atomically, two kept."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from clbench.engine.faults import fault_point
from clbench.errors import RunFailed, UserError
from clbench.files import checksum, sync_folder

FORMAT = 1
KEPT = 2


class AllDamaged(RunFailed):
    """There are checkpoints, and none of them is whole."""


class Checkpoints:
    """The checkpoints of one run, in `folder`, each a sub-folder named by a counter."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Write a checkpoint; a crash at any point leaves the earlier ones intact."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        self.folder.mkdir(parents=True, exist_ok=True)
        numbers = self._numbers()
        number = numbers[-1] + 1 if numbers else 0
        partial = self.folder / f".partial-{number:06d}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            save_file(tensors, partial / "tensors.safetensors")
            fault_point("checkpoint")
            (partial / "state.json").write_text(json.dumps({"format": FORMAT, **state}))
            sums = {name: checksum(partial / name) for name in ("tensors.safetensors", "state.json")}
            (partial / "checksums.json").write_text(json.dumps(sums))
            for file in partial.iterdir():
                _sync(file)
            fault_point("checkpoint-rename")
            partial.replace(self.folder / f"{number:06d}")
        except SafetensorError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise _system_error(error, partial) from error
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_folder(self.folder)
        for old in self._numbers()[:-KEPT]:
            shutil.rmtree(self.folder / f"{old:06d}")

    def load(self, warn: Callable[[str], None]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest whole checkpoint, or None where there is none. Damaged ones are told to `warn` and passed over.

        Raises AllDamaged where checkpoints exist and none is whole, UserError for one of another format.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        numbers = self._numbers()
        for number in reversed(numbers):
            place = self.folder / f"{number:06d}"
            try:
                for name, expected in json.loads((place / "checksums.json").read_text()).items():
                    if checksum(place / name) != expected:
                        raise ValueError(f"{name} does not match its checksum")
                state = json.loads((place / "state.json").read_text())
                _check_format(state, place)
                return load_file(place / "tensors.safetensors"), state
            except (OSError, ValueError, SafetensorError) as error:
                warn(f"checkpoint {place} is damaged ({error}); falling back to the one before")
        if numbers:
            raise AllDamaged(f"every checkpoint in {self.folder} is damaged: start afresh with `clbench run --config`")
        return None

    def tasks(self) -> list[int]:
        """The task that each of them lies in; one whose state cannot be read counts as being in the first."""
        found = []
        for number in self._numbers():
            try:
                state = json.loads((self.folder / f"{number:06d}" / "state.json").read_text())
                found.append(int(state["cursor"][0]))
            except (OSError, ValueError, KeyError):
                found.append(0)
        return found

    def remove(self) -> None:
        """Delete all: the run is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _numbers(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdigit())


def _check_format(state: dict[str, Any], place: Path) -> None:
    found = state.get("format")
    if found != FORMAT:
        raise UserError(
            f"checkpoint {place} has format {found}, this version of clbench reads format {FORMAT}: resume with the "
            "version that wrote it, or start afresh with `clbench run --config`"
        )


def _system_error(error: Exception, place: Path) -> OSError:
    """The error of the operating system that safetensors tells of in words, where it names one."""
    code = re.search(r"(?:os error|code:) (\d+)", str(error))
    number = int(code.group(1)) if code else errno.EIO
    return OSError(number, os.strerror(number) if code else str(error), str(place))


def _sync(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
