"""Schedules as they are written: NAME, NAME:key=value,..., a file of JSON, or the JSON itself."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from clbench.errors import UserError, did_you_mean
from clbench.schedules.composition import Schedule
from clbench.schedules.shapes import Context
from clbench.schedules.table import PRESETS, Parameter, Preset

SCHEDULES: dict[str, Preset] = {preset.name: preset for preset in PRESETS}
FLAGS = {"yes": True, "true": True, "no": False, "false": False}


@lru_cache(maxsize=256)
def find(text: str) -> Schedule:
    """The schedule of that text. Raises UserError."""
    if text.lstrip().startswith("{"):
        return Schedule.from_json(text)
    if text.endswith(".json"):
        return _of_file(Path(text))
    name, colon, rest = text.partition(":")
    if name not in SCHEDULES:
        raise UserError(f"unknown schedule {text!r}{did_you_mean(name, SCHEDULES)} (`clbench list schedules`)")
    preset = SCHEDULES[name]
    try:
        schedule = preset.build(**_parameters(preset, rest, text) if colon else {})
    except UserError as error:
        raise UserError(f"schedule {text!r}: {re.sub(f'^schedule( {name})?: ', '', str(error))}") from None
    return replace(schedule, name=text)


def portable(text: str) -> str:
    """The same schedule without a file of this machine: JSON in the file's place. Raises UserError."""
    schedule = find(text)
    return schedule.to_json() if text.endswith(".json") else text


def factor(name: str, step: int, steps: int) -> float:
    """The multiple of the peak rate at 0-based `step` of a run of one phase of `steps` steps; beyond, the last value.

    Raises UserError for an unknown name, ValueError for a negative step or an empty phase.
    """
    return find(name).lr(step, 0, steps, Context(run_step=step, run_steps=steps))


def _of_file(path: Path) -> Schedule:
    try:
        return Schedule.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read schedule {path}: {' '.join(str(error).split())}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _parameters(preset: Preset, text: str, shown: str) -> dict[str, Any]:
    known = {parameter.name: parameter for parameter in preset.parameters}
    if preset.listed and "=" not in text:
        return {preset.listed: _value(known[preset.listed], text, shown)}
    found: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not value:
            raise UserError(f"after a colon stand {_example(preset)}, not {part!r}")
        if key not in known:
            raise UserError(f"{preset.name} has no parameter {key!r}{did_you_mean(key, known)}; {_known(preset)}")
        if key in found:
            raise UserError(f"{key} is given twice")
        found[key] = _value(known[key], value, shown)
    return found


def _value(parameter: Parameter, text: str, shown: str) -> Any:
    kind = parameter.kind
    if isinstance(kind, tuple) or text in ("none", ""):
        if isinstance(kind, tuple) and text in kind:
            return text
        words = ", ".join(kind) if isinstance(kind, tuple) else "a value"
        raise UserError(f"after a colon stand values such as {parameter.name}=...; {text!r} is none of {words}")
    if kind == "flag" and text in FLAGS:
        return FLAGS[text]
    if kind == "count" and re.fullmatch(r"[1-9]\d*", text):
        return int(text)
    if kind == "shares" and re.fullmatch(r"0?\.\d+(,0?\.\d+)*", text):
        return [float(place) for place in text.split(",")]
    if kind == "length" and re.fullmatch(r"\d+", text):
        return int(text)
    if kind in ("length", "number", "signed"):
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        highest = 1.0 if kind == "length" else float("inf")
        if (0 <= value <= highest or kind == "signed") and abs(value) < float("inf"):
            return value
    raise UserError(f"after a colon stand values such as {parameter.name}={_WANTED[kind]}, not {text!r}")


_WANTED = {
    "flag": "yes or no",
    "count": "5",
    "shares": "0.6,0.85 (between 0 and 1)",
    "length": "0.01 (a share) or 20 (steps)",
    "number": "0.1",
    "signed": "-0.5",
}


def _example(preset: Preset) -> str:
    if preset.listed:
        return f"{preset.listed}, as in {preset.name}:{'0.6,0.85' if preset.listed == 'places' else '5'}"
    return f"values, as in infinite:cooldown=linear,floor=0.1 ({_known(preset)})"


def _known(preset: Preset) -> str:
    names = ", ".join(parameter.name for parameter in preset.parameters)
    return f"it has {names}" if names else "it has no parameters"
