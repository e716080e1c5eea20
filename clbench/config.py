"""Typed, documented settings: what the command line, the docs and the error messages are generated from."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clbench.errors import UserError, did_you_mean


def setting(default: Any, description: str, *, source: str, **limits: Any) -> Any:
    """A field of a `Config`: its default, what it means, where the default comes from, and its range.

    `limits` are pydantic's (`ge`, `gt`, `le`, `lt`, ...). `source` names the paper, the official code or
    "clbench" where the default is this project's own choice.
    """
    return Field(default, description=description, json_schema_extra={"source": source}, **limits)


class Config(BaseModel):
    """Base of every configuration: unknown keys are errors, values are checked on assignment, numbers are finite."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, frozen=False, allow_inf_nan=False)


def parse_config(kind: type[Config], values: dict[str, Any], owner: str) -> Any:
    """`kind(**values)`, with every mistake told in one line that names `owner` and the nearest keys."""
    unknown = [key for key in values if key not in kind.model_fields]
    if unknown:
        hint = did_you_mean(unknown[0], kind.model_fields)
        raise UserError(f"{owner} has no setting {unknown[0]!r}{hint}")
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "settings"
        if first["type"] == "missing":
            raise UserError(f"{owner} needs a value of {where} (--set {where}=...)") from None
        given = repr(first.get("input"))
        given = given if len(given) <= 100 else f"{given[:97]}..."
        raise UserError(f"{owner}: {where}={given}: {first['msg'].removeprefix('Value error, ')}") from None
