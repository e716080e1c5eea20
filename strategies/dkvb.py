"""Discrete key-value bottleneck: frozen keys, and values that change only where they are fetched."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from clbench.config import setting
from clbench.errors import UserError
from clbench.models.key_value import KeyValueBottleneck
from clbench.phase import Phase
from clbench.samples import Batch
from clbench.strategy import Needs, Strategy
from clbench.stream import Task

SWEEPS = "arXiv 2207.11240, official sweeps"


class DKVB(Strategy):
    """Look the scores up: frozen features fetch values by their nearest keys; training changes fetched values alone.

    Träuble et al., ICML 2023 (arXiv 2207.11240): the discrete key-value bottleneck. In each of many codebooks a random
    projection of the frozen features finds the nearest of its keys; the scores are the mean over codebooks of the
    values there, one number for each class, zero at first. Cross-entropy with label smoothing trains the values by
    plain SGD: a value that no sample of a batch fetches keeps its bits. In evaluation, keys that training has never
    fetched are left out of the search.

    Keys are placed before training, by k-means with moving averages (`key_epochs` passes without labels), and frozen
    for good. The paper places them on another data set (CIFAR-100 for CIFAR-10) or on the same; here on the features
    of the first task, the only data there are. The code gives excluded keys the largest distance found, so that they
    can tie with others; here they are out.

    The paper's size is pairs=4096 for 256 codebooks: 10.5 million values for ten classes, 105 million for a hundred.
    Its training is lr=0.3 epochs=2000 (for tasks of two classes of CIFAR-10; 500 for CIFAR-100). The defaults are a
    small form of it, fewer keys and fewer steps: the gradient of a value holds 1 / codebooks and is so small that steps
    times rate is what counts.
    """

    class Config(Strategy.Config):
        codebooks: int = setting(256, "codebooks, each with a random projection of its own", source=SWEEPS, ge=1)
        pairs: int = setting(256, "keys and values in each codebook", source="clbench; official sweeps: 4096", ge=1)
        key_dim: int = setting(14, "dimensions that features are projected to", source=SWEEPS, ge=1)
        key_epochs: float = setting(10.0, "passes over the first task that place the keys", source=SWEEPS, gt=0)
        decay: float = setting(0.95, "what moving averages keep while keys are placed", source=SWEEPS, ge=0, lt=1)
        threshold: float = setting(
            0.1, "a key jumps to a sample below this share of a key's fair share of a batch", source=SWEEPS, ge=0
        )
        label_smoothing: float = setting(0.1, "share of the target spread over all classes", source=SWEEPS, ge=0, lt=1)
        optimizer: str | None = setting("sgd", "sgd: others change values that were not fetched", source=SWEEPS)
        lr: float | None = setting(
            30.0,
            "learning rate of the values",
            source="clbench: with epochs=10 as far as the paper's 0.3 in 1000",
            ge=0,
        )
        momentum: float | None = setting(0.0, "0: more would change values that were not fetched", source=SWEEPS)
        weight_decay: float | None = setting(0.0, "0: more would change values not fetched", source=SWEEPS)
        batch_size: int | None = setting(256, "samples per step", source=SWEEPS, ge=1)
        epochs: float | None = setting(
            10.0, "passes over a task's data", source="clbench; official sweeps: 500 to 2000, at lr 0.3", gt=0
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
        self._bottleneck.grow(self.model.n_classes)  # type: ignore[arg-type]

    def phases(self, task: Task) -> list[Phase]:
        train = self.phase("train", task.train, trainable=lambda name: name == "bottleneck.values")
        if task.index > 0:
            return [train]
        how = {"epochs": self.config.key_epochs, "optimizer": None, "after_step": self._place_keys}
        return [self.phase("keys", task.train, **how), train]

    def loss(self, batch: Batch) -> Tensor:
        batch.extra["fetched"] = self._bottleneck.nearest(batch.x)
        scores = self._bottleneck(batch.extra["fetched"])
        return F.cross_entropy(scores, batch.y, label_smoothing=self.config.label_smoothing)

    def after_step(self, batch: Batch) -> None:
        self._bottleneck.mark(batch.extra["fetched"])

    def predict(self, inputs: Tensor) -> Tensor:
        return self._bottleneck(self._bottleneck.nearest(inputs, used_only=True))

    def _place_keys(self, batch: Batch) -> None:
        fair_share = self.config.batch_size / self.config.pairs
        threshold = self.config.threshold * fair_share
        self._bottleneck.place_keys(batch.x, self.config.decay, threshold, self.generator("keys"))

    @property
    def _bottleneck(self) -> KeyValueBottleneck:
        return self.model.bottleneck  # type: ignore[return-value]
