"""ZSCL: distillation from the initial model on reference data, and an average of the weights on the way."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from clbench.config import setting
from clbench.engine.sampling import phase_length
from clbench.growing import known_part
from clbench.merging import Weights
from clbench.pairs import Embeddings
from clbench.phase import Phase
from clbench.samples import Batch, Samples
from clbench.strategy import Needs, Strategy
from clbench.stream import Task

CODE = "official code (Thunderbeee/ZSCL)"
LENGTH = 1000  # steps of a task in the official scripts


class ZSCL(Strategy):
    """Keep the initial model's similarities of reference images and texts, and average weights in training (ZSCL).

    Zheng et al. 2023 (arXiv 2303.06628). To the loss come, at every step, the divergence from the initial model's
    similarities to the current ones on a batch of reference pairs, over texts and over images, softened by T = 2 (times
    T^2), and l2 * sum_i (theta_i - theta_i at the task's start)^2. Every `average_every` steps the weights join a
    running mean that begins with those of the task's start; the mean is deployed, and the next task starts from it.

    Reference texts are embedded by the initial model, as in the official code: the divergence then holds the image
    tower alone, the text tower only l2. `texts=current` embeds them by the current model, and holds both. Similarities
    are scaled as the initial model's. The scale is not trained (`train_scale`), as in that code.

    Reference data are the stream's pre-training pool where it has one; otherwise the current task's, which is LwF's
    choice with the initial model for a teacher. The paper's are ImageNet's images with sentences of Conceptual Captions
    that do not belong to them; here a reference image comes with its own caption. The paper's training: 1000 steps a
    task of 64 samples with AdamW, no weight decay, lr 1e-5 (5e-5 on two sets), 100 steps of warm-up and a cosine, and
    label smoothing 0.2, which the streams' losses do not have. `l2` = 1 belongs to such small rates: at rates a hundred
    times larger it keeps the weights from moving at all.

    Language models are held by their next-token distributions on reference text. Classifiers have no outputs before the
    stream, and are refused: `lwf` with `wise-ft`'s averaging is the nearest that they have.
    """

    class Config(Strategy.Config):
        distillation: float = setting(
            2.0, "weight of the divergence, a mean over both directions", source=f"{CODE}: 1 for each direction", ge=0
        )
        temperature: float = setting(2.0, "softening of both models' similarities", source=f"{CODE}: T", gt=0)
        texts: Literal["initial", "current"] = setting(
            "initial", "which model embeds reference texts for the current images", source=CODE
        )
        reference: Literal["pool", "task"] = setting(
            "pool", "reference data: the pre-training pool (the task's where there is none), or the task's", source=CODE
        )
        reference_batch_size: int | None = setting(
            None, "reference samples per step; none: batch_size", source=f"{CODE}: 64 and 64", ge=1
        )
        l2: float = setting(1.0, "weight of the squared distance from the task's start", source=f"{CODE}: l2", ge=0)
        average_every: float = setting(
            100 / LENGTH,
            "steps between weights that are averaged; below 1 a share of the task's steps; 0: no average",
            source=f"{CODE}: 100 of {LENGTH}",
            ge=0,
        )
        train_scale: bool = setting(False, "train the scale of similarities, too", source=CODE)

    paper = "Zheng et al. 2023, ICCV (arXiv 2303.06628)"
    needs = Needs(objectives=("contrastive", "language_modeling"))
    plans_ahead = True

    def setup(self) -> None:
        self.state.start = {}
        self.state.average = {}
        self.state.members = 0
        self.state.step = 0

    def begin_task(self, task: Task) -> None:
        if self.teacher("initial") is None:
            self.snapshot("initial")
        self.load(self.state.average)
        weights = {name: p.detach().clone() for name, p in self.trainable().items()}
        self.state.start = weights if self.config.l2 else {}
        self.state.average = dict(weights) if self.config.average_every else {}
        self.state.members, self.state.step = 1, 0

    def build(self, task: Task) -> None:
        pool = self.pretraining_samples() if self.config.reference == "pool" else None
        self._reference: Samples = task.train if pool is None or not len(pool) else pool

    def phases(self, task: Task) -> list[Phase]:
        phase = self.phase("train", task.train, trainable=None if self.config.train_scale else self.is_trained)
        every = self.config.average_every
        interval = int(every) if every >= 1 else max(1, round(every * phase_length(phase, len(task.train))))
        phase.after_step = partial(self.after_update, interval)
        return [phase]

    def is_trained(self, name: str) -> bool:
        """All but what both towers share: the scale of similarities, and their bias."""
        tower: Any = getattr(self.model, "tower", None)
        return tower is None or name in tower("image") | tower("text")

    def loss(self, batch: Batch) -> Tensor:
        loss = super().loss(batch)
        if not self.config.distillation:
            return loss
        return loss + self.config.distillation * self.divergence(self.draw(len(batch)))

    def draw(self, n: int) -> Batch:
        """A batch of reference samples."""
        size = self.config.reference_batch_size or n
        rows = torch.randint(len(self._reference), (size,), generator=self.generator("reference"))
        return next(iter(self.batches(self._reference.subset(rows), size, "train")))

    def divergence(self, reference: Batch) -> Tensor:
        """Of the current model from the initial one on these samples, a scalar."""
        teacher = self.teacher("initial")
        assert teacher is not None
        with torch.no_grad():
            wanted = teacher(reference.x)
        if not isinstance(wanted, Embeddings):
            outputs = self.model(reference.x)
        elif self.config.texts == "current":
            found = self.model(reference.x)
            outputs = Embeddings(found.image, found.text, wanted.scale, wanted.bias)
        else:
            found = self.model(reference.x.only_images())
            outputs = Embeddings(found.image, wanted.text, wanted.scale, wanted.bias)
        return self.objective.distillation(outputs, wanted, self.config.temperature).mean()

    @torch.no_grad()
    def after_backward(self, batch: Batch) -> None:
        for name, p in self.trainable().items():
            if name in self.state.start and p.grad is not None:
                p.grad.add_(2 * self.config.l2 * (p - self.state.start[name].to(p.device)))

    def after_update(self, interval: int, batch: Batch) -> None:
        """After each update: every `interval` of them the weights join the mean."""
        self.state.step += 1
        if not self.state.average or self.state.step % interval:
            return
        n = self.state.members
        for name, p in self.trainable().items():
            mean = self.state.average[name].to(p.device)
            self.state.average[name] = (n * mean + p.detach()) / (n + 1)
        self.state.members = n + 1

    def adopt(self, task: Task) -> None:
        """The first task's weights are what its average would have been."""
        if self.state.average:
            self.state.average = {name: p.detach().clone() for name, p in self.trainable().items()}

    def deploy(self) -> Weights | None:
        return self.state.average or None

    @torch.no_grad()
    def load(self, weights: Weights) -> None:
        """Put these values into the model."""
        parameters = dict(self.model.named_parameters())
        for name, value in weights.items():
            known_part(parameters[name], value).copy_(value)
