"""`clbench runs list|show|remove`."""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path
from typing import Any

from clbench.cli.text import columns, number, print_json, print_lines
from clbench.errors import UserError
from clbench.record import Record, read_record
from clbench.runs import find_run, is_active, iter_records, status_of
from clbench.seal import broken_seal


def list_command(stream: str | None, as_json: bool, out: Path) -> None:
    """Print every run, oldest first; damaged records get one warning each."""
    records = [(f, r) for f, r in iter_records(out) if stream is None or r["stream"].get("name") == stream]
    rows = [_row(folder, record) for folder, record in records]
    if as_json:
        print_json(rows)
        return
    if not rows:
        sys.stderr.write(f"clbench: no runs in {out / 'runs'}\n")
        return
    head = ["run", "stream", "strategy", "seed", "status", "average", "forgetting"]
    table = [[row["run"], row["stream"], row["strategy"], str(row["seed"]), row["status"]] for row in rows]
    for cells, row in zip(table, rows, strict=True):
        cells += [number(row["average"]), number(row["forgetting"])]
    print_lines(columns([head, *table], right=False, indent=""))


def _row(folder: Path, record: Record) -> dict[str, Any]:
    metrics = record["metrics"]
    return {
        "run": folder.name,
        "path": str(folder),
        "stream": record["stream"].get("name"),
        "strategy": record["strategy"].get("name"),
        "seed": record["spec"].get("seed"),
        "status": status_of(folder, record),
        "started": record.get("started"),
        "average": metrics.get("average"),
        "forgetting": metrics.get("forgetting"),
    }


def show_command(run: str, as_json: bool, out: Path) -> None:
    """Print a run's summary, or its record as JSON."""
    folder = find_run(run, out)
    record = read_record(folder)
    broken = broken_seal(folder, record)
    warning = f"clbench: {broken}\n" if broken else ""
    if as_json:
        sys.stderr.write(warning)
        print_json({"path": str(folder), **record})
        return
    from clbench.cli.summary import summary

    try:
        text = summary(folder, {**record, "status": status_of(folder, record)})
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"{folder / 'record.json'} is damaged: {type(error).__name__} {error}") from None
    sys.stderr.write(warning)
    sys.stdout.write(text)
    if record.get("error"):
        sys.stdout.write(f"error    {record['error']}\n")


def remove_command(runs: list[str], out: Path) -> None:
    """Delete run folders; all are looked up before the first is touched."""
    folders = list(dict.fromkeys(find_run(run, out) for run in runs))
    for folder in folders:
        if is_active(folder):
            raise UserError(f"{folder} is in use by another process: stop it first")
    for folder in folders:
        shutil.rmtree(folder)
        print_lines([f"removed {folder}"])
        for parent in (folder.parent, folder.parent.parent):
            if parent.resolve().is_relative_to((out / "runs").resolve()):
                with contextlib.suppress(OSError):
                    parent.rmdir()
