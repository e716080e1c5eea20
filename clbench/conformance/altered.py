"""Streams that differ from a given one in a single respect."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from clbench.samples import Pool, Samples
from clbench.stream import Stream, Task

COMMON = 2
"""Tasks that `other_future` and `no_future` share with the original."""


def other_future(stream: Stream) -> Stream:
    """From task COMMON on, other inputs (inverted images, reversed blocks) and permuted labels."""
    copies = _Copies(stream)
    for task in stream.tasks[COMMON:]:
        copies.change(task.train, inputs=True, labels=True)
        if task.validation is not None:
            copies.change(task.validation, inputs=True, labels=True)
    for eval_set in stream.eval_sets:
        if eval_set.belongs_to is not None and eval_set.belongs_to >= COMMON:
            copies.change(eval_set.data, inputs=True, labels=True)
    return copies.stream()


def no_future(stream: Stream) -> Stream:
    """The first COMMON tasks alone."""
    sets = tuple(s for s in stream.eval_sets if s.belongs_to is None or s.belongs_to < COMMON)
    return replace(stream, tasks=stream.tasks[:COMMON], eval_sets=sets)


def other_test_data(stream: Stream) -> Stream:
    """Permuted labels of the evaluation sets; of text, whose inputs are the targets, reversed blocks."""
    copies = _Copies(stream)
    for eval_set in stream.eval_sets:
        copies.change(eval_set.data, inputs=stream.classes is None, labels=True)
    return copies.stream()


class _Copies:
    """A stream's pools, copied, for changing rows of them."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._pools: dict[int, Pool] = {}

    def change(self, samples: Samples, inputs: bool, labels: bool) -> None:
        pool, rows = self._copy(samples.pool), samples.index
        if inputs:
            pool.inputs[rows] = _other(pool.inputs[rows])
        if labels and self._stream.classes is not None:
            pool.labels[rows] = pool.labels[rows.roll(len(rows) // 3 + 1)]

    def stream(self) -> Stream:
        """The stream over the copies; its hashes stay those of the original."""
        mixture = self._stream.mixture
        return replace(
            self._stream,
            tasks=tuple(self._task(task) for task in self._stream.tasks),
            eval_sets=tuple(replace(s, data=self._moved(s.data)) for s in self._stream.eval_sets),
            pretraining=self._moved_if_any(self._stream.pretraining),
            mixture=mixture and replace(mixture, pretraining=self._moved_if_any(mixture.pretraining)),
        )

    def _task(self, task: Task) -> Task:
        return replace(task, train=self._moved(task.train), validation=self._moved_if_any(task.validation))

    def _moved_if_any(self, samples: Samples | None) -> Samples | None:
        return None if samples is None else self._moved(samples)

    def _moved(self, samples: Samples) -> Samples:
        return Samples(self._copy(samples.pool), samples.index)

    def _copy(self, pool: Pool) -> Pool:
        if id(pool) not in self._pools:
            self._pools[id(pool)] = Pool(pool.inputs.clone(), pool.labels.clone(), pool.fingerprint)
        return self._pools[id(pool)]


def _other(inputs: Tensor) -> Tensor:
    return 255 - inputs if inputs.dtype == torch.uint8 and inputs.dim() == 4 else inputs.flip(-1)
