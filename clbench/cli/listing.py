"""`clbench list` and `clbench show`: from source text and registries, without importing a strategy or torch."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clbench import catalogue
from clbench.catalogue import Entry, Setting
from clbench.cli.text import columns, print_json, print_lines, reflowed, width, wrapped
from clbench.errors import UserError, did_you_mean
from clbench.published import find_recipe, published, recipes
from clbench.spec import read_spec_file

LISTS = ("strategies", "streams", "schedules", "models", "configs")
SHOWN = ("strategy", "stream", "schedule", "metric", "config")


def list_command(kind: str, as_json: bool) -> None:
    """Print names and summaries."""
    if kind not in LISTS:
        raise UserError(f"cannot list {kind!r}{did_you_mean(kind, LISTS)} (clbench list {'|'.join(LISTS)})")
    rows = {"schedules": _schedules, "models": _models, "configs": _configs}.get(kind, lambda: _installed(kind))()
    if as_json:
        print_json(rows)
    elif rows:
        print_lines(columns([[row["name"], row["summary"]] for row in rows], right=False, indent=""))
    else:
        sys.stderr.write(f"clbench: no {kind} are installed\n")


def _installed(kind: str) -> list[dict[str, Any]]:
    rows = []
    for entry in catalogue.entries("strategy" if kind == "strategies" else "stream"):
        if isinstance(entry, UserError):
            sys.stderr.write(f"clbench: left out: {entry}\n")
        else:
            rows.append(entry.as_dict())
    return rows


def _schedules() -> list[dict[str, Any]]:
    from clbench.schedules import SCHEDULES

    return [{"name": schedule.name, "summary": schedule.summary} for schedule in SCHEDULES.values()]


def _models() -> list[dict[str, Any]]:
    from clbench.models import list_models

    return [asdict(info) for info in list_models()]


def _configs() -> list[dict[str, Any]]:
    return [{"name": name, "summary": _headline(path), "file": str(path)} for name, path in recipes().items()]


def _headline(path: Path) -> str:
    """The first line of a file's opening comment."""
    return path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ").strip()


def show_command(kind: str, name: str, as_json: bool) -> None:
    """Print all that is known of one strategy, stream, schedule, metric or recipe."""
    if kind == "config":
        _show_config(find_recipe(name), as_json)
    elif kind == "metric":
        _show_metric(name, as_json)
    elif kind == "schedule":
        _show_schedule(name, as_json)
    elif kind in ("strategy", "stream"):
        entry = catalogue.find("strategy" if kind == "strategy" else "stream", name)
        if as_json:
            print_json(entry.as_dict(whole=True))
        else:
            print_lines(page(entry))
    else:
        raise UserError(f"cannot show {kind!r}{did_you_mean(kind, SHOWN)} (clbench show {'|'.join(SHOWN)} NAME)")


def _show_metric(name: str, as_json: bool) -> None:
    from clbench.metrics import explain
    from clbench.metrics.definitions import base_key
    from clbench.metrics.explanation import definitions

    text = explain(name)
    if as_json:
        known = definitions()
        print_json(
            {"name": name, "summary": known[base_key(name)].meaning, **asdict(known[base_key(name)]), "text": text}
        )
    else:
        print_lines([text])


def _show_schedule(name: str, as_json: bool) -> None:
    """A preset by its name; of one written in full, the pieces it stands for as well."""
    from clbench.schedules import SCHEDULES, describe, find

    schedule, preset = find(name), SCHEDULES.get(name.partition(":")[0])
    parameters = describe(preset) if preset else []
    composed = json.loads(schedule.to_json())
    if as_json:
        known = {"summary": preset.summary, "source": preset.source} if preset else {}
        print_json({"name": name, **known, "parameters": parameters, "composed": composed})
        return
    lines = wrapped(f"{name}: {preset.summary if preset else 'a schedule of its own'}", indent="")
    lines += ["", *wrapped(f"source: {preset.source}")] if preset else []
    lines += ["", f"parameters (--schedule {preset.name if preset else 'NAME'}:KEY=VALUE,...)"]
    for parameter in parameters:
        default = "unset" if parameter["default"] is None else parameter["default"]
        lines.append(f"  {parameter['name']} = {default}".ljust(32) + f" {parameter['type']}")
        lines += wrapped(f"{parameter['description']} [{parameter['source']}]", indent="      ")
    lines += [] if parameters else ["  none"]
    spans = "every phase" if composed["clock"] == "phase" else "the whole run"
    lines += ["", f"pieces, over {spans} (rates are multiples of lr; lengths are steps, or shares in [0, 1])"]
    later = composed["later"]
    first = "phase 0" if later else spans
    for title, program in ((first, composed["first"]), ("later phases", later or [])):
        lines += wrapped(f"{title}: {'; '.join(map(_piece, program))}") if program else []
    lines += wrapped(f"on a branch (--set anneal=SHARE): {_piece(composed['anneal'])}, from where its parent stands")
    print_lines(lines)


def _piece(piece: dict[str, Any]) -> str:
    values = ", ".join(f"{key}={value}" for key, value in piece.items() if key not in ("piece", "length"))
    length = "" if piece["length"] is None else f" over {piece['length']}"
    return f"{piece['piece']}({values}){length}"


def _show_config(path: Path, as_json: bool) -> None:
    values = read_spec_file(path)
    numbers = published(values, f"config {path}")
    if as_json:
        print_json({**values, "file": str(path), "published": [number.model_dump() for number in numbers]})
        return
    lines = [path.read_text(encoding="utf-8").split("\npublished:")[0].rstrip(), "", "published"]
    for number in numbers:
        kind = " (secondary)" if number.secondary else ""
        kind += "" if number.comparable else " (of another experiment)"
        lines.append(f"  {number.metric}: {number.text}{kind}")
        lines += wrapped(f"{number.source}{f'. {number.note}' if number.note else ''}", indent="      ")
    print_lines([*lines, *(["  nothing"] if not numbers else []), "", f"clbench run --config {path}"])


def page(entry: Entry) -> list[str]:
    """All that is known of a strategy or stream, for a reader."""
    lines = wrapped(f"{entry.name}: {entry.summary}", indent="")
    rest = entry.doc.partition("\n")[2].strip("\n")
    if rest:
        lines += ["", *reflowed(rest)]
    if entry.paper:
        lines += ["", *wrapped(f"paper: {entry.paper}")]
    if entry.pretraining_overlap:
        lines += ["", *wrapped(f"pretraining data that overlap: {entry.pretraining_overlap}")]
    if entry.kind == "strategy":
        lines += ["", "needs", *columns(_needs(entry), right=False)]
    lines += ["", "settings (--set KEY=VALUE)"]
    lines += _settings(entry) if entry.settings else ["  none"]
    if not entry.complete:
        lines.append("  (a base class could not be read: there may be more)")
    return [*lines, "", f"version {entry.version}, {entry.file}"]


def _needs(entry: Entry) -> list[list[str]]:
    rows = [[key, _said(value)] for key, value in entry.needs.items()]
    return [*rows, ["inputs", entry.inputs]]


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "all" if value is None else str(value)


def _settings(entry: Entry) -> list[str]:
    lines: list[str] = []
    for setting in entry.settings.values():
        head = f"  {setting.name} = {_default(setting)}"
        kind = f"{_choices(setting.type)}{', ' + setting.range if setting.range else ''}"
        line = f"{head:<32} {kind}"
        lines += [line] if len(line) <= width() else [*wrapped(head.strip()), f"      {kind}"]
        source = f" [{setting.source}]" if setting.source else ""
        lines += wrapped(f"{setting.description}{source}".strip(), indent="      ")
    return [line[: max(width(), 60)] if len(line) > 400 else line for line in lines]


def _choices(annotation: str) -> str:
    """`Literal['a', 'b'] | None` as `a | b | None`."""
    return re.sub(r"Literal\[([^\]]*)\]", lambda found: found[1].replace("'", "").replace(", ", " | "), annotation)


def _default(setting: Setting) -> str:
    if setting.required:
        return "(required)"
    return "none" if setting.default is None else str(setting.default)
