"""Strategies with one fault each, named after the probe that must find it; and two without."""

from __future__ import annotations

import os
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.phase import Phase
from clbench.samples import Batch
from clbench.strategy import Needs, Strategy
from clbench.stream import Task

CLASSIFICATION = ("classification",)
FREE = Needs(task_boundaries=False, objectives=CLASSIFICATION)


class Sound(Strategy):
    """Nothing is wrong."""

    needs = FREE


class SoundMemory(Strategy):
    """Keeps samples, and says so."""

    needs = Needs(task_boundaries=False, stores_samples=True, objectives=CLASSIFICATION)

    def setup(self) -> None:
        self.state.memory = self.memory(20, "reservoir")

    def after_step(self, batch: Batch) -> None:
        self._latest = batch
        self.state.memory.add(batch, self.generator("memory"))


class Chance(Strategy):
    """Draws from the operating system."""

    needs = FREE

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) * (1 + os.urandom(1)[0] / 255)


class Hashed(Strategy):
    """Weights its loss by a hash that is another in every process."""

    needs = FREE

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) * (1 + hash("weight") % 1000 / 1000)


class ClassBuffer(Strategy):
    """Keeps images on its class."""

    needs = FREE
    kept: ClassVar[list[Tensor]] = []

    def after_step(self, batch: Batch) -> None:
        self.kept.append(batch.x[:2])


class Forgetful(Strategy):
    """Counts steps outside its state, and learns by the count."""

    needs = FREE

    def setup(self) -> None:
        self.count = 0

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) / (1 + self.count)

    def after_step(self, batch: Batch) -> None:
        self.count += 1


class UndeclaredMemory(Strategy):
    """Makes a memory without saying so."""

    needs = FREE

    def setup(self) -> None:
        self.state.memory = self.memory(20, "reservoir")


class HiddenSamples(Strategy):
    """Keeps scaled images in a tensor of its own."""

    needs = FREE

    def setup(self) -> None:
        self.state.kept = torch.zeros(0, 64)

    def after_step(self, batch: Batch) -> None:
        self.state.kept = torch.cat([self.state.kept, batch.raw[:1].flatten(1) / 255])


class SamplesOnTheSide(Strategy):
    """Keeps images in a list that is not saved."""

    needs = FREE

    def setup(self) -> None:
        self.kept: list[Tensor] = []

    def after_step(self, batch: Batch) -> None:
        self.kept.append(batch.x[0].half())
        self.kept.append(batch.x[1].clone())


class HiddenFeatures(Strategy):
    """Keeps features of frozen layers."""

    needs = Needs(task_boundaries=False, gradient_free=True, objectives=CLASSIFICATION)
    inputs = "features"

    def setup(self) -> None:
        self.state.kept = torch.zeros(0, 64)
        self.state.labels = torch.zeros(0, dtype=torch.int64)

    def phases(self, task: Task) -> list[Phase]:
        return [self.phase("read", task.train, view="plain", optimizer=None)]

    def after_step(self, batch: Batch) -> None:
        self.state.kept = torch.cat([self.state.kept, batch.x])
        self.state.labels = torch.cat([self.state.labels, batch.labels])

    def predict(self, inputs: Tensor) -> Tensor:
        """Nearest neighbours, one of each class."""
        closeness = -(inputs[:, None] - self.state.kept[None]).square().sum(2)
        classes = range(int(self.state.labels.max()) + 1)
        return torch.stack([closeness[:, self.state.labels == c].amax(1) for c in classes], 1)


class UnusedNeeds(Strategy):
    """Declares what it does not use."""

    needs = Needs(stores_samples=True, knows_horizon=True, task_boundaries=False, objectives=CLASSIFICATION)


class EqualTasks(Strategy):
    """Finds a class's task by dividing."""

    needs = Needs(objectives=CLASSIFICATION)

    def begin_task(self, task: Task) -> None:
        size = len(task.classes)
        assert all(label // size == task.index for label in task.classes), "a class is in no task"


class BatchWise(Strategy):
    """Centres the scores over the test batch."""

    needs = FREE

    def predict(self, inputs: Tensor) -> Tensor:
        scores = self.model(inputs)
        return scores - scores.mean(0)


class AllOutputs(Strategy):
    """Scores ten classes from the start."""

    needs = FREE

    def predict(self, inputs: Tensor) -> Tensor:
        scores = self.model(inputs)
        return F.pad(scores, (0, 10 - scores.shape[1]), value=-1e9)


class FutureData(Strategy):
    """Centres its loss on all training labels, through the pool."""

    needs = FREE

    def phases(self, task: Task) -> list[Phase]:
        self._weight = 1 + 0.1 * float(
            (task.train.pool.inputs.double() * task.train.pool.labels[:, None, None, None]).mean()
        )
        return super().phases(task)

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) * self._weight


class NumberOfTasks(Strategy):
    """Asks the stream how many tasks there are."""

    needs = FREE

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) / len(self.objective.stream.tasks)


class TestLabels(Strategy):
    """Weights its loss by the test labels of the first task."""

    __test__ = False
    needs = FREE

    def loss(self, batch: Batch) -> Tensor:
        first = self.objective.stream.eval_sets[0].data.labels
        places = torch.arange(len(first))
        return super().loss(batch) * (1 + float((first * places.square()).double().mean()) / 1000)


class CountingPredictions(Strategy):
    """Learns less the more often it was evaluated."""

    needs = FREE

    def setup(self) -> None:
        self.state.predictions = 0

    def predict(self, inputs: Tensor) -> Tensor:
        self.state.predictions += 1
        return super().predict(inputs)

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) / (1 + self.state.predictions)


class HiddenGradients(Strategy):
    """Says it needs no gradients, and takes a step by hand."""

    needs = Needs(task_boundaries=False, gradient_free=True, objectives=CLASSIFICATION)

    def phases(self, task: Task) -> list[Phase]:
        return [self.phase("read", task.train, optimizer=None)]

    def after_step(self, batch: Batch) -> None:
        with torch.enable_grad():
            loss = self.objective.loss(self.model, batch)
            found = torch.autograd.grad(loss, list(self.model.parameters()))
        for parameter, gradient in zip(self.model.parameters(), found, strict=True):
            parameter.data -= 0.05 * gradient


class AtBoundaries(Strategy):
    """Predicts by means that are made at a task's end, and says nothing of it."""

    needs = Needs(objectives=CLASSIFICATION)

    def setup(self) -> None:
        self.state.weights = torch.zeros(0, 64)

    def end_task(self, task: Task) -> None:
        found = [(batch.x.flatten(1), batch.y) for batch in self.batches(task.train)]
        x, y = torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])
        means = torch.stack([x[y == label].mean(0) for label in task.new_classes])
        self.state.weights = torch.cat([self.state.weights, means])

    def predict(self, inputs: Tensor) -> Tensor:
        return self._padded(inputs.flatten(1) @ self.state.weights.T)

    def _padded(self, scores: Tensor) -> Tensor:
        return F.pad(scores, (0, self.model.n_classes - scores.shape[1]), value=-1e9)  # type: ignore[operator]


class NeedsTheTask(Strategy):
    """Says that it takes the task's index at test time, and does not."""

    needs = Needs(task_boundaries=False, task_id_at_test=True, objectives=CLASSIFICATION)
