"""Learning without forgetting."""

from __future__ import annotations

import torch
from torch import Tensor

from clbench.config import setting
from clbench.samples import Batch
from clbench.strategy import Strategy
from clbench.stream import Task


class LwF(Strategy):
    """Keep the outputs that the previous model gives on the new data (learning without forgetting).

    Li and Hoiem 2016 (arXiv 1606.09282): loss + alpha * KL divergence from the outputs of the model as it was before
    the task to the current ones, both softened by a temperature T (times T^2, as Hinton et al. 2015), over the
    outputs the previous model had. No data are stored. Other code: PyCIL and FACIL leave out the T^2 and train the
    new outputs alone; Mammoth distils from outputs computed beforehand on un-augmented inputs and warms the head up
    first; alpha is 3 in PyCIL, 1 in FACIL and Avalanche.
    """

    class Config(Strategy.Config):
        alpha: float = setting(1.0, "weight of the distillation", source="arXiv 1606.09282, FACIL, Avalanche", ge=0)
        temperature: float = setting(2.0, "softening of both outputs", source="arXiv 1606.09282", gt=0)

    def begin_task(self, task: Task) -> None:
        if task.index > 0:
            self.snapshot("previous")

    def loss(self, batch: Batch) -> Tensor:
        teacher = self.teacher("previous")
        if teacher is None:
            return super().loss(batch)
        outputs = self.model(batch.x)
        with torch.no_grad():
            wanted = teacher(batch.x)
        kept = self.objective.distillation(outputs, wanted, self.config.temperature).mean()
        return self.objective.losses(outputs, batch.y).mean() + self.config.alpha * kept
