"""Keeping only the rows a stream uses in memory, where it uses a minority of what was read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b

import torch
from torch import Tensor

from clbench.samples import Pool, Samples
from clbench.stream import Stream

MINORITY = 0.5


def compacted(stream: Stream) -> Stream:
    """The stream over pools of the rows it uses, for pools of which it uses less than half. Row order is kept.

    A stream whose captions go by row stays as it is.
    """
    if stream.captions is not None and stream.captions.of_row:
        return stream
    used: dict[int, tuple[Pool, list[Tensor]]] = {}
    for samples in _selections(stream):
        used.setdefault(id(samples.pool), (samples.pool, []))[1].append(samples.index)
    smaller = {key: _smaller(pool, torch.cat(parts).unique()) for key, (pool, parts) in used.items()}

    def moved(samples: Samples) -> Samples:
        pool, rows = smaller[id(samples.pool)]
        return samples if rows is None else Samples(pool, torch.searchsorted(rows, samples.index))

    tasks = tuple(
        replace(t, train=moved(t.train), validation=None if t.validation is None else moved(t.validation))
        for t in stream.tasks
    )
    mixture, before = stream.mixture, stream.pretraining
    if mixture is not None and mixture.pretraining is not None:
        mixture = replace(mixture, pretraining=moved(mixture.pretraining))
    return replace(
        stream,
        tasks=tasks,
        eval_sets=tuple(replace(s, data=moved(s.data)) for s in stream.eval_sets),
        pretraining=None if before is None else moved(before),
        mixture=mixture,
    )


def _selections(stream: Stream) -> Iterator[Samples]:
    for task in stream.tasks:
        yield task.train
        if task.validation is not None:
            yield task.validation
    for eval_set in stream.eval_sets:
        yield eval_set.data
    if stream.pretraining is not None:
        yield stream.pretraining
    if stream.mixture is not None and stream.mixture.pretraining is not None:
        yield stream.mixture.pretraining


def _smaller(pool: Pool, rows: Tensor) -> tuple[Pool, Tensor | None]:
    if len(rows) >= MINORITY * len(pool.labels):
        return pool, None
    chosen = blake2b(rows.numpy().tobytes(), digest_size=16).hexdigest()
    fingerprint = f"{pool.fingerprint}/{chosen}" if pool.fingerprint else ""
    return Pool(pool.inputs[rows], pool.labels[rows], fingerprint), rows
