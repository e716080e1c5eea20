"""Whether a record.json has the shape that record.schema.json describes."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

SCHEMA_FILE = Path(__file__).with_name("record.schema.json")


@cache
def schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of a record."""
    loaded: dict[str, Any] = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return loaded


def schema_faults(record: Any) -> list[str]:
    """What is wrong with a record, one line each with the place; empty where it is valid."""
    from jsonschema import Draft202012Validator

    errors = Draft202012Validator(schema()).iter_errors(record)
    return sorted(f"{'.'.join(map(str, error.absolute_path)) or 'record'}: {_short(error.message)}" for error in errors)


def _short(message: str) -> str:
    text = " ".join(message.split())
    return text if len(text) <= 160 else f"{text[:80]} ... {text[-70:]}"
