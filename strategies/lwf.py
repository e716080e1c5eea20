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

    Li and Hoiem 2016 (arXiv 1606.09282): loss + alpha * KL divergence from the outputs of the model as it was after
    the previous task to the current ones, both softened by a temperature T (times T^2, as Hinton et al. 2015), over
    the outputs the previous model had. No data are stored. As in the paper, PyCIL and FACIL, the loss of a sample of
    a new class is taken over the new outputs alone (`only_new`); over all outputs it undoes on class-incremental
    streams what the distillation keeps. Other code: PyCIL and FACIL leave out the T^2; Mammoth distils from outputs
    computed beforehand on un-augmented inputs and warms the head up first; alpha is 3 in PyCIL.
    """

    class Config(Strategy.Config):
        alpha: float = setting(1.0, "weight of the distillation", source="arXiv 1606.09282, FACIL, Avalanche", ge=0)
        temperature: float = setting(2.0, "softening of both outputs", source="arXiv 1606.09282", gt=0)
        only_new: bool = setting(
            True, "leave old outputs out of the loss of new classes", source="arXiv 1606.09282, PyCIL, FACIL"
        )

    paper = "Li and Hoiem 2016, ECCV (arXiv 1606.09282)"

    def loss(self, batch: Batch) -> Tensor:
        teacher = self.teacher("previous")
        if teacher is None:
            return super().loss(batch)
        outputs = self.model(batch.x)
        with torch.no_grad():
            wanted = teacher(batch.x)
        kept = self.objective.distillation(outputs, wanted, self.config.temperature).mean()
        if self.config.only_new:
            outputs = without_old(outputs, batch.y, wanted.shape[-1])
        return self.objective.mean_loss(outputs, batch.y) + self.config.alpha * kept

    def end_task(self, task: Task) -> None:
        self.snapshot("previous")  # before the head grows: the teacher has the old outputs alone


def without_old(outputs: Tensor, y: Tensor, n_old: int) -> Tensor:
    """Outputs [..., n] with the first `n_old` at -inf where the target y [...] is not among them."""
    old = torch.arange(outputs.shape[-1], device=outputs.device) < n_old
    return outputs.masked_fill(old & (y >= n_old)[..., None], float("-inf"))
