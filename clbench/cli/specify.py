"""From options and a config file to checked specifications, before anything slow is imported."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, Literal, Optional, Union

import yaml
from pydantic import ConfigDict, Field, create_model

from clbench import catalogue
from clbench.catalogue import Entry, Setting
from clbench.config import Config, parse_config
from clbench.errors import UserError, did_you_mean
from clbench.spec import RunSpec, make_spec, read_spec_file

UNITS = {
    "": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15,
    "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
SECONDS = {"": 1, "s": 1, "min": 60, "m": 60, "h": 3600}
MOST_SEEDS = 1000
TYPE_NAMES: dict[str, Any] = {
    "int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict, "tuple": tuple,
    "Literal": Literal, "Optional": Optional, "Union": Union, "Any": Any,
}  # fmt: skip


def specifications(
    options: dict[str, Any],
    shortcuts: dict[str, Any],
    assignments: list[str],
    budget: list[str],
    config: Path | None,
    seeds: str | None,
) -> list[RunSpec]:
    """One specification, or one per seed.

    options: RunSpec fields, None where not given. shortcuts: settings with an option of their own. assignments: the
    texts of --set. What the command line says wins over the config file. Raises UserError.
    """
    values = _from_file(config) if config else {}
    values |= {key: value for key, value in options.items() if value is not None}
    for key in ("strategy", "stream"):
        if not values.get(key):
            raise UserError(
                f"no {key} is named: clbench run STRATEGY STREAM, or --config FILE "
                f"(`clbench list {catalogue.PLURALS[key]}`)"
            )
    strategy = catalogue.find("strategy", str(values["strategy"]))
    stream = catalogue.find("stream", str(values["stream"]))
    for_strategy, for_stream = assign(assignments, strategy, stream)
    given = {key: value for key, value in shortcuts.items() if value is not None}
    if "schedule" in given:
        _check_schedule(given["schedule"])
        for_strategy["schedule"] = given["schedule"]
    for_stream |= {key: given[key] for key in ("online", "scenario") if key in given}
    values["strategy_settings"] = (values.get("strategy_settings") or {}) | for_strategy
    values["stream_settings"] = (values.get("stream_settings") or {}) | for_stream
    values["budget"] = (values.get("budget") or {}) | parse_budget(budget)
    spec = make_spec(values)
    check_settings(strategy, spec.strategy_settings)
    check_settings(stream, spec.stream_settings)
    if spec.backbone:
        from clbench.models import describe

        describe(spec.backbone)
    if seeds is None:
        return [spec]
    if options.get("seed") is not None:
        raise UserError("--seed and --seeds are both given; use one of them")
    return [spec.model_copy(update={"seed": seed}) for seed in parse_seeds(seeds)]


def _from_file(path: Path) -> dict[str, Any]:
    values = read_spec_file(path)
    for key, value in values.items():
        if key not in RunSpec.model_fields:
            raise UserError(f"config {path} has no key {key!r}{did_you_mean(str(key), RunSpec.model_fields)}")
        if key in ("strategy_settings", "stream_settings", "budget") and not isinstance(value, (dict, type(None))):
            raise UserError(f"config {path}: {key} must hold `key: value` lines")
    return values


def assign(assignments: list[str], strategy: Entry, stream: Entry) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the strategy and of the stream from `KEY=VALUE` texts. Raises UserError for a key of neither, or of
    both."""
    found: dict[str, dict[str, Any]] = {"strategy": {}, "stream": {}}
    owners = {"strategy": strategy, "stream": stream}
    for text in assignments:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"--set {text!r}: write KEY=VALUE")
        prefix, _, rest = key.partition(".")
        if prefix in owners and rest:
            owner, key = prefix, rest
        else:
            owner = _owner(key, text, strategy, stream)
        known = owners[owner].settings.get(key)
        found[owner][key] = parse_value(value, known, text)
    return found["strategy"], found["stream"]


def _owner(key: str, text: str, strategy: Entry, stream: Entry) -> str:
    here, there = key in strategy.settings, key in stream.settings
    if here and there:
        raise UserError(
            f"--set {text}: strategy {strategy.name} and stream {stream.name} both have {key!r}; "
            f"write strategy.{text} or stream.{text}"
        )
    if here or there:
        return "strategy" if here else "stream"
    if not (strategy.complete and stream.complete):
        return "strategy" if not strategy.complete else "stream"
    hint = did_you_mean(key, strategy.settings.keys() | stream.settings.keys())
    raise UserError(f"neither strategy {strategy.name} nor stream {stream.name} has a setting {key!r}{hint}")


def parse_value(text: str, setting: Setting | None, shown: str) -> Any:
    """A YAML value; left as text where the setting takes text only, null for `none` where it may be unset."""
    kind = setting.type if setting else ""
    words = set(re.findall(r"[A-Za-z]+", re.sub(r"'[^']*'", "", kind)))
    if "None" in words and text.strip().lower() in ("none", "null", "~", ""):
        return None
    choices = re.findall(r"'([^']*)'", kind)
    if text in choices or ("str" in words and not words & {"int", "float", "bool", "list", "dict", "tuple", "Any"}):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
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


def parse_budget(texts: list[str]) -> dict[str, float]:
    """`flops=1e12,seconds=90,memory=10MB`: limits by name, bytes for memory."""
    found: dict[str, float] = {}
    for part in (part for text in texts for part in text.split(",")):
        key, equals, amount = part.strip().partition("=")
        match = re.fullmatch(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*", amount)
        units = SECONDS if key == "seconds" else UNITS
        try:
            if not equals or match is None:
                raise ValueError
            found[key] = float(match[1]) * units[match[2].lower()]
        except (ValueError, KeyError):
            raise UserError(
                f"--budget {part!r}: write flops=1e12, seconds=90, steps=500 or memory=10MB, with commas between"
            ) from None
    return found


def parse_seeds(text: str) -> list[int]:
    """`0-4` or `0,3,7`: each once, in the order given."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None or int(match[2] or match[1]) < int(match[1]) or int(match[2] or match[1]) >= 2**32:
            raise UserError(f"--seeds {text!r}: write 0-4 or 0,3,7")
        if int(match[2] or match[1]) - int(match[1]) >= MOST_SEEDS:
            raise UserError(f"--seeds {text!r}: more than {MOST_SEEDS} runs")
        seeds.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
    return list(dict.fromkeys(seeds))


def _check_schedule(name: str) -> None:
    from clbench.schedules import SCHEDULES

    if name not in SCHEDULES:
        raise UserError(f"unknown schedule {name!r}{did_you_mean(name, SCHEDULES)} (`clbench list schedules`)")
