"""Settings read and checked before anything slow is imported: whose they are, their names, types and ranges."""

from __future__ import annotations

import ast
import re
from typing import Any, Literal, Optional, Union

import yaml
from pydantic import ConfigDict, Field, create_model

from clbench.catalogue import Entry, Setting
from clbench.config import Config, parse_config
from clbench.errors import UserError, did_you_mean

Owner = Literal["strategy", "stream"]
QUOTED_TEXT = '!!str "'
TYPE_NAMES: dict[str, Any] = {
    "int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict, "tuple": tuple,
    "Literal": Literal, "Optional": Optional, "Union": Union, "Any": Any,
}  # fmt: skip


def owner_of(key: str, strategy: Entry, stream: Entry, shown: str = "") -> tuple[Owner, str] | None:
    """Whose setting a key is, and its name: `lr`, `strategy.lr`, `stream.tasks`; None where neither has it.

    One of which not every base class could be read may have settings that are not seen: a key nobody has is its.
    Raises UserError where both have the key. shown: what the user wrote, where it is more than the key.
    """
    prefix, _, rest = key.partition(".")
    if rest and prefix in ("strategy", "stream"):
        return ("strategy" if prefix == "strategy" else "stream"), rest
    here, there = key in strategy.settings, key in stream.settings
    if here and there:
        text = shown or key
        raise UserError(
            f"strategy {strategy.name} and stream {stream.name} both have {key!r}; "
            f"write strategy.{text} or stream.{text}"
        )
    if here or there:
        return ("strategy" if here else "stream"), key
    if not strategy.complete:
        return "strategy", key
    return None if stream.complete else ("stream", key)


def no_owner(key: str, strategy: Entry, stream: Entry) -> UserError:
    """The error for a setting that neither has."""
    hint = did_you_mean(key, strategy.settings.keys() | stream.settings.keys())
    return UserError(f"neither strategy {strategy.name} nor stream {stream.name} has a setting {key!r}{hint}")


def parse_value(text: str, setting: Setting | None, shown: str) -> Any:
    """A YAML value; left as text where the setting takes text only, null for `none` where it may be unset.

    `!!str "..."` is text in every setting, with YAML's escapes.
    """
    kind = "" if setting is None or text.startswith(QUOTED_TEXT) else setting.type
    words = set(re.findall(r"[A-Za-z]+", re.sub(r"'[^']*'", "", kind)))
    if "None" in words and text.strip().lower() in ("none", "null", "~", ""):
        return None
    choices = re.findall(r"'([^']*)'", kind)
    if text in choices or ("str" in words and not words & {"int", "float", "bool", "list", "dict", "tuple", "Any"}):
        return text
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--set {shown}: the value is not valid YAML: {reason}") from None


def check_settings(entry: Entry, values: dict[str, Any]) -> None:
    """Unknown keys, wrong types and ranges, as far as the source text tells. Raises UserError."""
    owner = f"{entry.kind} {entry.name}"
    for key in values:
        if key not in entry.settings and entry.complete:
            show = f" (`clbench show {entry.kind} {entry.name}`)"
            raise UserError(f"{owner} has no setting {key!r}{did_you_mean(str(key), entry.settings)}{show}")
    fields: dict[str, Any] = {}
    for key in values:
        setting = entry.settings.get(key)
        kind = _type(setting.type) if setting else Any
        numeric = setting is not None and all(isinstance(limit, (int, float)) for limit in setting.limits.values())
        limits = setting.limits if setting and numeric and kind is not Any else {}
        fields[key] = (kind, Field(**limits))
    model = create_model("Settings", __base__=_Given, **fields)
    parse_config(model, values, owner)


def check_schedule(name: str) -> None:
    """Raises UserError for a learning-rate schedule that does not exist."""
    from clbench.schedules import find

    find(name)


class _Given(Config):
    """Only the settings that are given are checked."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


def _type(text: str) -> Any:
    """A type written with built-in names only; Any for others."""
    tree = ast.parse(text, mode="eval")
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    allowed = (ast.Expression, ast.Name, ast.Load, ast.Subscript, ast.BinOp, ast.BitOr, ast.Constant, ast.Tuple)
    if names <= TYPE_NAMES.keys() and all(isinstance(node, allowed) for node in ast.walk(tree)):
        return eval(compile(tree, "<type>", "eval"), {"__builtins__": {}}, TYPE_NAMES)
    return Any
