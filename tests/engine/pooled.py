"""A stream of digits that says what every batch is made of, and a strategy that notes what it is given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clbench.config import setting
from clbench.mixtures import FixedReplay
from clbench.strategy import Batch, Phase, Strategy, Task
from clbench.stream import PoolMixture, Stream
from clbench.streams.class_incremental import SplitConfig
from clbench.streams.split import SplitDigits


class Pooled(SplitDigits):
    """Digits in three tasks; the last one's samples stand for pre-training data."""

    class Config(SplitConfig):
        shares: list[float] = setting([0.33, 0.34, 0.33], "pre-training, task, buffer", source="tests")
        capacity: int | None = setting(None, "of the buffer", source="tests")
        names: list[str] = setting([], "of the tasks", source="tests")

    def build(self) -> Stream:
        stream, shares = super().build(), tuple(self.config.shares)
        last = stream.tasks[-1].train
        tasks = [replace(t, name=name) for t, name in zip(stream.tasks, self.config.names, strict=False)]
        stream = replace(stream, tasks=(*tasks, *stream.tasks[len(tasks) :]))
        mixture = PoolMixture(shares, last if shares[0] else None, self.config.capacity)  # type: ignore[arg-type]
        return replace(stream, pretraining=last, mixture=mixture, initial_classes=10)


class Noting(Strategy):
    """Finetuning that keeps, of every step, whose the samples were and which."""

    def setup(self) -> None:
        self.state.seen = []

    def after_step(self, batch: Batch) -> None:
        parts = [0] * len(batch.labels) if batch.part is None else batch.part.tolist()
        task = self._services.task
        self.state.seen = [*self.state.seen, [task, parts, batch.index.tolist(), batch.labels.tolist()]]

    def diagnostics(self) -> dict[str, Any]:
        return self.draw_counts()


class OwnSources(Noting):
    """A phase with sources of its own."""

    plans_ahead = True

    def phases(self, task: Task) -> list[Phase]:
        return [self.phase("own", task.train, sources={task.name: task.train}, mixture=FixedReplay(0.0))]
