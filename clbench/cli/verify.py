"""`clbench verify`: what is printed about runs that are repeated, one after another."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clbench.cli.text import print_json, print_lines
from clbench.errors import ClbenchError, Interrupted, RunFailed, UserError
from clbench.selection import board_rows, names_a_row, sample_runs, select_rows, select_runs
from clbench.stamp import add_stamp
from clbench.verify import Verification, verify

SHOWN = 5
EDITED = "was edited after the run"


@dataclass(frozen=True)
class Sampling:
    """Which runs of rows are repeated. count: that many, at least one of every row; None: all."""

    count: int | None
    seed: int = 0


@dataclass
class Repeated:
    """A run that was looked at. found: None where it could not be repeated; `remark` says why, or why it bears no
    stamp."""

    folder: Path
    found: Verification | None
    remark: str | None

    @property
    def outcome(self) -> str:
        return self.found.verdict if self.found else "not repeated"

    def as_json(self) -> dict[str, Any]:
        found = self.found.as_dict() if self.found else {"verdict": None}
        if self.found and math.isinf(self.found.largest_difference):
            found["largest_difference"] = None
        return {"run": str(self.folder), **found, "remark": self.remark}


def verify_command(
    texts: list[str], board: bool, sampling: Sampling | None, stamp: bool, as_json: bool, results: Path
) -> None:
    """Repeat runs, rows or a board, print the verdicts, stamp the records. Raises RunFailed (exit code 1) where one
    differs."""
    edited: list[str] = []
    folders = _chosen(texts, board, sampling, results, edited)
    if len(folders) == 1 and not board and not names_a_row(texts[0]):
        _one(folders[0], stamp, as_json)
        return
    done: list[Repeated] = []
    for number, folder in enumerate(folders, 1):
        started = time.monotonic()
        sys.stderr.write(f"[{number}/{len(folders)}] {folder} ... ")
        sys.stderr.flush()
        try:
            done.append(_repeat(folder, stamp))
        except (Interrupted, KeyboardInterrupt):
            sys.stderr.write("interrupted\n")
            kept = "; their stamps are kept" if stamp else ""
            raise Interrupted(f"verification interrupted: {len(done)} of {len(folders)} runs are done{kept}") from None
        sys.stderr.write(f"{done[-1].outcome} ({time.monotonic() - started:.1f} s)\n")
        if done[-1].remark:
            sys.stderr.write(f"clbench: {done[-1].remark}\n")
    _report(done, edited, as_json)


def _chosen(texts: list[str], board: bool, sampling: Sampling | None, results: Path, edited: list[str]) -> list[Path]:
    """Folders of what is named; records that the boards of these streams leave out because they were edited are added
    to `edited`."""

    def left_out(text: str) -> None:
        if text in edited:
            return
        sys.stderr.write(f"clbench: left out: {text}\n")
        if EDITED in text or "is missing: " in text or "has no seal" in text:
            edited.append(text)

    if board:
        if len(texts) > 1:
            raise UserError("--board takes one STREAM, or none for every board")
        boards = board_rows(texts[0] if texts else None, results, left_out)
        rows = [row for board in boards for row in board.rows]
        return sample_runs(rows, 1 if sampling is None else sampling.count, sampling.seed if sampling else 0)
    if not texts:
        raise UserError("nothing is named: clbench verify RUN, STRATEGY@STREAM, or --board [STREAM]")
    if sampling is None:
        return select_runs(texts, results, left_out)
    if not all(names_a_row(text) for text in texts):
        raise UserError("--sample and --all choose among the runs of rows: name STRATEGY@STREAM, or --board")
    rows = [row for text in texts for row in select_rows(text, results, left_out)]
    return sample_runs(rows, sampling.count, sampling.seed)


def _repeat(folder: Path, stamp: bool) -> Repeated:
    try:
        found = verify(folder)
    except Interrupted:
        raise
    except ClbenchError as error:
        return Repeated(folder, None, str(error))
    return Repeated(folder, found, add_stamp(folder, found) if stamp else None)


def _one(folder: Path, stamp: bool, as_json: bool) -> None:
    if not as_json:
        sys.stderr.write(f"repeating {folder} from its own config.yaml ...\n")
    try:
        found = verify(folder)
    except (Interrupted, KeyboardInterrupt):
        raise Interrupted("verification interrupted: the record is as it was") from None
    remark = add_stamp(folder, found) if stamp else None
    if as_json:
        print_json(Repeated(folder, found, remark).as_json())
    else:
        print_lines(report(found))
        if remark:
            sys.stderr.write(f"clbench: {remark}\n")
    if found.verdict == "differs":
        raise RunFailed(f"{folder} is not what its own specification gives: {found.faults[0]}")


def _report(done: list[Repeated], edited: list[str], as_json: bool) -> None:
    counts = {name: sum(run.outcome == name for run in done) for name in ("identical", "within tolerance", "differs")}
    failed = sum(run.found is None for run in done)
    if as_json:
        named = {name.replace(" ", "_"): count for name, count in counts.items()}
        print_json({"runs": [run.as_json() for run in done], **named, "not_repeated": failed, "edited": edited})
    else:
        for run in done:
            if run.found and run.outcome != "identical":
                print_lines([str(run.folder), *(f"  {line}" for line in report(run.found))])
        parts = [f"{count} {name}" for name, count in counts.items() if count]
        parts += [f"{failed} not repeated"] if failed else []
        parts += [f"{len(edited)} edited"] if edited else []
        print_lines([f"{len(done)} runs: {', '.join(parts)}"])
    wrong = [str(run.folder) for run in done if run.outcome in ("differs", "not repeated")] + edited
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise RunFailed(f"not everything could be verified: {wrong[0]}{more}")


def report(found: Verification) -> list[str]:
    """The verdict in words, line by line."""
    if found.verdict == "identical":
        lines = [f"identical: all {found.rows} rows bit for bit, and every metric"]
    elif found.verdict == "within tolerance":
        difference = f"largest difference of a value {found.largest_difference:.2g}"
        lines = [f"within tolerance: {found.rows} rows, {difference}; not bit for bit, under other conditions:"]
    else:
        lines = [f"differs: {len(found.faults)} place{'s' if len(found.faults) > 1 else ''}, the first ones:"]
        lines += [f"  {fault}" for fault in found.faults[:SHOWN]]
    return lines + [f"  condition: {change}" for change in found.changed]
