"""Merging along a stream: which weights a task is trained from, and which are deployed."""

from __future__ import annotations

import re
from typing import Literal

import torch
from pydantic import field_validator
from torch import Tensor, nn

from clbench.config import setting
from clbench.errors import UserError
from clbench.growing import known_part
from clbench.merging import Weights, chosen_rows, cut, extended
from clbench.samples import Batch
from clbench.strategy import Strategy
from clbench.stream import Task

from .chosen_classes import among, class_rows

Init = Literal["theta0", "last", "merged"]
TIME = "Dziadzio et al. 2025 (arXiv 2412.06712)"


class Merging(Strategy):
    """Train as finetuning does, and deploy a merge of checkpoints: the base of all merging strategies.

    The frame is that of Dziadzio et al. 2025 (arXiv 2412.06712): what a task is trained from (`init`), what is deployed
    (`deploy`), and a rule from tensors to tensors, `merged`, which is all that a subclass has to give. theta0 are the
    weights before the stream, theta_t those at the end of task t's training.

    What is merged: the parameters that are trained (with `--tuning lora` the factors, each on its own, and the head)
    and the floating-point buffers, in float32 on the CPU. Frozen parameters are equal in all checkpoints. Integer
    buffers, and whatever `merge_only` leaves out, are those of the latest training and go on from there.

    The loss of a task is over the classes of that task (`loss_over=task`), as in these papers, where every task has a
    label space of its own; the head's other rows stand still, against weight decay and momentum, too. `seen` takes the
    classes seen so far, as finetuning does: then each task pushes the rows of earlier classes down, and averages of
    them are of little use. Against finetuning, the two settings tell what the loss does and what merging does. Where a
    task has all classes (domains), or there are none (text), there is no difference.

    A head grows. A class's row is merged over the tasks in whose loss the class was: other checkpoints have no such
    row, or one that learned nothing. theta0 has the rows of the classes that the stream knows before training.

    Inside a task the merge is deployed that would be if training ended there, so nothing jumps at the task's end. A
    checkpoint is kept (`fold`) when the next task begins.
    """

    class Config(Strategy.Config):
        loss_over: Literal["task", "seen"] = setting(
            "task", "classes in the loss: those of the task, or all seen so far", source="arXiv 2203.05482, 2212.04089"
        )
        init: Init = setting("last", "weights a task is trained from", source=TIME)
        deploy: Literal["merged", "last"] = setting("merged", "weights to evaluate with", source=TIME)
        merge_only: str | None = setting(
            None, "a regular expression: parameters with a match in their name are merged; none: all", source="clbench"
        )

        @field_validator("merge_only")
        @classmethod
        def _pattern(cls, value: str | None) -> str | None:
            try:
                re.compile(value or "")
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
            return value

    keeps_initial = False
    """Whether the rule reads `state.initial`: theta0, in rows of later classes the values they were created with."""

    # -- the rule ------------------------------------------------------------------------------------------------

    def merged(self, trained: Weights) -> Weights:
        """The merge if training ended at `trained`. Changes nothing."""
        raise NotImplementedError

    def fold(self, trained: Weights) -> None:
        """Keep what later merges need of a task that is over."""

    def begun(self, start: Weights, current: Weights) -> None:
        """A task begins. start: the weights before the head grew for it; current: all, those that are trained now."""

    def votes(self, trained: Weights) -> dict[str, Tensor]:
        """Which rows of `trained` belong to classes in the task's loss; see `clbench.merging`."""
        rows = class_rows(self.model)
        return {name: chosen_rows(value, self.state.in_loss) for name, value in trained.items() if name in rows}

    # -- the loss ------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Tensor:
        if not self._left_out():
            return super().loss(batch)
        outputs, y = among(self.model(batch.x), batch.y, self.state.in_loss)
        return self.objective.mean_loss(outputs, y)

    def after_step(self, batch: Batch) -> None:
        """Undo what weight decay and momentum did to the rows of classes that are not in the loss."""
        others = self._left_out()
        if others:
            for name, value in class_rows(self.model).items():
                value[others] = self.state.rows[name].to(value.device)[others]

    def _left_out(self) -> list[int]:
        """The classes of the head that are not in the task's loss."""
        return sorted(set(range(getattr(self.model, "n_classes", 0))) - set(self.state.in_loss))

    def _enter_loss(self, task: Task) -> None:
        chosen = task.classes if self.config.loss_over == "task" else range(getattr(self.model, "n_classes", 0))
        self.state.in_loss = list(chosen)
        self.state.rows = {name: p.detach().clone() for name, p in class_rows(self.model).items()}

    # -- the frame -----------------------------------------------------------------------------------------------

    def setup(self) -> None:
        weights = self.weights()
        if not weights:
            raise UserError(f"merge_only={self.config.merge_only!r} matches no parameter that is trained")
        self.state.shapes = shapes(weights)
        self.state.known = {}
        self.state.initial = {}
        self.state.in_loss = []  # classes in the loss of the task being trained
        self.state.rows = {}  # the head's rows at that task's start

    def begin_task(self, task: Task) -> None:
        current = self.weights()
        first = not self.state.known
        if first:
            self.state.known = shapes(current) if self.objective.stream.initial_classes else self.state.shapes
            self.state.shapes = self.state.known
        start = trained = cut(current, self.state.shapes)
        if not first:
            start = self._start(trained)
        if self.keeps_initial or self.config.init == "theta0":
            self.state.initial = extended(self.state.initial, current)
        self.load(start)
        self._enter_loss(task)
        current = self.weights()
        self.state.shapes = shapes(current)
        self.begun(start, current)

    def deploy(self) -> Weights | None:
        if self.config.deploy == "last" or not self.state.known:
            return None
        return self.merged(self.weights())

    def _start(self, trained: Weights) -> Weights:
        """What the next task is trained from, the last one having ended at `trained`; that is folded, too."""
        start = {"last": trained, "theta0": self.state.initial}.get(self.config.init)
        if start is None:
            start = extended(self.merged(trained), trained)
        self.fold(trained)
        return start

    # -- weights -------------------------------------------------------------------------------------------------

    def weights(self) -> Weights:
        """A copy of what is merged, as it is now: float32, on the CPU."""
        chosen = re.compile(self.config.merge_only or "")
        tensors = self.trainable() | buffers(self.model)
        return {
            name: value.detach().to("cpu", torch.float32, copy=True)
            for name, value in tensors.items()
            if chosen.search(name)
        }

    @torch.no_grad()
    def load(self, weights: Weights) -> None:
        """Put these values into the model, where they have rows."""
        tensors = dict(self.model.named_parameters()) | buffers(self.model)
        for name, value in weights.items():
            known_part(tensors[name], value).copy_(value)


def buffers(model: nn.Module) -> dict[str, Tensor]:
    """Floating-point buffers that are saved with the model: BatchNorm's running statistics."""
    saved = model.state_dict().keys()
    return {name: b for name, b in model.named_buffers() if name in saved and b.is_floating_point()}


def shapes(weights: Weights) -> dict[str, list[int]]:
    """For the state: the shape of each tensor."""
    return {name: list(value.shape) for name, value in weights.items()}
