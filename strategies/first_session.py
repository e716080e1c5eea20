"""The first session of APER and RanPAC: adapt the backbone on the first task, freeze it for all that follows."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from clbench.config import setting
from clbench.models.heads import CosineHead, Head, LinearHead
from clbench.models.pet import attach_mlp_adapters, attach_ssf, is_pet
from clbench.models.vit import SMALL_VIT, first_blocks
from clbench.phase import Phase
from clbench.samples import Batch
from clbench.strategy import Strategy
from clbench.stream import Task

TEMPORARY = "temporary_head"
CODE = "APER and RanPAC code"


class FirstSession(Strategy):
    """Base of methods that train on the first task alone, and read features of the frozen backbone afterwards.

    A subclass puts `self.first_session(task)` in front of its own phases, which have `inputs="features"`:

        def phases(self, task):
            return [*self.first_session(task), Phase("statistics", task.train, "plain", inputs="features", ...)]

    The list holds one phase in the first task (none with `first_session=none`): cross-entropy over that task's classes
    with a temporary head, which is gone from the second task on. Trained are that head and adapters beside the MLP
    of every block (AdaptFormer), or SSF, or the whole backbone. `self.model.features` then gives adapted features;
    `self.frozen` says whether inputs are features by now. Inside the first session, the subclass's `predict` hands
    its inputs to `self.temporary_scores`. Where a subclass has a `setup` or `build` of its own, it calls this one's.
    """

    class Config(Strategy.Config):
        first_session: Literal["adapter", "ssf", "finetune", "none"] = setting(
            "adapter", "what is trained on the first task", source="arXiv 2303.07338, 2307.02251: adapters on CIFAR-100"
        )
        bottleneck: int = setting(64, "hidden units of each adapter", source=CODE, ge=1)
        adapter_scale: float = setting(0.1, "factor on the adapters' outputs", source=CODE)
        adapter_dropout: float = setting(0.1, "dropout inside the adapters", source=CODE, ge=0, lt=1)
        temporary_head: Literal["cosine", "linear"] = setting(
            "cosine", "classifier of the first session; cosine: with a learnable scale that starts at 1", source=CODE
        )
        optimizer: str | None = setting("sgd", "sgd, adam or adamw", source="arXiv 2303.07338")
        lr: float | None = setting(0.01, "peak learning rate", source="arXiv 2303.07338", ge=0)
        momentum: float | None = setting(0.9, "SGD momentum", source=CODE, ge=0, lt=1)
        weight_decay: float | None = setting(5e-4, "weight decay", source=CODE, ge=0)
        batch_size: int | None = setting(48, "samples per step", source=CODE, ge=1)
        epochs: float | None = setting(20.0, "passes over the first task", source=CODE, gt=0)
        schedule: str | None = setting(
            "annealing",
            "learning-rate schedule; annealing:20 is the code's, in stairs",
            source="arXiv 2303.07338: cosine",
        )

    checked_with = SMALL_VIT
    tunable = False

    @classmethod
    def reads(cls, config: Any) -> Literal["raw", "features"]:
        """Without a first session, features from the start: the backbone may be read from the cache."""
        return "features" if config.first_session == "none" else "raw"

    def setup(self) -> None:
        who = type(self).__name__
        if self.config.first_session == "adapter":
            where = first_blocks(self.model, None, who)
            attach_mlp_adapters(
                self.model, where, self.config.bottleneck, who, self.config.adapter_scale, self.config.adapter_dropout
            )
        elif self.config.first_session == "ssf":
            attach_ssf(self.model, who)
        if self.config.first_session != "none":
            dim: int = self.model.head.dim  # type: ignore[assignment]
            head: Head = CosineHead(dim, scale=1.0) if self.config.temporary_head == "cosine" else LinearHead(dim)
            setattr(self.model, TEMPORARY, head.to(next(self.model.parameters()).device))

    def build(self, task: Task) -> None:
        if self.config.first_session == "none":
            return
        if task.index == 0:
            head: Head = getattr(self.model, TEMPORARY)
            head.grow(self.model.n_classes)  # type: ignore[arg-type]
        elif hasattr(self.model, TEMPORARY):
            delattr(self.model, TEMPORARY)

    def first_session(self, task: Task) -> list[Phase]:
        """The phase that adapts the backbone; empty after the first task."""
        if task.index > 0 or self.config.first_session == "none":
            return []
        return [self.phase("first session", task.train, loss=self._first_loss, trainable=self._first_trainable)]

    def temporary_scores(self, inputs: Tensor) -> Tensor:
        """Scores [B, n] of normalised images by the temporary head; [B, 0] where there is none."""
        if not hasattr(self.model, TEMPORARY):
            return torch.zeros(len(inputs), 0, device=inputs.device)
        scores: Tensor = getattr(self.model, TEMPORARY)(self.model.features(inputs))  # type: ignore[operator]
        return scores

    def _first_loss(self, batch: Batch) -> Tensor:
        return self.objective.mean_loss(self.temporary_scores(batch.x), batch.y)

    def _first_trainable(self, name: str) -> bool:
        if name.startswith(TEMPORARY):
            return True
        return name.startswith("backbone.") and (self.config.first_session == "finetune" or is_pet(name))
