"""The records under a results folder, seen from a plan: which runs are done, which can be resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from clbench.engine.world import ALONE
from clbench.errors import UserError
from clbench.record import Record
from clbench.runs import is_active, iter_records, status_of
from clbench.spec import RunSpec, make_spec

Action = Literal["run", "resume", "done"]
NEW = "new"
CONDITIONS = {
    "device": "the device",
    "devices": "the number of devices",
    "sync_bn": "the scope of batch statistics",
    "precision": "the precision",
    "threads": "the number of threads",
    "channels_last": "the memory format",
    "compile": "the compile setting",
}


class History:
    """Records under the results folder, by the hash of their specification."""

    def __init__(self, out: Path, notes: list[str]) -> None:
        self._runs: dict[str, list[tuple[Path, Record]]] = {}
        for folder, record in iter_records(out, lambda text: notes.append(f"left out: {text}")):
            try:
                spec = make_spec(record["spec"], str(folder / "record.json"))
            except UserError as error:
                notes.append(f"left out: {error}")
                continue
            self._runs.setdefault(spec.hash(), []).append((folder, record))

    def verdict(self, spec: RunSpec, sources: dict[str, str], content: str) -> tuple[Action, str, Path | None]:
        """What to do about a run, why, and the folder of the one that is there.

        sources: hashes by "strategy" and "stream". content: of the stream.
        """
        runs = self._runs.get(spec.hash(), [])
        changed: str | None = None
        candidates: list[tuple[int, Path, str]] = []
        for folder, record in reversed(runs):
            change = _change(record, sources, content)
            if change is not None:
                changed = changed or change
                continue
            candidates.append((*_rank(folder, record), _status(folder, record)))
        if not candidates:
            return "run", f"{changed} has changed since it was run" if changed else NEW, None
        rank, folder, status = min(candidates, key=lambda item: item[0])
        if rank <= 1:
            return "done", status, folder
        if rank == 2:
            record = next(record for place, record in runs if place == folder)
            condition = _condition(spec, record)
            if condition is None:
                return "resume", status, folder
            return "run", f"{status}, but {condition} has changed", None
        return "run", status, None


def _rank(folder: Path, record: Record) -> tuple[int, Path]:
    """0 completed, 1 diverged, 2 can be resumed, 3 at work elsewhere, edited, or nothing to resume from."""
    status = status_of(folder, record)
    if status in ("completed", "diverged"):
        return (0 if status == "completed" else 1), folder
    saved = any((folder / "checkpoint").glob("*"))
    return (2 if saved and status != "edited" and not is_active(folder) else 3), folder


def _status(folder: Path, record: Record) -> str:
    status = status_of(folder, record)
    if status == "edited":
        return "its record was edited"
    if status == "running":
        return "another process is at work on an equal run"
    if status in ("failed", "interrupted", "killed") and not any((folder / "checkpoint").glob("*")):
        return f"{status} without a checkpoint"
    return status


def _change(record: Record, sources: dict[str, str], content: str) -> str | None:
    """What makes a record with an equal specification another run."""
    for key in ("strategy", "stream"):
        if record[key].get("source_hash") != sources[key]:
            return f"the {key}'s source"
    return "the stream's data" if record["stream"].get("content") != content else None


def _condition(spec: RunSpec, record: Record) -> str | None:
    """What `resume` would refuse."""
    from clbench.engine.environment import package_versions

    before = ALONE | part(record, "environment")
    for key, name in CONDITIONS.items():
        if before.get(key) != getattr(spec, key):
            return name
    then, now = part(before, "versions"), package_versions()
    return next((f"package {name}" for name in sorted({*then, *now}) if then.get(name) != now.get(name)), None)


def part(record: Record, key: str) -> dict[str, Any]:
    """A mapping in a record, empty where it is none."""
    found = record.get(key)
    return found if isinstance(found, dict) else {}
