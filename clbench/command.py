"""The exact command lines that repeat runs, from their records alone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from clbench import catalogue
from clbench.catalogue import Entry, Kind, Setting
from clbench.errors import UserError
from clbench.phase import TrainingConfig
from clbench.record import Record
from clbench.settings import parse_value
from clbench.spec import RunSpec
from clbench.upstream import PREFIX

KINDS: tuple[Kind, Kind] = ("strategy", "stream")
APART = (
    *("strategy", "stream", "strategy_settings", "stream_settings", "upstream_settings"),
    *("budget", "data_root", "channels_last", "seed"),
)
ALWAYS = ("backbone", "device", "threads")  # their default depends on the stream or the machine


def repeat_command(record: Record, full: bool = False) -> str:
    """`clbench run ...` that gives the same specification (`RunSpec.hash`), as it was resolved, on the same machine.

    Quoted for a POSIX shell, on one line, without control characters. Settings that equal the default of the installed
    class are left out; full: none are, nor where the class is not found. Of a strategy or stream in a file the command
    names the file, without its folder.
    """
    return shlex.join(_arguments(record["spec"], record["spec"]["seed"], full))


def repeat_commands(records: Iterable[Record], full: bool = False) -> list[str]:
    """The commands that repeat several runs; those that differ in the seed only share one (`--seeds 0-4`)."""
    seeds: dict[str, tuple[dict[str, Any], list[int]]] = {}
    for record in records:
        spec = record["spec"]
        same = json.dumps({**spec, "seed": None, "data_root": None}, sort_keys=True)
        seeds.setdefault(same, (spec, []))[1].append(spec["seed"])
    return [shlex.join(_arguments(spec, sorted(set(found)), full)) for spec, found in seeds.values()]


def _arguments(spec: Mapping[str, Any], seeds: int | Sequence[int], full: bool) -> list[str]:
    found = {kind: _entry(kind, spec[kind]) for kind in KINDS}
    words = ["clbench", "run", *(_name(spec[kind]) for kind in KINDS)]
    for kind in KINDS:
        for key, value in spec[f"{kind}_settings"].items():
            entry = found[kind]
            setting = entry.settings.get(key) if entry else None
            if full or setting is None or not _is_default(value, setting):
                words += ["--set", f"{_prefix(kind, key, found)}{key}={value_text(value, setting)}"]
    for key, value in (spec.get("upstream_settings") or {}).items():
        if full or key not in TrainingConfig.model_fields or value != TrainingConfig.model_fields[key].default:
            words += ["--set", f"{PREFIX}{key}={value_text(value, None)}"]
    words += _options(spec)
    if not isinstance(seeds, int) and len(seeds) == 1:
        seeds = seeds[0]
    if isinstance(seeds, int):
        return words + (["--seed", str(seeds)] if seeds else [])
    return [*words, "--seeds", seed_list(seeds)]


def _options(spec: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for name, field in RunSpec.model_fields.items():
        value = spec.get(name, field.default)
        if name in APART or value is None or (value == field.default and name not in ALWAYS):
            continue
        option = f"--{name.replace('_', '-')}"
        words += [option] if value is True else [option, str(value)]
    layout = spec["channels_last"]
    if layout is not None and layout != (spec["device"] == "cuda" or spec["precision"] == "bf16"):
        words.append("--channels-last" if layout else "--no-channels-last")
    if spec["budget"]:
        words += ["--budget", ",".join(f"{key}={_amount(limit)}" for key, limit in spec["budget"].items())]
    return words


def seed_list(seeds: Sequence[int]) -> str:
    """`0-4`, `0,3,7` or `0-2,9`, of seeds in ascending order."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def value_text(value: Any, setting: Setting | None) -> str:
    """What to write after `KEY=` so that it is read as this value: every text, and all that the setting can hold. What
    the installed class cannot take at all is written plainly, to be refused."""
    first = None
    for text in _spellings(value):
        if not text.isprintable():
            continue
        first = text if first is None else first
        try:
            if _same(parse_value(text, setting, text), value):
                return text
        except UserError:
            continue
    return str(first)


def _spellings(value: Any) -> Iterator[str]:
    """Ways to write a value, the plainest first; the last ones say any text, in any setting."""
    flow: dict[str, Any] = {"default_flow_style": True, "width": float("inf"), "sort_keys": False}
    if isinstance(value, str):
        yield value
        quoted = yaml.safe_dump(value, default_style='"', **flow).strip()
        yield quoted
        yield f"!!str {quoted}"
    elif value is None:
        yield from ("none", "null")
    else:
        yield json.dumps(value, separators=(",", ":"))
        yield yaml.safe_dump(value, **flow).strip().removesuffix("...").strip()
        yield yaml.safe_dump(value, default_style='"', **flow).strip()


@lru_cache(maxsize=256)
def _entry(kind: Kind, name: str) -> Entry | None:
    try:
        return catalogue.find(kind, Path(name).name)
    except UserError:
        return None


def _name(name: str) -> str:
    plain = Path(name).name
    return f"./{plain}" if plain.partition(":")[0].endswith(".py") else plain


def _prefix(kind: Kind, key: str, found: Mapping[Kind, Entry | None]) -> str:
    """Whose setting it is, where the key alone does not tell."""
    owners = [other for other in KINDS if (entry := found[other]) is not None and key in entry.settings]
    sure = owners == [kind] and all(found.values())
    return "" if sure else f"{kind}."


def _is_default(value: Any, setting: Setting) -> bool:
    return setting.default_known and not setting.required and _same(value, setting.default)


def _same(a: Any, b: Any) -> bool:
    """Whether two values are the same JSON: 1 is not 1.0, and a tuple is a list."""
    try:
        return json.dumps(a, ensure_ascii=False) == json.dumps(b, ensure_ascii=False)
    except (TypeError, ValueError):
        return False


def _amount(limit: float) -> str:
    return str(int(limit)) if limit == int(limit) and limit < 1e15 else repr(limit)
