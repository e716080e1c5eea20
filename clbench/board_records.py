"""The records that boards are made of: finished, and not edited since."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from clbench.record import Record
from clbench.runs import iter_records
from clbench.seal import broken_seal

FINISHED = ("completed", "diverged")
VERIFIED = ("identical", "within tolerance")


def board_records(
    results: Path, warn: Callable[[str], None] | None = None, stream: str | None = None
) -> Iterator[tuple[Path, Record]]:
    """(folder, record) of every run under `results` that may stand on a board, oldest first.

    A record that cannot be read, or whose seal is broken (it or its table was edited after the run), is told to `warn`
    (default: one line on stderr) and left out; so are, silently, unfinished runs. Records come without `metrics.gap`,
    the long list of single gaps, so that thousands of them fit in memory. stream: only its seals are checked.
    """
    for folder, record in iter_records(results, warn):
        if record["status"] not in FINISHED:
            continue
        if stream is None or record["stream"].get("name") == stream:
            broken = broken_seal(folder, record)
            if broken:
                (warn or warn_left_out)(broken)
                continue
        record["metrics"].pop("gap", None)
        yield folder, record


def warn_left_out(text: str) -> None:
    """One line on stderr about a record that is not used."""
    sys.stderr.write(f"clbench: left out: {text}\n")


def last_verdict(record: Record) -> str | None:
    """What the latest repetition of a run on this machine showed (`clbench verify`): see VERIFIED; None: never."""
    stamps = record.get("verification")
    newest = stamps[-1] if isinstance(stamps, list) and stamps else None
    return str(newest.get("verdict")) if isinstance(newest, dict) else None
