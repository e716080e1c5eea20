"""Constructor arguments of another library's class as typed settings."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal, Union

from pydantic import Field
from pydantic_core import PydanticUndefined

from clbench.errors import UserError

SIMPLE = (int, float, str, bool, type(None))
SEQUENCES = (list, tuple, Sequence)


def signature_fields(
    function: Callable[..., Any], given: set[str], taken: set[str], owner: str, source: str
) -> tuple[dict[str, tuple[Any, Any]], dict[str, str]]:
    """Fields for `pydantic.create_model`, and the argument that each stands for.

    owner: `PREFIX:NAME`, for errors. given: arguments that are passed by the caller and are no settings. taken: names
    of other settings; an argument of such a name is called PREFIX_argument. source: of the defaults. Arguments that
    are no plain values keep their defaults. Raises UserError where one of those has none.
    """
    hints = _hints(function)
    documented = _parameters(inspect.getdoc(function) or "")
    fields: dict[str, tuple[Any, Any]] = {}
    arguments: dict[str, str] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "self" or name in given or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        required = parameter.default is parameter.empty
        kind = _plain(hints.get(name, parameter.empty), parameter.default)
        if kind is None or not (required or _is_value(parameter.default)):
            if required:
                what = hints.get(name)
                raise UserError(f"{owner} needs {name} ({getattr(what, '__name__', what)}), which no setting can hold")
            continue
        default = PydanticUndefined if required else parameter.default
        if default is None:
            kind = kind | None
        field = f"{owner.partition(':')[0]}_{name}" if name in taken else name
        fields[field] = (
            kind,
            Field(
                default,
                description=documented.get(name, ""),
                json_schema_extra={"source": source},
            ),
        )
        arguments[field] = name
    return fields, arguments


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(inspect.unwrap(function))
    except Exception:
        return {
            n: p.annotation for n, p in inspect.signature(function).parameters.items() if p.annotation is not p.empty
        }


def _plain(hint: Any, default: Any) -> Any:
    """The part of a type that settings can hold: numbers, texts, lists of them. None: no part."""
    if hint is inspect.Parameter.empty or hint is Any:
        return type(default) if isinstance(default, SIMPLE) and default is not None else None
    if hint in SIMPLE:
        return hint
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return hint
    if origin in (Union, types.UnionType):
        parts = [part for part in (_plain(each, default) for each in arguments) if part is not None]
        return Union[tuple(parts)] if any(part is not type(None) for part in parts) else None  # noqa: UP007
    if origin is not None and isinstance(origin, type) and (origin in SEQUENCES or issubclass(origin, Sequence)):
        element = _plain(arguments[0], None) if arguments else None
        return list[element] if element is not None else None  # type: ignore[valid-type]
    return None


def _is_value(default: Any) -> bool:
    if isinstance(default, (list, tuple)):
        return all(_is_value(each) for each in default)
    return isinstance(default, SIMPLE)


def _parameters(doc: str) -> dict[str, str]:
    """`:param name: text` of a docstring, each on one line."""
    found = re.findall(r":param (\w+):(.*?)(?=\n\s*:|\n\s*\n|\Z)", doc, flags=re.DOTALL)
    return {name: " ".join(text.split()).rstrip(".") for name, text in found}
