"""Weight aligning."""

from __future__ import annotations

import torch
from torch import Tensor

from clbench.config import setting
from clbench.errors import UserError
from clbench.models.heads import LinearHead
from clbench.samples import Batch
from clbench.stream import Task

from .exemplar_replay import ExemplarReplay


class WA(ExemplarReplay):
    """Distil from the previous model, then scale the new classes' weights to the old ones' length (weight aligning).

    Zhao et al. 2020 (arXiv 1911.07053). On a task's data and the exemplars of earlier ones the loss is
    (1 - lambda) CE + lambda KD with lambda = C_old / C_all; KD is the cross-entropy from the softened outputs of the
    previous model to the current outputs of the old classes (here less the former's entropy, a constant). After
    training, the head's rows of new classes are multiplied by gamma = mean |w_old| / mean |w_new|; biases stay. The
    teacher of the next task is the model so aligned.

    As in the paper the head's weights are clamped at zero after every step (`clip_weights`), so that norms say how
    large a class's outputs are; PyCIL and LibContinual leave that out. Without it most of a norm may be that of the
    random start, gamma comes out above 1 when training is short, and aligning then does harm. Some code multiplies KD
    by T^2 (`t_squared`); the paper and PyCIL do not. PyCIL, with ResNet-32 on CIFAR-100: SGD at 0.1, 200 epochs, then
    170.

    Both steps suppose features that are not negative, as after a ReLU. Those of vision transformers have either sign:
    there clipping costs accuracy, and after short training gamma is above 1 and aligning favours the new classes still
    more. `align=false clip_weights=false` is the same distillation without either.

    Domains that bring the same classes again: C_old and C_all count a class once for every task that brought it, and
    where a task has no new class nothing is aligned.
    """

    paper = "Zhao et al. 2020, CVPR (arXiv 1911.07053)"

    class Config(ExemplarReplay.Config):
        temperature: float = setting(2.0, "softening of both outputs", source="arXiv 1911.07053, PyCIL", gt=0)
        t_squared: bool = setting(False, "multiply the distillation by T^2", source="PyCIL: no")
        align: bool = setting(True, "align the weights after training", source="arXiv 1911.07053")
        clip_weights: bool = setting(
            True,
            "clamp the head's weights at zero after each step",
            source="arXiv 1911.07053; PyCIL, LibContinual: off",
        )

    def setup(self) -> None:
        super().setup()
        if not isinstance(self.model.head, LinearHead):
            raise UserError("wa aligns the rows of a linear head: use --head linear")
        self.state.old_share = 0.0

    def begin_task(self, task: Task) -> None:
        old = self.state.exemplars.sets
        self.state.old_share = old / (old + len(task.classes))

    def loss(self, batch: Batch) -> Tensor:
        teacher = self.teacher("previous")
        if teacher is None:
            return super().loss(batch)
        outputs = self.model(batch.x)
        with torch.no_grad():
            wanted = teacher(batch.x)
        temperature = self.config.temperature
        kept = self.objective.distillation(outputs, wanted, temperature).mean()
        if not self.config.t_squared:
            kept = kept / temperature**2
        share = self.state.old_share
        return (1 - share) * self.objective.mean_loss(outputs, batch.y) + share * kept

    def after_step(self, batch: Batch) -> None:
        if self.config.clip_weights:
            self.model.head.weight.clamp_(min=0)  # type: ignore[operator, union-attr]

    def end_task(self, task: Task) -> None:
        old = sorted(set(self.state.exemplars.labels) - set(task.new_classes))
        if self.config.align and old and task.new_classes:
            align_rows(self.model.head.weight, old, list(task.new_classes))  # type: ignore[arg-type, union-attr]
        self.remember(task)
        self.snapshot("previous")


@torch.no_grad()
def align_rows(weight: Tensor, old: list[int], new: list[int]) -> None:
    """Scale the new rows of a weight [classes, d], in place, so that their mean norm is that of the old ones."""
    norms = weight.norm(dim=1)
    if norms[new].mean() > 0:
        weight[new] *= norms[old].mean() / norms[new].mean()
