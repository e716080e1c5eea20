"""Verification stamps: what repetitions of a run found, kept in its record."""

from __future__ import annotations

import fcntl
import math
import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench.record import now, read_record, write_record
from clbench.seal import broken_seal

if TYPE_CHECKING:
    from clbench.verify import Verification


def stamp_of(found: Verification) -> dict[str, Any]:
    """A stamp. It names no machine and no folder."""
    return {
        "when": now(),
        "clbench": version("clbench"),
        "verdict": found.verdict,
        "rows": found.rows,
        "largest_difference": found.largest_difference if math.isfinite(found.largest_difference) else None,
        "changed": found.changed,
        "faults": len(found.faults),
        "first_fault": found.faults[0] if found.faults else None,
    }


def add_stamp(folder: Path, found: Verification) -> str | None:
    """Write a stamp into the record in `folder` and seal it anew; why not, in one line, where that is not possible.

    An earlier stamp that says the same is replaced. An edited record gets none: a new seal would hide the edit.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            record = read_record(folder)
            broken = broken_seal(folder, record)
            if broken:
                return f"no stamp is written: {broken}"
            new = stamp_of(found)
            earlier = [old for old in record.get("verification") or [] if not _says_the_same(old, new)]
            write_record(folder, record | {"verification": [*earlier, new]})
        finally:
            os.close(handle)
    except OSError as error:
        return f"the stamp could not be written into {folder / 'record.json'}: {error.strerror or error}"
    return None


def _says_the_same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return {**old, "when": None} == {**new, "when": None}
