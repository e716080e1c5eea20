"""Phases: the pure plan of a task. A strategy returns a list of them; the engine steps through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import SerializerFunctionWrapHandler, field_validator, model_serializer

from clbench.config import Config, setting
from clbench.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Parameter

    from clbench.mixtures import Policy
    from clbench.samples import Batch, Samples

Mode = Literal["train", "eval", "frozen_norms"]
View = Literal["train", "plain"]
Inputs = Literal["raw", "features"]
OptimizerState = Literal["reset", "keep", "keep-moments"]
OPTIMIZERS = ("sgd", "adam", "adamw")


class TrainingConfig(Config):
    """How a gradient strategy trains. A value of None means: what the stream recommends (its `training`)."""

    optimizer: str | None = setting(None, "sgd, adam or adamw", source="the stream's recommendation")
    lr: float | None = setting(None, "peak learning rate", source="the stream's recommendation", ge=0)
    momentum: float | None = setting(None, "SGD momentum", source="the stream's recommendation", ge=0, lt=1)
    weight_decay: float | None = setting(None, "weight decay", source="the stream's recommendation", ge=0)
    batch_size: int | None = setting(
        None, "samples of the current task per step", source="the stream's recommendation", ge=1
    )
    epochs: float | None = setting(None, "passes over a task's data", source="the stream's recommendation", gt=0)
    steps: int | None = setting(None, "steps per task, instead of epochs", source="clbench: unset, epochs rule", ge=1)
    schedule: str | None = setting(None, "learning-rate schedule within a phase", source="the stream's recommendation")
    clip: float | None = setting(None, "largest gradient norm", source="the stream's recommendation", gt=0)
    optimizer_state: OptimizerState = setting(
        "reset",
        "at a task's start: reset, keep, or keep-moments (step count restarts)",
        source="the field's custom: a new optimiser for each task",
    )

    anneal: float = setting(
        0.0,
        "share of a task's last training phase spent on a branch whose rate is annealed; 0: no branch",
        source="clbench: off; Beyond Cosine Decay (arXiv 2503.02844) anneals over 0.1 to 0.2",
        ge=0,
        lt=1,
    )
    resume_from: Literal["stable", "annealed"] = setting(
        "stable",
        "where the next task goes on from: the trunk's end (stable), or the annealed branch",
        source="Beyond Cosine Decay (arXiv 2503.02844): the checkpoint before the anneal",
    )

    @model_serializer(mode="wrap")
    def _without_idle_settings(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A run that never forks has the specification of those made before there were forks."""
        values: dict[str, Any] = serialize(self)
        if not self.anneal and type(self).model_fields["anneal"].default == 0:
            values.pop("anneal", None)
            values.pop("resume_from", None)
        return values

    @field_validator("optimizer")
    @classmethod
    def _known_optimizer(cls, value: str | None) -> str | None:
        if value is not None and value not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer{did_you_mean(value, OPTIMIZERS)}")
        return value

    @field_validator("schedule")
    @classmethod
    def _known_schedule(cls, value: str | None) -> str | None:
        from clbench.schedules import portable

        try:
            return None if value is None else portable(value)
        except UserError as error:
            raise ValueError(str(error)) from None


@dataclass(frozen=True)
class Optimizer:
    """An optimiser by name with its settings; built by the engine over the phase's trainable parameters."""

    name: str = "sgd"
    lr: float = 0.03
    momentum: float = 0.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass
class Phase:
    """One stretch of steps.

    data: the samples to draw from, or a function returning them (called on every entry, fresh or resumed: a memory's
    contents, generated features); it must depend on nothing but the strategy's state, and on nothing that the phase's
    own steps change.
    sources, mixture: batches are drawn from several sources, by the shares of a policy (`clbench.mixtures`); the first
    is the current domain. `data` then only says how long the phase is. A source that is None has its share left out of
    the batch: `loss` fills it. `Batch.part` numbers the sources.
    view: "train" (augmented) or "plain". epochs or steps: its length; a last, smaller batch is kept.
    inputs: "features" freezes the backbone for the rest of the run: from here on batches and `predict` hold features,
    `Strategy.extract` of each sample, computed once. None: whatever the strategy reads by now.
    loss, after_step, begin: default to the strategy's `loss` and `after_step`, and to nothing. `begin` runs once, on
    fresh entry. No work belongs between phases.
    trainable: names of parameters to train, as a predicate (None: all); mode: of the model's modules. Both are applied
    on every entry. parameter_groups: from {name: parameter} to optimiser groups: `params`, overrides such as `lr`, and
    `min_lr`, the rate that the schedule's 0 stands for.
    schedule: of the learning rate (`clbench.schedules`). schedule_phase: which phase of the run it takes this one for;
    None: the task's index, 0 while nothing was trained. 0: training starts from new weights, where the run begins anew.
    optimizer None: gradient-free, `loss` is not called. optimizer_state: reset, keep, or keep-moments.
    anneal: the share of the phase's steps, its last ones, that are spent on a branch. At the trunk's end the state is
    set aside, the branch is trained to its end, both are evaluated, and resume_from says which one the next task goes
    on from. Of a task's phases the last one with an optimiser forks. A branch does not advance the run's step.
    update: a whole update done by the strategy itself, for training loops of other libraries: given the batch and the
    phase's optimiser, its learning rates set, it returns the detached loss. `loss`, `after_backward` and `clip` are
    then its own business; it runs on one device.
    """

    name: str
    data: Samples | Callable[[], Samples]
    view: View = "train"
    inputs: Inputs | None = None
    epochs: float | None = None
    steps: int | None = None
    batch_size: int = 32
    shuffle: bool = True
    loss: Callable[[Batch], Tensor | None] | None = None
    after_step: Callable[[Batch], None] | None = None
    begin: Callable[[], None] | None = None
    trainable: Callable[[str], bool] | None = None
    parameter_groups: Callable[[dict[str, Parameter]], list[dict]] | None = None
    mode: Mode = "train"
    optimizer: Optimizer | None = field(default_factory=Optimizer)
    optimizer_state: OptimizerState = "reset"
    schedule: str = "constant"
    schedule_phase: int | None = None
    clip: float | None = None
    anneal: float = 0.0
    resume_from: Literal["stable", "annealed"] = "stable"
    update: Callable[[Batch, torch.optim.Optimizer], Tensor] | None = None
    sources: Mapping[str, Samples | None] | None = None
    mixture: Policy | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"phase {self.name!r}: give epochs or steps, one of them")
        if not 0 <= self.anneal < 1:
            raise ValueError(f"phase {self.name!r}: anneal={self.anneal} is not a share in [0, 1)")
        if self.resume_from not in ("stable", "annealed"):
            raise ValueError(f"phase {self.name!r}: resume_from={self.resume_from!r} is neither stable nor annealed")
