"""Dark experience replay: remembered samples keep the outputs the model had for them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from clbench.config import setting
from clbench.growing import known_part, padded
from clbench.memory import Policy
from clbench.models.modes import in_eval_mode
from clbench.samples import Batch
from clbench.strategy import Needs, Strategy
from clbench.stream import Task


class DER(Strategy):
    """Replay samples together with their earlier outputs, and stay close to those (dark experience replay).

    Buzzega et al. 2020 (arXiv 2004.07211), eq. 5: loss on the current batch + alpha * mean squared difference between
    the outputs for remembered samples and the outputs stored with them. As in Mammoth's `derpp`, the stored outputs
    are those of the augmented view before the step, the stored sample is un-augmented, and remembered samples go
    through the model in a forward pass of their own. There the head has all the stream's classes from the start;
    here it grows, so some outputs did not exist when a sample was stored. They are held at zero, as in Avalanche;
    leaving them out lets new classes take over the old samples, and DER forgets like finetuning. The outputs of a model
    of images and texts are both embeddings of a sample, whose caption is drawn anew when it is replayed.
    """

    class Config(Strategy.Config):
        memory_size: int = setting(200, "samples kept", source="Mammoth: seq-cifar10, its smallest buffer", ge=1)
        policy: Policy = setting("reservoir", "which samples are kept", source="arXiv 2004.07211")
        replay_batch_size: int | None = setting(
            None, "replayed samples per step; none: batch_size", source="Mammoth der: 32 and 32", ge=1
        )
        new_outputs: Literal["zero", "ignore"] = setting(
            "zero",
            "outputs that did not exist when a sample was stored: held at zero, or left out",
            source="Avalanche: zero",
        )
        alpha: float = setting(0.3, "weight of the squared difference", source="Mammoth: seq-cifar100", ge=0)

    paper = "Buzzega et al. 2020, NeurIPS (arXiv 2004.07211)"
    needs = Needs(task_boundaries=False, stores_samples=True)

    def setup(self) -> None:
        self.state.memory = self.memory(self.config.memory_size, self.config.policy)

    def loss(self, batch: Batch) -> Tensor:
        outputs = self.model(batch.x)
        batch.extra["outputs"] = self.objective.per_sample(outputs).detach().float()
        return self.objective.mean_loss(outputs, batch.y) + self.matching_loss()

    def matching_loss(self) -> Tensor | float:
        """alpha * mean squared difference to stored outputs; 0 while there are none."""
        old = self.draw() if self.config.alpha else None
        if old is None:
            return 0.0
        outputs, stored = self.objective.per_sample(self.model(old.x)), old.extra["outputs"]
        if self.config.new_outputs == "zero":
            stored = padded(stored.nan_to_num(), outputs)
        outputs, known = known_part(outputs, stored), ~stored.isnan()
        difference = (outputs - stored.nan_to_num()) * known
        return self.config.alpha * difference.square().sum() / known.sum()

    def draw(self) -> Batch | None:
        """A fresh batch from the memory."""
        n = self.config.replay_batch_size or self.config.batch_size
        return self.replay(self.state.memory, n)

    def after_step(self, batch: Batch) -> None:
        self.state.memory.add(batch, self.generator("memory"), extra=batch.extra)

    @torch.no_grad()
    def adopt(self, task: Task) -> None:
        """Remember samples with the outputs of the model that learned them."""
        order = torch.randperm(len(task.train), generator=self.generator("adopt"))
        with in_eval_mode(self.model):
            for batch in self.batches(task.train.subset(order)):
                outputs = {"outputs": self.objective.per_sample(self.model(batch.x)).float()}
                self.state.memory.add(batch, self.generator("memory"), extra=outputs)
