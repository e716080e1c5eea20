"""Discrete key-value bottleneck: frozen keys, and values that change only where they are fetched."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.config import setting
from clbench.errors import UserError
from clbench.models.key_value import KeyValueBottleneck
from clbench.phase import Phase
from clbench.samples import Batch, Pool, Samples
from clbench.strategy import Needs, Strategy
from clbench.stream import Task

SWEEPS = "arXiv 2207.11240, official sweeps"
ROWS = 512


class DKVB(Strategy):
    """Look the scores up: frozen features fetch values by their nearest keys; training changes fetched values alone.

    Träuble et al., ICML 2023 (arXiv 2207.11240): the discrete key-value bottleneck. In each of many codebooks a random
    projection of the frozen features finds the nearest of its keys; the scores are the mean over codebooks of the
    values there, one number for each class, zero at first. Cross-entropy with label smoothing trains the values by
    plain SGD: a value that no sample of a batch fetches keeps its bits. In evaluation, keys that training has never
    fetched are left out of the search. Keys are placed before training, by k-means with moving averages (`key_epochs`
    passes without labels), and frozen for good; what a sample fetches is then looked up once.

    Not as in the paper and its code, by default:
    - Keys are placed on the first task's features, the only data there are. The paper's are another data set's
      (CIFAR-100 for CIFAR-10, CIFAR-10 for CIFAR-100): `key_data=cifar100`.
    - The softmax is over the classes seen. The code's is over all classes, also those to come, which pushes their
      values down from the first task on: `classes=10`.
    - Sizes. The paper's 256 codebooks of pairs=4096 hold 10.5 million values for ten classes, 105 million for a
      hundred, and train with lr=0.3 for epochs=2000 on tasks of two classes of CIFAR-10 (500 of CIFAR-100). Here there
      are fewer keys and fewer, larger steps: the gradient of a value holds 1 / codebooks and is so small that steps
      times rate is what counts. With few codebooks or small batches lower the rate.
    Nor, whatever the settings: the code's moving sums of keys start at the random keys with no count for them, which
    biases keys until 0.95^steps is gone, here at zero; excluded keys get the largest distance found there, so that they
    can tie with others, and are out here.
    """

    class Config(Strategy.Config):
        codebooks: int = setting(256, "codebooks, each with a random projection of its own", source=SWEEPS, ge=1)
        pairs: int = setting(256, "keys and values in each codebook", source="clbench; official sweeps: 4096", ge=1)
        key_dim: int = setting(14, "dimensions that features are projected to", source=SWEEPS, ge=1)
        key_data: str | None = setting(
            None,
            "an image set, by name or folder, whose training images place the keys, unlabelled; none: the first task's",
            source="clbench: what a stream offers; official sweeps: another data set",
        )
        key_epochs: float = setting(10.0, "passes over these data that place the keys", source=SWEEPS, gt=0)
        decay: float = setting(0.95, "what moving averages keep while keys are placed", source=SWEEPS, ge=0, lt=1)
        threshold: float = setting(
            0.1, "a key jumps to a sample below this share of a key's fair share of a batch", source=SWEEPS, ge=0
        )
        classes: int | None = setting(
            None,
            "classes in the softmax from the first task on, those to come included; none: those seen",
            source="clbench: a learner does not know it; official code: all classes of the stream",
            ge=1,
        )
        label_smoothing: float = setting(0.1, "share of the target spread over all classes", source=SWEEPS, ge=0, lt=1)
        optimizer: str | None = setting("sgd", "sgd: others change values that were not fetched", source=SWEEPS)
        lr: float | None = setting(
            300.0,
            "learning rate of the values",
            source="clbench: with epochs=1 as far as the paper's 0.3 in 1000",
            ge=0,
        )
        momentum: float | None = setting(0.0, "0: more would change values that were not fetched", source=SWEEPS)
        weight_decay: float | None = setting(0.0, "0: more would change values not fetched", source=SWEEPS)
        batch_size: int | None = setting(256, "samples per step", source=SWEEPS, ge=1)
        epochs: float | None = setting(
            1.0, "passes over a task's data", source="clbench; official sweeps: 500 to 2000, at lr 0.3", gt=0
        )
        schedule: str | None = setting("constant", "learning-rate schedule", source=SWEEPS)
        clip: float | None = setting(1.0, "largest gradient norm", source=SWEEPS, gt=0)

    needs = Needs(objectives=("classification",))
    inputs = "features"
    paper = "Träuble et al. 2023, ICML (arXiv 2207.11240)"

    def setup(self) -> None:
        c = self.config
        if c.optimizer != "sgd" or c.momentum or c.weight_decay:
            raise UserError("dkvb changes fetched values alone: leave optimizer=sgd, momentum=0 and weight_decay=0")
        model: Any = self.model
        made = KeyValueBottleneck(model.feature_dim, c.codebooks, c.pairs, c.key_dim, self.generator("keys"))
        model.bottleneck = made.to(model.head.weight.device)

    def build(self, task: Task) -> None:
        model: Any = self.model
        self._bottleneck.grow(max(model.n_classes, self.config.classes or 0))

    def phases(self, task: Task) -> list[Phase]:
        fetched = partial(self._fetched, task.train)
        train = self.phase("train", fetched, trainable=lambda name: name == "bottleneck.values")
        if task.index > 0:
            return [train]
        how = {"epochs": self.config.key_epochs, "optimizer": None, "after_step": self._place_keys}
        return [self.phase("keys", partial(self._key_samples, task.train), **how), train]

    def loss(self, batch: Batch) -> Tensor:
        scores = self._bottleneck(batch.x.long())
        return F.cross_entropy(scores, batch.y, label_smoothing=self.config.label_smoothing)

    def after_step(self, batch: Batch) -> None:
        self._bottleneck.mark(batch.x.long())

    def predict(self, inputs: Tensor) -> Tensor:
        model: Any = self.model
        scores: Tensor = self._bottleneck(self._bottleneck.nearest(inputs, used_only=True))
        return scores[:, : model.n_classes]

    def _fetched(self, samples: Samples) -> Samples:
        """The same samples, with the keys they fetch, [codebooks], for features."""
        fetched = torch.zeros(len(samples.pool.labels), self.config.codebooks)
        for rows, batch in zip(samples.index.split(ROWS), self.batches(samples, ROWS), strict=True):
            fetched[rows] = self._bottleneck.nearest(batch.x).float().cpu()
        return Samples(Pool(fetched, samples.pool.labels, features=True), samples.index)

    def _key_samples(self, train: Samples) -> Samples:
        """What keys are placed on."""
        if self.config.key_data is None:
            return train
        from clbench.data.images import load_images

        channels: Any
        channels, side = train.pool.inputs.shape[1:3]
        images = load_images(self.config.key_data, "train", size=side, channels=channels)
        return Samples(Pool(torch.from_numpy(images.x), torch.from_numpy(images.y), images.fingerprint))

    def _place_keys(self, batch: Batch) -> None:
        fair_share = self.config.batch_size / self.config.pairs
        threshold = self.config.threshold * fair_share
        self._bottleneck.place_keys(batch.x, self.config.decay, threshold, self.generator("keys"))

    @property
    def _bottleneck(self) -> KeyValueBottleneck:
        return self.model.bottleneck  # type: ignore[return-value]
