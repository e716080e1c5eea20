"""Incremental classifier and representation learning."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.config import setting
from clbench.samples import Batch, Samples
from clbench.stream import Task

from .exemplar_replay import ExemplarReplay


class ICaRL(ExemplarReplay):
    """Learn features by distillation and exemplars, classify by the nearest mean of exemplars (iCaRL).

    Rebuffi et al. 2017 (arXiv 1611.07725). On a task's data and all exemplars the loss is binary cross-entropy on
    sigmoid outputs, summed over the outputs: for the task's classes the targets are the labels, for earlier ones the
    previous model's sigmoids (`loss=bce`). `loss=ce-kd` is PyCIL's: softmax cross-entropy + distillation at T = 2
    without T^2. After a task the mean of each class is that of its exemplars' unit features, scaled to unit length
    again, for all classes with the network as it is then; the nearest mean is the prediction.

    The official code averages the loss over the outputs, too, hence its rate of 2.0: 2.0 / 100 here. It also averages
    each exemplar's features with those of its mirror image (`flip`), which the paper does not mention.

    Inside a task the means would be those of another network, and new classes have none: the head's scores are used,
    so that traces are of the head, and boundaries of the means. Domains that bring classes again: their outputs
    follow the labels.
    """

    paper = "Rebuffi et al. 2017, CVPR (arXiv 1611.07725)"

    class Config(ExemplarReplay.Config):
        loss: Literal["bce", "ce-kd"] = setting(
            "bce",
            "sigmoids with the previous model's as targets, or softmax and distillation",
            source="arXiv 1611.07725",
        )
        temperature: float = setting(2.0, "softening of both outputs with loss=ce-kd", source="PyCIL", gt=0)
        flip: bool = setting(
            False, "means over images and their mirror images", source="arXiv 1611.07725; official code, Mammoth: on"
        )

    def setup(self) -> None:
        super().setup()
        self.state.current = []
        self.state.means = torch.zeros(0, 0, dtype=torch.float64)

    def begin_task(self, task: Task) -> None:
        self.state.current = list(task.classes)
        self.state.means = torch.zeros(0, 0, dtype=torch.float64)

    def loss(self, batch: Batch) -> Tensor:
        outputs = self.model(batch.x).float()
        teacher = self.teacher("previous")
        with torch.no_grad():
            earlier = None if teacher is None else teacher(batch.x).float()
        if self.config.loss == "ce-kd":
            return self._softmax_loss(outputs, earlier, batch.y)
        wanted = F.one_hot(batch.y, outputs.shape[1]).to(outputs)
        if earlier is not None:
            kept = [k for k in range(earlier.shape[1]) if k not in self.state.current]
            wanted[:, kept] = earlier[:, kept].sigmoid()
        return F.binary_cross_entropy_with_logits(outputs, wanted, reduction="none").sum(1).mean()

    def _softmax_loss(self, outputs: Tensor, earlier: Tensor | None, y: Tensor) -> Tensor:
        loss = self.objective.mean_loss(outputs, y)
        if earlier is None:
            return loss
        temperature = self.config.temperature
        return loss + self.objective.distillation(outputs, earlier, temperature).mean() / temperature**2

    def end_task(self, task: Task) -> None:
        self.remember(task)
        known = sorted(set(self.state.exemplars.labels))
        means = [self._mean(self.state.exemplars.samples(label)) for label in known]
        size = (self.model.n_classes, len(means[0]))
        self.state.means = torch.full(size, float("nan"), dtype=torch.float64)  # type: ignore[arg-type]
        self.state.means[known] = torch.stack(means)
        self.snapshot("previous")

    def _mean(self, samples: Samples) -> Tensor:
        """The unit mean of a class: float64 [d]."""
        features = self.unit_features(samples)
        if self.config.flip:
            features = torch.cat([features, self.unit_features(samples, flip=True)])
        return F.normalize(features.mean(0), dim=0)

    def predict(self, inputs: Tensor) -> Tensor:
        if not len(self.state.means):
            scores: Tensor = self.model(inputs)
            return scores
        features = F.normalize(self.model.features(inputs).double(), dim=1)  # type: ignore[operator]
        similarities = features @ self.state.means.to(inputs.device).T
        return similarities.nan_to_num(nan=float("-inf"))
