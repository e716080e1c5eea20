"""What methods that select the ranks of low-rank updates share: training them for a task, then merging them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from clbench.config import setting
from clbench.engine.sampling import phase_length
from clbench.errors import UserError
from clbench.models.rank_one import attach, components, merge
from clbench.phase import Phase
from clbench.samples import Batch
from clbench.strategy import Strategy
from clbench.stream import Task

from .chosen_classes import among, class_rows

FUSED = "clbench: the papers' models have these layers apart"


class RankSelection(Strategy):
    """For each task a new low-rank update of all linear layers, whose ranks are selected while it trains.

    The backbone is frozen but for that; a classifier's head trains along. The loss is taken over the classes of the
    task alone, and the head's rows of other classes stand still, whatever the optimiser's weight decay: each task has a
    classifier of its own, as each task of the papers. (The loss of a task of one class is 0: it teaches nothing.)
    Subclasses add the updates in `setup`, begin them in `begin_task`, change them after each step (`reweigh`) and merge
    them in `end_task`.
    """

    class Config(Strategy.Config):
        rank: int = setting(16, "components of each layer at a task's start", source="arXiv 2106.09685", ge=1)
        separate: bool = setting(True, "fused query, key and value layers get factors of their own", source=FUSED)

    tunable = False

    def setup(self) -> None:
        head = getattr(self.model, "head", None)
        if head is not None and not any(True for _ in head.parameters()):
            raise UserError(f"{type(self).__name__} trains the head: use --head linear or cosine")
        self.state.step = 0
        self.state.head = {}
        self.state.told = {}

    def begin_task(self, task: Task) -> None:
        self.state.step = 0
        self.state.head = {name: rows.detach().clone() for name, rows in class_rows(self.model).items()}

    def phases(self, task: Task) -> list[Phase]:
        loss = partial(self.task_loss, task.classes)
        phase = self.phase("train", task.train, loss=loss, trainable=self.is_trained, mode="frozen_norms")
        phase.after_step = partial(self.after_update, task.classes, phase_length(phase, len(task.train)))
        return [phase]

    def is_trained(self, name: str) -> bool:
        """Whether a parameter of this name trains."""
        raise NotImplementedError

    def task_loss(self, classes: Sequence[int], batch: Batch) -> Tensor:
        outputs, y = among(self.model(batch.x), batch.y, classes)
        return self.objective.mean_loss(outputs, y)

    def after_update(self, classes: Sequence[int], steps: int, batch: Batch) -> None:
        """After each update of a phase of this many steps."""
        self.reweigh(self.state.step, steps)
        self.state.step += 1
        for name, rows in class_rows(self.model).items():
            learned = rows[list(classes)]
            rows.copy_(self.state.head[name].to(rows.device))
            rows[list(classes)] = learned

    def reweigh(self, step: int, steps: int) -> None:
        """Change the update's weights after the 0-based step `step` of `steps`."""
        raise NotImplementedError

    def end_task(self, task: Task) -> None:
        self.state.head = {}

    def diagnostics(self) -> dict[str, Any]:
        return dict(self.state.told)


class RankLoRA(RankSelection):
    """The update is a sum of weighted rank-one components. Subclasses give the weights that they begin with."""

    def setup(self) -> None:
        super().setup()
        attach(self.model, self.config.rank, self.scaling(), self.config.separate, type(self).__name__)

    def scaling(self) -> float:
        """The factor of every layer's sum."""
        return 1.0

    def begin_task(self, task: Task) -> None:
        super().begin_task(task)
        for part in components(self.model).values():
            part.start(self.first_weights())

    def first_weights(self) -> Tensor:
        """The weights [rank] that a layer's components begin a task with."""
        raise NotImplementedError

    def is_trained(self, name: str) -> bool:
        return ".rank_one." in name or name.startswith("head.")

    def end_task(self, task: Task) -> None:
        super().end_task(task)
        parts = components(self.model)
        squares = sum(float(part.change().double().square().sum()) for part in parts.values())
        self.state.told = {
            "effective_rank": {name: int(part.w.count_nonzero()) for name, part in parts.items()},
            "update_norm": squares**0.5,
        }
        merge(self.model)
