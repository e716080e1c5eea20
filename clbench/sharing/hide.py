"""Taking this machine's folders out of a record that others will read."""

from __future__ import annotations

import copy
import re
from typing import Any

from clbench.record import Record
from clbench.spec import make_spec

# an absolute or home path that starts a word, up to its last folder; no URL, no fraction, no "and/or"
FOLDERS = re.compile(r"(?<![\w.~/\\-])(?:file://)?(?:~|[A-Za-z]:)?(?:[/\\][^/\\\s:;,'\"()<>|]+)*[/\\](?=[^/\\\s]|$)")
WHOLE = re.compile(r"(?:~|[A-Za-z]:)?[/\\]")
PARTS = ("spec", "model", "error", "warnings", "diagnostics")
STREAM_TEXTS = ("name", "notes")


def without_folders(text: str) -> str:
    """`/home/me/images/cats` becomes `cats`; in a sentence, too."""
    if WHOLE.match(text) and "\n" not in text:
        return re.split(r"[/\\]", text.rstrip("/\\"))[-1] or "."
    return FOLDERS.sub("", text)


def hide_folders(record: Record) -> tuple[Record, list[str]]:
    """A copy without folders in its settings, model, messages and notes, and the places that were changed.

    Names of tasks and sets stay: the table has them, too. `spec_hash` is that of the changed specification.
    """
    record = copy.deepcopy(record)
    changed: list[str] = []
    if record["spec"].get("data_root") is not None:
        record["spec"]["data_root"] = None
        changed.append("spec.data_root")
    for part in (part for part in PARTS if part in record):
        record[part] = _hidden(record.get(part), part, changed)
    for key in STREAM_TEXTS:
        record["stream"][key] = _hidden(record["stream"][key], f"stream.{key}", changed)
    record["spec_hash"] = make_spec(record["spec"]).hash()
    return record, changed


def _hidden(value: Any, place: str, changed: list[str]) -> Any:
    if isinstance(value, str):
        plain = without_folders(value)
        if plain != value:
            changed.append(place)
        return plain
    if isinstance(value, dict):
        return {key: _hidden(inner, f"{place}.{key}", changed) for key, inner in value.items()}
    if isinstance(value, list):
        return [_hidden(inner, f"{place}[{i}]", changed) for i, inner in enumerate(value)]
    return value
