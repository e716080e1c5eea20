"""The text of a suite: YAML into layers of values (defaults, blocks, entries), with who lies over whom."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import StrictStr

from clbench.config import Config, parse_config
from clbench.errors import UserError, did_you_mean
from clbench.quantities import parse_seeds
from clbench.spec import RunSpec
from clbench.sweeps.suite_yaml import read_yaml

MOST_LAYERS = 100
AXES = {"strategies": "strategy", "streams": "stream", "seeds": "seed", "order_seeds": "order_seed"}
"""The plural of what an entry may have several of, and the key of a specification it stands for."""
STRUCTURE = ("name", "extends", "grid", "resources")
PLAIN = (str, int, float, bool, type(None))


class SuiteFile(Config):
    """A suite as it is written. defaults: under every entry. blocks: defaults with a name, for entries to extend.

    extends: another suite file, whose defaults and blocks lie under this one's, and whose runs count where this one
    has none.
    """

    name: StrictStr | None = None
    description: StrictStr = ""
    extends: StrictStr | None = None
    defaults: dict[str, Any] = {}
    blocks: dict[str, dict[str, Any]] = {}
    runs: list[dict[str, Any]] = []


@dataclass(frozen=True)
class Layer:
    """What one mapping of the file says: the values of each key (one where it is fixed, several where it is an axis).

    shared: from defaults or a block, so that a setting counts only for those who have it.
    """

    place: str
    shared: bool
    values: dict[str, list[Any]]
    resources: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SuiteEntry:
    """An entry of `runs`: its layers, the lowest first."""

    place: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class SuiteText:
    """A file with all it extends."""

    path: Path
    name: str
    description: str
    entries: tuple[SuiteEntry, ...]


def read_suite_text(path: Path) -> SuiteText:
    """Read a suite and the files it extends. Raises UserError naming file and place."""
    files = list(_lineage(path))
    below = [_Source(file, content) for file, content in reversed(files)]  # the lowest first
    own, content = below[-1], files[0][1]
    blocks: dict[str, tuple[_Source, dict[str, Any]]] = {}
    for source in below:
        for name, values in source.file.blocks.items():
            blocks[name] = (source, values)
    for name in blocks:
        _block_layers(name, blocks, ())
    defaults: list[Layer] = []
    for source in below:
        defaults += source.layers(source.file.defaults, "defaults", True, blocks)
    runs = next((source for source in reversed(below) if source.file.runs), None)
    if runs is None:
        raise UserError(f"{own.at()}: no runs; write at least `runs: [{{strategy: replay, stream: split-digits}}]`")
    entries = []
    for number, values in enumerate(runs.file.runs, 1):
        label = values.get("name")
        place = runs.at(f"runs entry {number}" + (f" ({label})" if isinstance(label, str) else ""))
        entries.append(SuiteEntry(place, (*defaults, *runs.layers(values, place, False, blocks))))
    return SuiteText(path, content.name or path.stem, content.description, tuple(entries))


@dataclass(frozen=True)
class _Source:
    """A file of the lineage."""

    path: Path
    file: SuiteFile

    def at(self, place: str = "") -> str:
        return f"suite {self.path}" + (f", {place}" if place else "")

    def layers(
        self, values: dict[str, Any], place: str, shared: bool, blocks: dict[str, tuple[_Source, dict[str, Any]]]
    ) -> list[Layer]:
        """The blocks that `values` extends, then `values`."""
        found: list[Layer] = []
        full = place if place.startswith("suite ") else self.at(place)
        for name in _names(values.get("extends"), full):
            if name not in blocks:
                raise UserError(f"{full}: there is no block {name!r}{did_you_mean(name, blocks)}")
            found += _block_layers(name, blocks, ())
        return [*found, _layer(values, full, shared, self.path.parent)]


def _block_layers(name: str, blocks: dict[str, tuple[_Source, dict[str, Any]]], under: tuple[str, ...]) -> list[Layer]:
    source, values = blocks[name]
    place = source.at(f"block {name!r}")
    if name in under:
        cycle = " -> ".join([*under[under.index(name) :], name])
        raise UserError(f"{place}: blocks extend each other in a cycle: {cycle}")
    found: list[Layer] = []
    for parent in _names(values.get("extends"), place):
        if parent not in blocks:
            raise UserError(f"{place}: there is no block {parent!r}{did_you_mean(parent, blocks)}")
        found += _block_layers(parent, blocks, (*under, name))
    if len(found) > MOST_LAYERS:
        raise UserError(f"{place}: it extends more than {MOST_LAYERS} blocks, one over the other")
    return [*found, _layer(values, place, True, source.path.parent)]


def _lineage(path: Path) -> Iterator[tuple[Path, SuiteFile]]:
    """The file, the one it extends, and so on."""
    seen: list[Path] = []
    while True:
        if path.resolve() in seen:
            names = " -> ".join(file.name for file in [*seen[seen.index(path.resolve()) :], path])
            raise UserError(f"suite {path}: files extend each other in a cycle: {names}")
        seen.append(path.resolve())
        content = _read_file(path)
        yield path, content
        if content.extends is None:
            return
        parent = path.parent / Path(content.extends).expanduser()
        if not parent.is_file():
            raise UserError(f"suite {path}: extends: no such file: {parent}")
        path = parent


def _read_file(path: Path) -> SuiteFile:
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"suite {path}: expected `key: value` lines, as in `runs: [...]`")
    place = f"suite {path}"
    for key in values:
        if key not in SuiteFile.model_fields:
            raise UserError(f"{place}: there is no key {_shown(key)} here{_right_place(key)}")
    for key, kind in {"defaults": "key: value", "blocks": "name: {key: value}"}.items():
        if values.get(key, {}) is None:
            values[key] = {}
        _mapping(values.get(key, {}), f"{place}, {key}", kind)
    for name, block in values.get("blocks", {}).items():
        values["blocks"][name] = {} if block is None else _mapping(block, f"{place}, block {name!r}", "key: value")
    runs = values.get("runs")
    if "runs" in values and (not isinstance(runs, list) or not runs):
        raise UserError(f"{place}: runs must be a list with at least one entry (`- strategy: ...`)")
    for number, entry in enumerate(runs or [], 1):
        _mapping(entry, f"{place}, runs entry {number}", "key: value")
    content: SuiteFile = parse_config(SuiteFile, values, place)
    return content


def _right_place(key: Any) -> str:
    if key in (*AXES, *AXES.values(), *RunSpec.model_fields, "grid", "resources"):
        return "; it belongs into defaults, or an entry of runs"
    return did_you_mean(str(key), SuiteFile.model_fields)


def _mapping(value: Any, place: str, kind: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{place}: expected `{kind}` lines, not {_shown(value)}")
    for key in value:
        if not isinstance(key, str):
            raise UserError(f"{place}: the key {_shown(key)} must be text: put it in quotes")
    return value


def _layer(values: dict[str, Any], place: str, shared: bool, folder: Path) -> Layer:
    """A mapping's values under the keys of specifications and settings."""
    found: dict[str, list[Any]] = {}

    def put(key: str, options: list[Any]) -> None:
        if key in found:
            ways = f"as {key} or {_plural(key)}" if key in AXES.values() else "as a plain value or under grid"
            raise UserError(f"{place}: {key} is given twice; give it once, {ways}")
        found[key] = options

    for key, value in values.items():
        _check_plain(value, f"{place}: {key}")
        name = AXES.get(key, key)
        if key in STRUCTURE:
            continue
        if name in AXES.values():
            put(name, _options(name, value, place, folder))
        elif name in ("strategy_settings", "stream_settings", "upstream_settings"):
            for inner, given in _mapping(value, f"{place}: {key}", "key: value").items():
                put(f"{name.removesuffix('_settings')}.{inner}", [given])
        else:
            put(name, [value])
    for key, value in _mapping(values.get("grid") or {}, f"{place}: grid", "key: [value, value]").items():
        name = AXES.get(key, key)
        if name in AXES.values():
            put(name, _options(name, value, f"{place}: grid", folder))
            continue
        if not isinstance(value, list):
            raise UserError(f"{place}: grid: {key} must be a list of values, as in [{_shown(value)}]")
        if not value:
            raise UserError(f"{place}: grid: {key} is empty: there is nothing to run")
        put(name, value)
    label = values.get("name", "")
    if not isinstance(label, str):
        raise UserError(f"{place}: name must be text, not {_shown(label)}")
    return Layer(place, shared, found, _mapping(values.get("resources") or {}, f"{place}: resources", "key: value"))


def _options(key: str, value: Any, place: str, folder: Path) -> list[Any]:
    """The values of an axis that need not stand under `grid`."""
    found: Any
    if key in ("seed", "order_seed"):
        found = _seeds(value, f"{place}: {key}s")
    else:
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise UserError(f"{place}: {key} must be a name or a list of names, not {_shown(value)}")
        found = [_beside(name, folder) for name in found]
    if not found:
        raise UserError(f"{place}: the list of {_plural(key)} is empty: there is nothing to run")
    return found


def _plural(key: str) -> str:
    return next(many for many, one in AXES.items() if one == key)


def _seeds(value: Any, owner: str) -> list[int]:
    """`3`, `[0, 3]`, `0-4`, `[0-4, 9]`."""
    if isinstance(value, str):
        return parse_seeds(value, owner)
    found: list[int] = []
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, str):
            found += parse_seeds(part, owner)
        elif isinstance(part, int) and not isinstance(part, bool) and 0 <= part < 2**32:
            found.append(part)
        else:
            raise UserError(f"{owner}: write a number, 0-4 or [0, 3, 7], not {_shown(part)}")
    return found


def _beside(name: str, folder: Path) -> str:
    """A file strategy's path, seen from the suite."""
    path, colon, attribute = name.partition(":")
    return f"{folder / Path(path).expanduser()}{colon}{attribute}" if path.endswith(".py") else name


def _names(value: Any, place: str) -> list[str]:
    names = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{place}: extends must be a block's name or a list of them, not {_shown(value)}")
    return names


def _check_plain(value: Any, where: str) -> None:
    """Dates, binary and infinite numbers are YAML, but no setting's value."""
    if isinstance(value, list):
        for item in value:
            _check_plain(item, where)
    elif isinstance(value, dict):
        for item in value.values():
            _check_plain(item, where)
    elif not isinstance(value, PLAIN):
        raise UserError(f"{where}: {_shown(value)} is read as a {type(value).__name__}: put it in quotes")
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: {value} is no value for a setting")


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = " ".join(str(value).split()) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
