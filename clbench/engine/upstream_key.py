"""What a shared upstream depends on: the first task as a stream of its own, and the hash that names the entry."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from hashlib import blake2b, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clbench.samples import Samples
from clbench.stream import EvalSet, Stream

if TYPE_CHECKING:
    from clbench.engine.session import Session

VERSION = 1
ROWS_AT_A_TIME = 4096
SOURCES = ("run", "strategy", "phase", "samples", "rng", "transforms", "schedules", "objectives", "models")
ENGINE = ("stepping", "rates", "sampling", "optimizers", "services", "assembly", "fork", "mixing")
"""Modules and packages of clbench that decide what training makes of a model; those that do not exist are passed over.
"""


def first_task(stream: Stream) -> Stream:
    """The stream's first task, with the sets that belong to it, as a stream. Its hashes say nothing of later tasks, so
    that streams which begin alike share an upstream."""
    task = stream.tasks[0]
    sets = tuple(s for s in stream.eval_sets if s.belongs_to == task.index) or stream.eval_sets[:1]
    digest = blake2b(digest_size=16)
    digest.update(json.dumps([task.name, task.classes, *(_described(s) for s in sets)]).encode())
    for samples in (task.train, *(s.data for s in sets)):
        _add(digest, samples)
    content = digest.hexdigest()
    return replace(stream, tasks=(task,), eval_sets=sets, content=content, order=content)


def upstream_key(session: Session, stream: Stream) -> str:
    """sha256 (hex) over all that the numbers of the session's upstream depend on. stream: of `first_task`."""
    spec, model = session.spec, session.builder
    parts: dict[str, Any] = {
        "version": VERSION,
        "data": stream.content,
        "stream": [
            stream.objective,
            stream.scenario,
            stream.input_shape,
            stream.vocabulary,
            stream.initial_classes,
            stream.mean,
            stream.std,
            stream.augmentation.as_list(),
            stream.single_pass,
        ],
        "model": model.identity(),
        "weights": model.described()["weights_sha256"],
        "head": spec.head,
        "seed": spec.seed,
        "settings": spec.upstream_settings,
        "source": _source_hash(),
    }
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _described(eval_set: EvalSet) -> list[Any]:
    return [eval_set.name, eval_set.belongs_to, eval_set.classes, eval_set.bytes_per_target]


def _add(digest: Any, samples: Samples) -> None:
    """Types, shapes and bytes of the samples, in their order."""
    pool = samples.pool
    digest.update(f"{len(samples)} {pool.inputs.dtype} {tuple(pool.inputs.shape[1:])} {pool.features}".encode())
    for index in samples.index.split(ROWS_AT_A_TIME):
        digest.update(np.ascontiguousarray(pool.inputs[index].numpy()).data)
    digest.update(np.ascontiguousarray(samples.labels.numpy()).data)


def _source_hash() -> str:
    """sha256 (hex) over the sources of what trains."""
    package = Path(__file__).parents[1]
    digest = sha256()
    for file in _files([*(package / name for name in SOURCES), *(package / "engine" / name for name in ENGINE)]):
        digest.update(file.relative_to(package).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _files(places: Iterable[Path]) -> list[Path]:
    found: set[Path] = set()
    for place in places:
        found |= {place.with_suffix(".py")} if place.with_suffix(".py").is_file() else set(place.rglob("*.py"))
    return sorted(found)
