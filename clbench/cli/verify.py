"""`clbench verify RUN`: what is printed about a run that was repeated."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from clbench.errors import RunFailed
from clbench.verify import Verification, verify

SHOWN = 5


def verify_command(run: Path, as_json: bool = False) -> None:
    """Repeat the run in this folder and print the verdict. Raises RunFailed (exit code 1) where it differs."""
    if not as_json:
        sys.stderr.write(f"repeating {run} from its own config.yaml ...\n")
    found = verify(run)
    if as_json:
        sys.stdout.write(json.dumps({"run": str(run), **_plain(found)}, indent=1, allow_nan=False) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in report(found)))
    if found.verdict == "differs":
        raise RunFailed(f"{run} is not what its own specification gives: {found.faults[0]}")


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


def _plain(found: Verification) -> dict[str, object]:
    largest = found.largest_difference
    return {**found.as_dict(), "largest_difference": largest if largest != float("inf") else None}
