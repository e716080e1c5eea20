"""What an archive of records holds, and where: `manifest.json`, its first member.

manifest.json
runs/STREAM/STRATEGY/RUN/record.json, config.yaml, evaluations.parquet   for each run
runs/STREAM/STRATEGY/RUN/strategy.py.txt                                 on request: to be read, never run
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from clbench.errors import UserError
from clbench.record import SCHEMA
from clbench.sharing.strict_json import shown, strict_json

MANIFEST: Final = "manifest.json"
FORMAT: Final = "clbench records"
VERSION = 1
NEEDED = ("record.json", "config.yaml", "evaluations.parquet")
SOURCE: Final = "strategy.py.txt"
LONGEST_NAME = 150

Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Literal["record.json", "config.yaml", "evaluations.parquet", "strategy.py.txt"]


class Member(BaseModel):
    """A run. path: its folder in the archive. hidden: places in its record from which folders were taken out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    path: str
    files: dict[FileName, Sha]
    hidden: list[Annotated[str, Field(max_length=300)]]

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        parts = value.split("/")
        if len(parts) != 4 or parts[0] != "runs" or not all(safe_name(part) for part in parts[1:]):
            raise ValueError("is no place of a run")
        return value

    @field_validator("files")
    @classmethod
    def _files(cls, value: dict[FileName, Sha]) -> dict[FileName, Sha]:
        if not value.keys() >= set(NEEDED):
            raise ValueError("lacks a file")
        return value


class Manifest(BaseModel):
    """The list of what an archive holds."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["clbench records"] = FORMAT
    version: int = VERSION
    record_schema: int = SCHEMA
    clbench: Annotated[str, Field(max_length=60, pattern=r"^[\w.+-]+$")]
    runs: Annotated[list[Member], Field(min_length=1, max_length=10_000)]

    def content(self) -> bytes:
        """As it is written: equal manifests, equal bytes."""
        return (json.dumps(self.model_dump(), indent=1, sort_keys=True) + "\n").encode()


def safe_name(name: str) -> bool:
    """Whether a name can be that of a folder everywhere: letters, digits and `-_.+`, no dot in front."""
    return (
        0 < len(name) <= LONGEST_NAME
        and re.fullmatch(r"[\w.+-]+", name) is not None
        and name[0] not in ".-"
        and not name.endswith(".")
        and unicodedata.normalize("NFC", name) == name
    )


def read_manifest(content: bytes, archive: str) -> Manifest:
    """Raises UserError for one of another format, and for two runs in one place (whatever the case of letters)."""
    try:
        value: Any = strict_json(content)
    except ValueError as error:
        raise UserError(f"{archive}: {MANIFEST} {error}") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise UserError(f"{archive} is no archive of `clbench export`")
    for key, known in (("version", VERSION), ("record_schema", SCHEMA)):
        if value.get(key) != known:
            what = "format" if key == "version" else "record schema"
            raise UserError(f"{archive} has {what} {shown(value.get(key))}; this version reads {known}")
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{archive}: {MANIFEST}, {shown(place)}: {shown(first['msg'])}") from None
    places = {unicodedata.normalize("NFKC", run.path).casefold() for run in manifest.runs}
    if len(places) != len(manifest.runs):
        raise UserError(f"{archive}: two runs have one place")
    return manifest
