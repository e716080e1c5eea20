"""SLCA: a slow backbone, and a head aligned on Gaussian features of all classes."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Parameter

from clbench.config import setting
from clbench.errors import UserError
from clbench.phase import Optimizer, Phase
from clbench.samples import Batch, Samples
from clbench.schedules import half_cosine
from clbench.strategy import Needs, Strategy
from clbench.stream import Task

from .chosen_classes import among
from .class_gaussians import ClassGaussians, plain_features

RIDGE = 1e-4


class SLCA(Strategy):
    """Train the backbone slowly, then align the head on Gaussian features of all classes (SLCA).

    Zhang et al., ICCV 2023 (arXiv 2303.05118), and the official code. In task t:

    - Slow learner: cross-entropy over the task's own classes, the backbone at `backbone_lr_scale` times the head's
      rate. The head's other rows stand still. New rows start from N(0, 0.02^2) and zero biases.
    - Statistics: mean and covariance (plus 1e-4 I) of the features of each new class, un-augmented, by the backbone as
      it is now. They are not refreshed when the backbone moves on.
    - Classifier alignment, from the second task on: the backbone rests, and the whole head is trained on features drawn
      anew in every epoch, `samples_per_class` from N(s_c mu_c, Sigma_c) of each class, with
      s_c = 1 - mean_shrink + mean_shrink (i + 1) / (t + 1) for a class of task i. Cross-entropy of z / (tau n): n is
      the mean over tasks of the norms of their parts of the logits z, and gradients flow through it. The rate falls
      along a half cosine, from epoch to epoch.
    - Each task starts from the head as it was before it was aligned (`restore_head`): alignments do not add up.

    s_c is in the code alone, where it takes i = c // task size; here i is the task that brought the class, whatever
    the tasks' sizes. The code computes the norm of all logits together as well, without using it: logit_norm="all"
    does. In streams that bring classes again (new domains), each task adds a Gaussian to such a class.
    PILOT's port takes batches of 64 and 3 alignment epochs. Published for ViT-B/16 (ImageNet-21k), 10 tasks: 91.53 % on
    CIFAR-100, 77.00 % on ImageNet-R after the last task.
    """

    class Config(Strategy.Config):
        optimizer: str | None = setting("sgd", "sgd, adam or adamw", source="arXiv 2303.05118")
        lr: float | None = setting(0.01, "peak learning rate of the head", source="arXiv 2303.05118", ge=0)
        backbone_lr_scale: float = setting(
            0.01, "learning rate of the backbone over the head's", source="official code: bcb_lrscale", ge=0
        )
        momentum: float | None = setting(0.9, "SGD momentum", source="official code", ge=0, lt=1)
        weight_decay: float | None = setting(5e-4, "weight decay, in alignment as well", source="official code", ge=0)
        batch_size: int | None = setting(128, "samples per step", source="arXiv 2303.05118", ge=1)
        epochs: float | None = setting(20, "passes over a task's data", source="official code: CIFAR-100", gt=0)
        schedule: str | None = setting(
            "multistep", "learning-rate schedule", source="official code: CIFAR-100, a tenth from epoch 18 of 20 on"
        )
        head_std: float | None = setting(
            0.02, "deviation of the weights of new classes; none: as the head draws them", source="official code", ge=0
        )
        ca_epochs: int = setting(5, "epochs of alignment; 0: none", source="official code", ge=0)
        ca_lr: float = setting(0.01, "peak learning rate of alignment", source="official code", ge=0)
        samples_per_class: int = setting(
            256, "features drawn of a class in an epoch, and the batch size of alignment", source="official code", ge=1
        )
        tau: float | None = setting(
            0.1, "temperature of the normalised logits; none: no normalisation", source="arXiv 2303.05118", gt=0
        )
        logit_norm: Literal["tasks", "all"] = setting(
            "tasks", "norm of the logits: the mean of the tasks', or that of all together", source="official code"
        )
        mean_shrink: float = setting(
            0.1, "how much shorter the means of the earliest classes are drawn", source="official code", ge=0, le=1
        )
        restore_head: bool = setting(True, "undo an alignment at the next task", source="arXiv 2303.05118")

    needs = Needs(objectives=("classification",))
    paper = "Zhang et al. 2023, ICCV (arXiv 2303.05118)"

    def setup(self) -> None:
        self.state.gaussians = ClassGaussians(RIDGE)
        self.state.classes = []  # of the task being trained
        self.state.slices = []  # classes that each task brought
        self.state.head = {}  # while a task trains, as it began; from then on, as it was before it was aligned
        self.state.aligned = False

    # -- learning slowly -----------------------------------------------------------------------------------------

    def begin_task(self, task: Task) -> None:
        self.state.classes, self.state.slices = list(task.classes), [*self.state.slices, list(task.new_classes)]
        if self.state.aligned and self.config.restore_head:
            self._put_back()
        self.state.aligned = False
        if self.config.head_std is not None:
            self._draw_rows(list(task.new_classes), self.config.head_std)
        self._keep_head()

    def phases(self, task: Task) -> list[Phase]:
        groups = partial(self.groups, task)
        train = self.phase("train", task.train, parameter_groups=groups, after_step=self.hold_other_rows)
        return [train, *self.alignment(task)] if self._aligns(task) else [train]

    def groups(self, task: Task, parameters: dict[str, Parameter]) -> list[dict[str, Any]]:
        """The backbone slow, the head at the full rate."""
        head = [p for name, p in parameters.items() if in_head(name)]
        backbone = [p for name, p in parameters.items() if not in_head(name)]
        slow = {"params": backbone, "lr": self.config.lr * self.config.backbone_lr_scale}
        return [group for group in (slow, {"params": head}) if group["params"]]

    def loss(self, batch: Batch) -> Tensor:
        outputs, y = among(self.model(batch.x), batch.y, self.state.classes)
        return self.objective.mean_loss(outputs, y)

    def hold_other_rows(self, batch: Batch) -> None:
        """Undo what weight decay and momentum did to the classes of other tasks."""
        for name, rows in self._rows().items():
            learned = rows[self.state.classes]
            rows.copy_(self.state.head[name])
            rows[self.state.classes] = learned

    # -- alignment -----------------------------------------------------------------------------------------------

    def alignment(self, task: Task) -> list[Phase]:
        """A phase for every epoch of drawn features, with one optimiser: in memory are the features of one epoch."""
        return [self.alignment_epoch(task, epoch) for epoch in range(self.config.ca_epochs)]

    def alignment_epoch(self, task: Task, epoch: int) -> Phase:
        """Every feature drawn for this epoch once."""
        c = self.config
        rate = c.ca_lr * half_cosine(epoch / c.ca_epochs, 0.0)
        return self.phase(
            f"align {epoch + 1}",
            partial(self.drawn, task),
            view="plain",
            shuffle=False,
            epochs=1,
            batch_size=c.samples_per_class,
            begin=partial(self.before_alignment, task) if epoch == 0 else None,
            loss=self.alignment_loss,
            after_step=lambda batch: None,
            trainable=in_head,
            mode="eval",
            optimizer=Optimizer(c.optimizer, rate, c.momentum, c.weight_decay),
            optimizer_state="reset" if epoch == 0 else "keep",
            schedule="constant",
        )

    def before_alignment(self, task: Task) -> None:
        self._keep_head()
        self.describe(task)

    def describe(self, task: Task) -> None:
        """Add the Gaussians of the task's classes."""
        self.state.gaussians.add(task.index, plain_features(self, task.train))

    def drawn(self, task: Task) -> Samples:
        """The features of an epoch of alignment: float32 [Gaussians * samples_per_class, d]."""
        generator = self.generator("alignment")
        place = partial(self.placed, now=task.index, generator=generator)
        return self.state.gaussians.draw(self.config.samples_per_class, generator, place)

    def placed(self, mean: Tensor, deviations: Tensor, i: int, now: int, generator: torch.Generator) -> Tensor:
        """Features [n, d] of a Gaussian of task i, drawn in task `now`: its mean shrunk by age."""
        shrink = self.config.mean_shrink
        return (1 - shrink + shrink * (i + 1) / (now + 1)) * mean + deviations

    def alignment_loss(self, batch: Batch) -> Tensor:
        """Cross-entropy over the classes seen, of normalised logits."""
        z = self.model.head(batch.x).float()  # type: ignore[operator]
        seen = [c for classes in self.state.slices for c in classes]
        if self.config.tau is not None:
            slices = self.state.slices if self.config.logit_norm == "tasks" else [seen]
            z = z / (self.config.tau * mean_task_norm(z, slices))
        z, y = among(z, batch.y, seen)
        return self.objective.mean_loss(z, y)

    def end_task(self, task: Task) -> None:
        self.state.aligned = self._aligns(task)
        if task.index == 0 and self.config.ca_epochs:
            self.describe(task)

    def _aligns(self, task: Task) -> bool:
        return task.index > 0 and self.config.ca_epochs > 0

    # -- the head ------------------------------------------------------------------------------------------------

    def _rows(self) -> dict[str, Tensor]:
        """The head's tensors with a row for each class, by name, without gradients."""
        head: Any = self.model.head
        rows = {n: p.detach() for n, p in head.named_parameters() if p.dim() and len(p) == head.n_classes}
        if not rows:
            raise UserError("this strategy trains the head: use --head linear or cosine")
        return rows

    def _head(self) -> dict[str, Tensor]:
        head: Any = self.model.head
        return {name: p.detach() for name, p in head.named_parameters()}

    def _keep_head(self) -> None:
        self.state.head = {name: value.clone() for name, value in self._head().items()}

    def _put_back(self) -> None:
        """The head as kept; rows that came since stay as they are."""
        for name, value in self._head().items():
            if name in self.state.head:
                kept = self.state.head[name].to(value.device)
                value[tuple(slice(n) for n in kept.shape)] = kept

    def _draw_rows(self, classes: list[int], std: float) -> None:
        for rows in self._rows().values():
            new = torch.zeros_like(rows[classes], device="cpu")
            if rows.dim() > 1:
                new.normal_(std=std)
            rows[classes] = new.to(rows.device)


def in_head(name: str) -> bool:
    """Whether a parameter of this name belongs to the classifier's head."""
    return name.startswith("head.")


def mean_task_norm(z: Tensor, slices: list[list[int]]) -> Tensor:
    """The mean over tasks of the norm of their classes' logits, [B, 1] of [B, C]; gradients flow through it."""
    norms = [z[:, classes].norm(dim=1, keepdim=True) + 1e-7 for classes in slices if classes]
    return torch.cat(norms, dim=1).mean(dim=1, keepdim=True)
