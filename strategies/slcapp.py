"""SLCA++: SLCA with one small LoRA in place of the whole backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from clbench.config import setting
from clbench.models.pet import is_pet
from clbench.models.vit import SMALL_VIT
from clbench.phase import Phase
from clbench.samples import Batch
from clbench.stream import Task

from .chosen_classes import among
from .singular_lora import attach_singular_lora
from .slca import SLCA, in_head

SPREAD = 0.01
FLOOR = 0.1
SMALLEST = {"probability": 1e-7, "target": 1e-4}


class SLCAPlusPlus(SLCA):
    """SLCA with one small LoRA, norms and biases in place of the whole backbone (SLCA++).

    Zhang et al. 2024 (arXiv 2408.08295), and the official code. Trained are a LoRA shared by all tasks (on qkv and
    both layers of every MLP; A starts as the first right singular vectors of the frozen weight, B as zero; the product
    counts `lora_scale`), norms, biases, class token and head. The LoRA learns at `first_lora_lr_scale` times the
    head's rate in the first task, at `backbone_lr_scale` times from then on, as norms and biases always do. The loss
    is symmetric: ce CE + rce RCE over the task's own classes, RCE = -sum_k p_k log y_k with log 0 put to log 1e-4.

    In alignment means keep their lengths, and every sample drawn of a class of task i is divided by 1 + u (t - i), u
    drawn from `feature_scale` +- 0.01. Afterwards, until the next task begins, the rows of task i read features times
    1 + feature_scale (t - i). Everything else is SLCA's.

    All rates fall to a tenth of that of norms and biases, from epoch to epoch (annealing:EPOCHS). Needs a vision
    transformer of timm's. Published for ViT-B/16 (ImageNet-21k), 10 tasks: 91.46 % on CIFAR-100, 78.09 % on
    ImageNet-R after the last task.
    """

    class Config(SLCA.Config):
        backbone_lr_scale: float = setting(
            0.1, "learning rate of LoRA, norms and biases over the head's", source="official code: bcb_lrscale", ge=0
        )
        first_lora_lr_scale: float = setting(0.5, "the LoRA's in the first task", source="official code", ge=0)
        schedule: str | None = setting(
            "annealing:20", "learning-rate schedule", source="official code: CIFAR-100, 20 epochs"
        )
        rank: int = setting(4, "rank of the LoRA", source="official code", ge=1)
        lora_scale: float = setting(0.8, "factor of the LoRA's product", source="official code")
        ce: float = setting(1.0, "weight of the cross-entropy", source="official code: CIFAR-100; ImageNet-R 0.5", ge=0)
        rce: float = setting(0.1, "weight of the reverse one", source="official code: CIFAR-100; ImageNet-R 0.5", ge=0)
        feature_scale: float = setting(
            0.02, "growth of features with each task that a class is old; 0: none", source="official code", ge=0
        )
        mean_shrink: float = setting(
            0.0,
            "how much shorter the means of the earliest classes are drawn",
            source="official code: none",
            ge=0,
            le=1,
        )

    checked_with = SMALL_VIT
    tunable = False
    paper = "Zhang et al. 2024 (arXiv 2408.08295)"

    def setup(self) -> None:
        super().setup()
        attach_singular_lora(self.model, self.config.rank, self.config.lora_scale, "slca++")

    def phases(self, task: Task) -> list[Phase]:
        train, *rest = super().phases(task)
        train.trainable = is_trained
        return [train, *rest]

    def groups(self, task: Task, parameters: dict[str, Parameter]) -> list[dict[str, Any]]:
        """LoRA; norms, biases and class token; the head."""
        first, slow = self.config.first_lora_lr_scale, self.config.backbone_lr_scale
        scales = {"lora": first if task.index == 0 else slow, "others": slow, "head": 1.0}
        lowest = FLOOR * slow * self.config.lr
        parts: dict[str, list[Parameter]] = {name: [] for name in scales}
        for name, p in parameters.items():
            parts["head" if in_head(name) else "lora" if is_pet(name) else "others"].append(p)
        return [
            {"params": parts[name], "lr": self.config.lr * scale, "min_lr": lowest}
            for name, scale in scales.items()
            if parts[name]
        ]

    def loss(self, batch: Batch) -> Tensor:
        z, y = among(self.model(batch.x), batch.y, self.state.classes)
        loss = self.config.ce * self.objective.mean_loss(z, y)
        return loss + self.config.rce * reverse_cross_entropy(z, y) if self.config.rce else loss

    def placed(self, mean: Tensor, deviations: Tensor, i: int, now: int, generator: torch.Generator) -> Tensor:
        """Features [n, d] of a Gaussian of task i, drawn in task `now`: each shortened by age, at random."""
        samples = super().placed(mean, deviations, i, now, generator)
        if not self.config.feature_scale:
            return samples
        u = self.config.feature_scale + SPREAD * (2 * torch.rand(len(samples), 1, generator=generator) - 1)
        return samples / (1 + u * (now - i))

    def predict(self, inputs: Tensor) -> Tensor:
        model: Any = self.model
        features = model.features(inputs)
        scores = model.head(features)
        if self.state.aligned and self.config.feature_scale:
            for age, classes in enumerate(reversed(self.state.slices)):
                if age and classes:
                    longer = features * (1 + self.config.feature_scale * age)
                    scores[:, classes] = model.head(longer)[:, classes]
        return scores


def is_trained(name: str) -> bool:
    """Whether SLCA++ trains a parameter of this name: LoRA, norms, biases, class token, head."""
    last = name.rpartition(".")[2]
    return in_head(name) or is_pet(name) or "norm" in name or last in ("bias", "cls_token")


def reverse_cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """-sum_k p_k log y_k, the mean over logits z [B, C] and targets y [B]; probabilities and targets are clamped."""
    p = z.float().softmax(1).clamp(min=SMALLEST["probability"])
    targets = torch.nn.functional.one_hot(y, z.shape[1]).to(p).clamp(min=SMALLEST["target"])
    return -(p * targets.log()).sum(1).mean()
