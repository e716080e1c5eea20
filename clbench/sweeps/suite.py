"""A suite: many runs from one file, expanded and checked by their metadata. No torch is imported for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from clbench import catalogue, upstream
from clbench.budgets import budget_amount
from clbench.catalogue import Entry
from clbench.config import parse_config
from clbench.errors import UserError, did_you_mean
from clbench.settings import Owner, check_schedule, check_settings, no_owner, owner_of
from clbench.spec import RunSpec, make_spec
from clbench.sweeps.suite_file import AXES, Layer, SuiteEntry, SuiteText, read_suite_text
from clbench.sweeps.suite_resources import SuiteResources

MOST_RUNS = 10_000
SETTINGS = ("strategy_settings", "stream_settings", "upstream_settings")
SPEC_KEYS = tuple(key for key in RunSpec.model_fields if key not in SETTINGS)


@dataclass(frozen=True)
class SuiteRun:
    """One run of a suite. `spec` holds the settings that were given; `place` is the entry, for messages."""

    place: str
    spec: RunSpec
    resources: SuiteResources


@dataclass(frozen=True)
class Suite:
    """What a suite file asks for. notes: what the user should know, a line each."""

    name: str
    path: Path
    description: str
    runs: tuple[SuiteRun, ...]
    notes: tuple[str, ...] = ()


def find_suite(name: str | Path) -> Path:
    """The file of a suite: a path, or the name of one that comes with clbench. Raises UserError."""
    path = Path(name).expanduser()
    packaged = packaged_suites()
    if path.exists() and not path.is_dir():
        return path
    if str(name) in packaged:
        return packaged[str(name)]
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a suite file (YAML)")
    if path.suffix in (".yaml", ".yml") or path.parent != Path():
        raise UserError(f"no such suite: {path}")
    near = did_you_mean(str(name), packaged)
    raise UserError(f"no suite {str(name)!r}: it is no file, and none that comes with clbench{near}")


def packaged_suites() -> dict[str, Path]:
    """Name -> file of the suites that come with clbench."""
    from importlib.resources import files

    folder = Path(str(files("clbench.configs").joinpath("suites")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_suite(path: str | Path) -> Suite:
    """Read, expand and check a suite file, or a packaged suite by name. Raises UserError: file, place, what to do.

    Runs stand in the order of the entries; within one, in that of strategies, streams, settings, order seeds, seeds.
    """
    text = read_suite_text(find_suite(path))
    expansion = _Expansion(text)
    runs = tuple(expansion.runs())
    return Suite(text.name, text.path, text.description, runs, tuple(expansion.notes))


@dataclass(frozen=True)
class _Given:
    """The values of a key after all layers, and the one that had the last word."""

    layer: Layer
    rank: int
    values: list[Any]


class _Expansion:
    """From layers to runs. Remembers which settings are known to whom, so that a default nobody has is found."""

    def __init__(self, text: SuiteText) -> None:
        self.text = text
        self.notes: list[str] = []
        self.known: set[str] = set()
        self.total = 0
        self._entries: dict[tuple[str, str], Entry] = {}
        self._checked: set[str] = set()

    def runs(self) -> Iterator[SuiteRun]:
        """All runs, each once."""
        first: dict[str, str] = {}
        twice: dict[tuple[str, str], int] = {}
        for entry in self.text.entries:
            for run in self._entry(entry):
                key = json.dumps(run.spec.model_dump(mode="json", exclude={"threads", "device"}), sort_keys=True)
                if key in first:
                    pair = (_short(run.place), _short(first[key]))
                    twice[pair] = twice.get(pair, 0) + 1
                    continue
                first[key] = run.place
                yield run
        for (place, before), count in twice.items():
            where = "twice" if place == before else f"in {before} too"
            runs = "1 run stands" if count == 1 else f"{count} runs stand"
            self.notes.append(f"{place}: {runs} {where}, and will be run once")
        self._check_shared()

    def _entry(self, entry: SuiteEntry) -> Iterator[SuiteRun]:
        merged: dict[str, _Given] = {}
        for rank, layer in enumerate(entry.layers):
            for key, values in layer.values.items():
                merged[key] = _Given(layer, rank, values)
        for key in ("strategy", "stream"):
            if key not in merged:
                plural = catalogue.PLURALS[key]  # type: ignore[index]
                raise UserError(f"{entry.place}: no {key}; write {key}: NAME or {plural}: [NAME, NAME]")
        if "threads" in merged:
            raise UserError(f"{merged['threads'].layer.place}: threads: write resources: {{cpus: N}} instead")
        resources = self._resources(entry)
        for strategy in merged["strategy"].values:
            for stream in merged["stream"].values:
                yield from self._cell(entry, merged, {"strategy": strategy, "stream": stream}, resources)

    def _cell(
        self, entry: SuiteEntry, merged: dict[str, _Given], names: dict[str, str], resources: SuiteResources
    ) -> Iterator[SuiteRun]:
        """The runs of one strategy on one stream."""
        strategy = self._find("strategy", names["strategy"], merged["strategy"].layer)
        stream = self._find("stream", names["stream"], merged["stream"].layer)
        axes = self._axes(merged, strategy, stream)
        self._count(entry, axes)
        for values in product(*(given.values for given in axes.values())):
            chosen = dict(zip(axes, values, strict=True))
            if chosen.get("upstream", upstream.OWN) != upstream.SHARED:
                chosen = {key: value for key, value in chosen.items() if not _for_others(key, axes)}
            yield SuiteRun(entry.place, self._spec(entry, names, chosen), resources)

    def _axes(self, merged: dict[str, _Given], strategy: Entry, stream: Entry) -> dict[str, _Given]:
        """Values by `strategy.KEY`, `stream.KEY` or key of the specification, seeds last; checked one by one."""
        found: dict[str, _Given] = {}
        for key, given in merged.items():
            if key in ("strategy", "stream"):
                continue
            if key in SPEC_KEYS:
                found[key] = self._checked_spec(key, given)
                continue
            if key.startswith(upstream.PREFIX):
                found[key] = self._checked_upstream(key, given)
                continue
            try:
                owned = self._owner(key, given.layer, strategy, stream)
                if owned is None:
                    continue
                self._check_setting(strategy if owned[0] == "strategy" else stream, owned[1], given)
            except UserError as error:
                raise UserError(f"{given.layer.place}: {error}") from None
            self.known.add(key)
            name = f"{owned[0]}.{owned[1]}"
            if name in found and found[name].rank == given.rank:
                raise UserError(f"{given.layer.place}: {owned[1]} and {name} are the same setting; give one of them")
            if name not in found or found[name].rank < given.rank:
                found[name] = given
        self.known |= {*strategy.settings, *(f"strategy.{key}" for key in strategy.settings)}
        self.known |= {*stream.settings, *(f"stream.{key}" for key in stream.settings)}
        return found | {key: found.pop(key) for key in ("order_seed", "seed") if key in found}

    def _owner(self, key: str, layer: Layer, strategy: Entry, stream: Entry) -> tuple[Owner, str] | None:
        """Whose setting it is, and its name there; None for a default of others."""
        owned = owner_of(key, strategy, stream)
        if owned is not None and layer.shared:
            entry = strategy if owned[0] == "strategy" else stream
            if entry.complete and owned[1] not in entry.settings:
                return None
        if owned is None and not layer.shared:
            raise no_owner(key, strategy, stream)
        return owned

    def _check_setting(self, entry: Entry, key: str, given: _Given) -> None:
        for value in given.values:
            check = json.dumps([entry.kind, entry.name, key, value], sort_keys=True)
            if check not in self._checked:
                self._check_value(entry, key, value)
                if key == "schedule" and isinstance(value, str):
                    check_schedule(value)
                self._checked.add(check)

    def _check_value(self, entry: Entry, key: str, value: Any) -> None:
        try:
            check_settings(entry, {key: value})
        except UserError as error:
            hint = f"; for a run with each of them, write grid: {{{key}: [...]}}" if isinstance(value, list) else ""
            raise UserError(f"{error}{hint}") from None

    def _checked_spec(self, key: str, given: _Given) -> _Given:
        values = [_budget(value, given.layer.place) for value in given.values] if key == "budget" else given.values
        for value in values:
            check = json.dumps([key, value], sort_keys=True)
            if check not in self._checked:
                make_spec({"strategy": "-", "stream": "-", key: value}, given.layer.place)
                if key == "backbone" and value is not None:
                    self._check_backbone(value, given.layer.place)
                self._checked.add(check)
        return _Given(given.layer, given.rank, values)

    def _checked_upstream(self, key: str, given: _Given) -> _Given:
        """A setting of the upstream; where it stands in defaults or a block, it counts for runs that have one."""
        for value in given.values:
            settings = {key.removeprefix(upstream.PREFIX): value}
            upstream.check_settings(upstream.SHARED, settings, f"{given.layer.place}: upstream")
        self.known.add(key)
        return given

    def _check_backbone(self, name: str, place: str) -> None:
        from clbench.models import describe

        try:
            describe(name)
        except UserError as error:
            raise UserError(f"{place}: {error}") from None

    def _spec(self, entry: SuiteEntry, names: dict[str, str], chosen: dict[str, Any]) -> RunSpec:
        values: dict[str, Any] = {**names, "strategy_settings": {}, "stream_settings": {}, "upstream_settings": {}}
        for key, value in chosen.items():
            owner, dot, setting = key.partition(".")
            if dot:
                values[f"{owner}_settings"][setting] = value
            else:
                values[key] = value
        spec = make_spec(values, entry.place)
        upstream.check_settings(spec.upstream, spec.upstream_settings, f"{entry.place}: upstream")
        return spec

    def _count(self, entry: SuiteEntry, axes: dict[str, _Given]) -> None:
        here = prod(len(given.values) for given in axes.values())
        self.total += here
        if self.total > MOST_RUNS:
            raise UserError(
                f"{entry.place}: the suite comes to {self.total:,} runs or more; the limit is {MOST_RUNS:,}: "
                "use fewer values in its grid, or several suites"
            )

    def _resources(self, entry: SuiteEntry) -> SuiteResources:
        values: dict[str, Any] = {}
        place = entry.place
        for layer in entry.layers:
            if layer.resources:
                values, place = values | layer.resources, layer.place
        found: SuiteResources = parse_config(SuiteResources, values, f"{place}: resources")
        return found

    def _find(self, kind: catalogue.Kind, name: str, layer: Layer) -> Entry:
        if (kind, name) not in self._entries:
            try:
                self._entries[kind, name] = catalogue.find(kind, name)
            except UserError as error:
                raise UserError(f"{layer.place}: {error}") from None
        return self._entries[kind, name]

    def _check_shared(self) -> None:
        """A setting in defaults or an extended block that nobody has is a mistake."""
        for entry in self.text.entries:
            for layer in entry.layers:
                for key in layer.values:
                    if key not in SPEC_KEYS and key not in self.known:
                        names = {name for name in self.known if "." not in name}
                        hint = did_you_mean(key, {*SPEC_KEYS, *AXES, *names})
                        raise UserError(
                            f"{layer.place}: no strategy or stream of the suite has a setting {key!r}{hint}"
                        )


def _for_others(key: str, axes: dict[str, _Given]) -> bool:
    """Whether it is a setting of an upstream that was given for those who have one."""
    return key.startswith(upstream.PREFIX) and axes[key].layer.shared


def _budget(value: Any, place: str) -> Any:
    """Limits with units as numbers."""
    if not isinstance(value, dict):
        return value
    found = {}
    for key, limit in value.items():
        try:
            found[key] = budget_amount(key, limit) if isinstance(limit, str) else limit
        except ValueError:
            raise UserError(f"{place}: budget {key}: {limit!r}: write a number, full, 5min, 10MB, ...") from None
    return found


def _short(place: str) -> str:
    """The place without the file."""
    return place.partition(", ")[2] or place
