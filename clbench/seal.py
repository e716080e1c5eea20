"""The seal of a finished record: fingerprints over everything in it and over its files, so that an edit shows.

It finds edits, not forgers: who seals an edited record anew is found by `clbench verify`, which computes the metrics
from the table again and repeats the run.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

SEALED_FILES = {"evaluations.parquet": "the table", "config.yaml": "the configuration"}
UNSEALED = ("running",)


def seal(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """The record with a seal over it as it is now, and over the files in `folder`; a running one has none.

    Every writer of a record comes through here (`clbench.record.write_record`).
    """
    content = {key: value for key, value in record.items() if key != "seal"}
    if record.get("status") in UNSEALED:
        return content
    content = json.loads(json.dumps(content, allow_nan=False))  # as it will be read
    return {**content, "seal": {"record": record_fingerprint(content), "files": _file_fingerprints(folder)}}


def broken_seal(folder: Path, record: dict[str, Any]) -> str | None:
    """What was edited since the record was sealed, in one line; None where nothing was. Reads three small files."""
    if record.get("status") in UNSEALED and "seal" not in record:
        return None
    found = record.get("seal")
    if not isinstance(found, dict) or not isinstance(found.get("files"), dict):
        return f"{folder / 'record.json'} has no seal: it was not written by clbench, or was edited"
    if found.get("record") != record_fingerprint(record):
        return f"{folder / 'record.json'} was edited after the run: its seal does not fit"
    try:
        files = _file_fingerprints(folder)
    except OSError as error:
        return f"{error.filename or folder} cannot be read: {error.strerror or error}"
    for name, what in SEALED_FILES.items():
        if found["files"].get(name) != files.get(name):
            change = "is missing" if name not in files else "was edited after the run"
            return f"{folder / name} {change}: {what} is not the sealed one"
    return None


def record_fingerprint(record: dict[str, Any]) -> str:
    """sha256 (hex) of a record's canonical JSON (sorted keys, no spaces), its seal left out."""
    content = {key: value for key, value in record.items() if key != "seal"}
    return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _file_fingerprints(folder: Path) -> dict[str, str]:
    found = {}
    for name in SEALED_FILES:
        try:
            found[name] = sha256((folder / name).read_bytes()).hexdigest()
        except FileNotFoundError:
            continue
    return found
