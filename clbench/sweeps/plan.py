"""From a suite and a results folder to what is to be done: which runs are there, which go on, which begin."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench.errors import UserError
from clbench.record import strategy_label
from clbench.spec import RunSpec
from clbench.sweeps.history import NEW, Action, History
from clbench.sweeps.job import Job, Resources
from clbench.sweeps.suite import Suite, SuiteRun
from clbench.sweeps.suite_resources import SuiteResources
from clbench.upstream import PREFIX

if TYPE_CHECKING:
    from clbench.resolve import Parts
    from clbench.stream import Stream


@dataclass(frozen=True)
class Planned:
    """A run of the suite and what is to be done about it; `reason` says why, in a few words.

    folder: of the run that is done or will be resumed. settings: those that tell it from others of its strategy and
    stream in the suite. sources: hashes, by "strategy" and "stream".
    """

    job: Job
    action: Action
    reason: str
    place: str
    folder: Path | None
    settings: dict[str, Any]
    sources: dict[str, str]


@dataclass(frozen=True)
class Plan:
    """All runs of a suite, in its order. notes: what the user should know, a line each."""

    suite: Suite
    out: Path
    runs: tuple[Planned, ...]
    notes: tuple[str, ...]

    @property
    def jobs(self) -> list[Job]:
        """What is left for an engine: runs to be started or resumed."""
        return [planned.job for planned in self.runs if planned.action != "done"]


def make_plan(suite: Suite, out: Path, data_root: Path | None = None) -> Plan:
    """Resolve every run and compare it with the records under `out`. Nothing is written.

    A completed or diverged run of an equal specification (`RunSpec.hash`), made with the same source of strategy and
    stream on the same data, is done. An interrupted or killed one, or a failed one with a checkpoint, is resumed where
    its conditions still hold. Builds each stream once, without regard to seeds: recommendations do not depend on them.
    Raises UserError, naming the entry, for settings that do not fit together, missing data and models.
    """
    notes = list(suite.notes)
    resolver = _Resolver(data_root)
    resolved: dict[tuple[str, ...], _Resolved] = {}
    for run in suite.runs:
        found = resolver.resolve(run)
        before = resolved.setdefault(found.identity, found)
        if before is not found:
            notes.append(
                f"{_entry(run.place)}: {_label(found.spec, {})} is, with all settings in full, "
                f"the same run as one of {_entry(before.place)}; it will be run once"
            )
    history = History(out, notes)
    notes += resolver.notes
    runs = list(resolved.values())
    differing = _differences([run.spec for run in runs])
    planned = []
    for number, (one, settings) in enumerate(zip(runs, differing, strict=True), 1):
        action, reason, folder = history.verdict(one.spec, one.sources, one.content)
        resume = folder if action == "resume" else None
        job = Job(number, _label(one.spec, settings), one.spec, one.resources, resume)
        planned.append(Planned(job, action, reason, one.place, folder, settings, one.sources))
    notes += _afresh(planned)
    return Plan(suite, out, tuple(planned), tuple(dict.fromkeys(notes)))


def _afresh(runs: Sequence[Planned]) -> list[str]:
    """Why runs of which there is one already are to be run again."""
    reasons: dict[str, list[Planned]] = {}
    for planned in runs:
        if planned.action == "run" and planned.reason != NEW:
            reasons.setdefault(planned.reason, []).append(planned)
    return [
        f"{found[0].job.label}{f' and {len(found) - 1} more' if len(found) > 1 else ''}: run afresh: {reason}"
        for reason, found in reasons.items()
    ]


@dataclass(frozen=True)
class _Resolved:
    place: str
    spec: RunSpec
    resources: Resources
    sources: dict[str, str]
    content: str

    @property
    def identity(self) -> tuple[str, ...]:
        """What makes two runs the same."""
        return self.spec.hash(), self.sources["strategy"], self.sources["stream"]


class _Resolver:
    """Fills specifications in; streams are built once for each group of settings, and kept without their data."""

    def __init__(self, data_root: Path | None) -> None:
        self.notes: list[str] = []
        self._data_root = data_root
        self._streams: dict[str, Stream] = {}
        self._hashes: dict[type, str] = {}

    def resolve(self, run: SuiteRun) -> _Resolved:
        from clbench.models.tune import parse_tuning
        from clbench.resolve import in_full, parts_of

        try:
            spec = run.spec if self._data_root is None else _rooted(run.spec, self._data_root)
            parts = parts_of(spec)
            parse_tuning(spec.tune)
            stream = self._stream(spec, parts)
            spec, resources = self._on_machine(in_full(spec, parts, stream), run)
        except UserError as error:
            raise UserError(f"{run.place}: {error}") from None
        sources = {"strategy": self._source_hash(parts.strategy), "stream": self._source_hash(parts.recipe)}
        return _Resolved(run.place, spec, resources, sources, stream.content)

    def _source_hash(self, kind: type) -> str:
        from clbench.registry import source_hash

        if kind not in self._hashes:
            self._hashes[kind] = source_hash(kind)
        return self._hashes[kind]

    def _stream(self, spec: RunSpec, parts: Parts) -> Stream:
        """Name, content and recommendations of the stream; not its tasks and sets."""
        from clbench.resolve import build_stream

        key = json.dumps([spec.stream, parts.stream_config.model_dump(mode="json"), spec.data_root], sort_keys=True)
        if key not in self._streams:
            self._streams[key] = replace(build_stream(spec, parts), tasks=(), eval_sets=(), classes=None)
        return self._streams[key]

    def _on_machine(self, spec: RunSpec, run: SuiteRun) -> tuple[RunSpec, Resources]:
        """Device, precision, memory format and threads, as the worker will have them."""
        from clbench.engine.environment import machine_fields

        gpus = self._gpus(spec, run.resources)
        if spec.device == "cpu" and gpus:
            raise UserError("resources: gpus are asked for with device: cpu; leave one of them out")
        if spec.device == "cuda" and not gpus:
            raise UserError("device: cuda needs resources: {gpus: 1}, or a share of one")
        if 0 < gpus < spec.devices:
            raise UserError(f"devices: {spec.devices} needs as many gpus in resources, or none of them")
        resources = Resources(max(run.resources.cpus, spec.devices), gpus, run.resources.memory)
        fields = {"threads": resources.cpus // spec.devices, **machine_fields(spec, on_gpu=gpus > 0)}
        return spec.model_copy(update=fields), resources

    def _gpus(self, spec: RunSpec, wanted: SuiteResources) -> float:
        """What is asked for; where nothing is, a GPU for each device if the machine has one and it is left open."""
        import torch

        here = torch.cuda.is_available()
        gpus = wanted.gpus
        if gpus is None:
            gpus = float(spec.devices) if spec.device == "cuda" or (spec.device == "auto" and here) else 0.0
        if gpus and not here:
            self.notes.append("some runs ask for a GPU, and there is none on this machine")
        return gpus


def _differences(specs: Sequence[RunSpec]) -> list[dict[str, Any]]:
    """For each, the values in which runs of its strategy and stream differ, seeds left out."""
    flat = [_flat(spec) for spec in specs]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for spec, values in zip(specs, flat, strict=True):
        groups.setdefault((spec.strategy, spec.stream), []).append(values)
    varied: dict[tuple[str, str], list[str]] = {}
    for pair, members in groups.items():
        keys = list(dict.fromkeys(key for values in members for key in values))
        texts = {key: {json.dumps(values.get(key), sort_keys=True) for values in members} for key in keys}
        varied[pair] = [key for key in keys if len(texts[key]) > 1]
    pairs = [(spec.strategy, spec.stream) for spec in specs]
    return [{key: values.get(key) for key in varied[pair]} for pair, values in zip(pairs, flat, strict=True)]


def _flat(spec: RunSpec) -> dict[str, Any]:
    """Settings under their own names; with `stream.` before those that the strategy has too."""
    own = ("strategy", "stream", "strategy_settings", "stream_settings", "upstream_settings")
    left_out = (*own, "seed", "order_seed", "data_root", "threads", "device", "devices", "sync_bn")
    flat = {key: value for key, value in spec.model_dump(mode="json").items() if key not in left_out}
    for key, value in spec.stream_settings.items():
        flat[f"stream.{key}" if key in spec.strategy_settings or key in flat else key] = value
    flat |= {f"{PREFIX}{key}": value for key, value in spec.upstream_settings.items()}
    return {**spec.strategy_settings, **flat}


def _label(spec: RunSpec, settings: dict[str, Any]) -> str:
    """`replay split-digits memory_size=50 seed=0`; the order seed where it is not 0."""
    words = [strategy_label(spec.strategy), strategy_label(spec.stream), *_words(settings)]
    words += [f"order_seed={spec.order_seed}"] if spec.order_seed else []
    return " ".join([*words, f"seed={spec.seed}"])


def _words(settings: dict[str, Any]) -> Iterator[str]:
    for key, value in settings.items():
        yield f"{key}={value if isinstance(value, str) else json.dumps(value)}"


def _rooted(spec: RunSpec, data_root: Path) -> RunSpec:
    return spec.model_copy(update={"data_root": str(data_root)})


def _entry(place: str) -> str:
    return place.partition(", ")[2] or place
