"""Strategies for images with captions with one fault each, named after what is wrong; and one without."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clbench.pairs import Embeddings, Pairs
from clbench.samples import Batch
from clbench.strategy import Needs, Strategy

PAIRS = Needs(task_boundaries=False, objectives=("contrastive",))


class Sound(Strategy):
    """Nothing is wrong: what it has a name for is the data of the task under way."""

    needs = PAIRS

    def phases(self, task: Any) -> Any:
        self._data = task.train
        return super().phases(task)


class HiddenEmbeddings(Strategy):
    """Keeps embeddings of training images."""

    needs = PAIRS

    def setup(self) -> None:
        self.state.kept = []

    @torch.no_grad()
    def after_step(self, batch: Batch) -> None:
        self.state.kept.append(self.model(batch.x.only_images()).image[:1])


class HiddenImages(Strategy):
    """Keeps pairs with scaled images."""

    needs = PAIRS

    def setup(self) -> None:
        self.kept: list[Pairs] = []

    def after_step(self, batch: Batch) -> None:
        self.kept.append(Pairs(batch.raw[:2] / 255, batch.x.tokens[:2]))


class EarlierSamples(Strategy):
    """Has a name for the first task's data to the end."""

    needs = PAIRS

    def phases(self, task: Any) -> Any:
        self.first = getattr(self, "first", task.train)
        return super().phases(task)


class BatchWise(Strategy):
    """Centres the texts' embeddings over those that are asked for together."""

    needs = PAIRS

    def predict(self, inputs: Any) -> Any:
        found = self.model(inputs)
        if found.text is None:
            return found
        return Embeddings(found.image, found.text - found.text.mean(0), found.scale, found.bias)


class Forgetful(Strategy):
    """Counts steps outside its state, and learns by the count."""

    needs = PAIRS

    def setup(self) -> None:
        self.count = 0

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) / (1 + self.count)

    def after_step(self, batch: Batch) -> None:
        self.count += 1


class FutureData(Strategy):
    """Weighs its loss by the brightness of all tasks' images, through the pool."""

    needs = PAIRS

    def phases(self, task: Any) -> Any:
        self._weight = 1 + float(task.train.pool.inputs.double().mean()) / 255
        return super().phases(task)

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) * self._weight


class TestCaptions(Strategy):
    """Weighs its loss by which concepts the test images have."""

    __test__ = False
    needs = PAIRS

    def loss(self, batch: Batch) -> Tensor:
        labels = self.objective.stream.eval_sets[0].data.labels.double()
        return super().loss(batch) * (1 + float((labels * torch.arange(len(labels)) ** 2).mean()) / 1000)
