"""The contract of a strategy: one class, one file. Finetuning is the empty subclass.

A strategy touches a model, a loss and samples; it never asks whether these are images or tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor, nn

from clbench.phase import Optimizer, Phase, TrainingConfig
from clbench.samples import Batch, Samples
from clbench.state import State
from clbench.stream import Task

if TYPE_CHECKING:
    import torch

    from clbench.engine.services import Services
    from clbench.exemplars import Exemplars
    from clbench.memory import Memory
    from clbench.mixtures import Policy
    from clbench.objectives import Objective
    from clbench.stream import Stream, Task


@dataclass(frozen=True)
class Needs:
    """What a strategy uses. The engine enforces it: an undeclared use raises; boards show it.

    task_boundaries: it is told when a task begins and ends, and what is in it.
    task_id_at_test: `predict` receives the task's index, on task-incremental streams.
    stores_samples: keeps samples (a `Memory`). stores_features: keeps features of samples.
    sees_all_data: an oracle: reads the data of other tasks.
    knows_horizon: uses the number of tasks or which is the last.
    gradient_free: no phase has an optimiser. predicts_between_boundaries: can be evaluated inside a task.
    resume: "step" for byte-identical resuming anywhere, "task" or "none" for foreign code.
    objectives: those it works with; None: all.
    """

    task_boundaries: bool = True
    task_id_at_test: bool = False
    stores_samples: bool = False
    stores_features: bool = False
    sees_all_data: bool = False
    knows_horizon: bool = False
    gradient_free: bool = False
    predicts_between_boundaries: bool = True
    resume: Literal["step", "task", "none"] = "step"
    objectives: tuple[str, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        return asdict(self)


class Strategy:
    """Base class of all strategies. Override hooks; call services; keep what you remember in `self.state`.

    Attributes set by the engine before `setup`: `config` (the typed settings), `model` (an `nn.Module`), `objective`
    (losses and scores), `state` (saved in checkpoints).
    Hooks by the time they are called: `setup`, `build`, `begin_task`, `adopt`, `phases`, `loss`, `after_backward`,
    `after_step`, `end_task`, `diagnostics`, `predict`, `deploy`.
    """

    class Config(TrainingConfig):
        """The training settings alone."""

    needs: ClassVar[Needs] = Needs()
    version: ClassVar[int] = 1
    paper: ClassVar[str] = ""
    """The publication it follows, as `docs/methods.md` lists it: authors, year, arXiv identifier or venue."""
    checked_with: ClassVar[str] = ""
    """A small model that `clbench check` tries it with, where the method does not work with every model."""
    tunable: ClassVar[bool] = True
    """Whether `--tune` decides what of the model trains. False: the method decides that itself (modules that it adds to
    a frozen backbone, say), and anything but `full` is refused."""
    adopts: ClassVar[bool] = True
    """Whether it can go on from a first task learned by plain training (`--upstream shared`). False: what it remembers
    of a task exists only while it trains on it."""
    plans_ahead: ClassVar[bool] = True
    """Whether `phases` follows from the settings and the tasks alone, not from what was trained: all plans are then
    checked before any training. A class that overrides `phases` says so itself, or counts as False."""
    inputs: ClassVar[Literal["raw", "features"]] = "raw"
    """"features": batches and `predict` hold features of the frozen backbone, float32 [B, d], read from the feature
    cache; `model` is then a head on features (its backbone is the identity). "raw": until a phase says `features`."""

    @classmethod
    def reads(cls, config: Any) -> Literal["raw", "features"]:
        """What batches hold from the start on: `inputs`, unless the settings decide."""
        return cls.inputs

    @classmethod
    def check_stream(cls, config: Any, stream: Stream) -> None:
        """Refuse settings that do not go with a stream, before anything is trained. Raises UserError. Default: none."""

    @classmethod
    def needs_with(cls, config: Any) -> Needs:
        """What it needs with these settings: `needs`, unless they decide."""
        return cls.needs

    checked_on: ClassVar[dict[str, Any]] = {}
    """Settings of the stream that `clbench check` tries it with, where it does not work with the stream's own."""

    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions, beyond clbench's own, that its numbers depend on: records hold their versions."""

    def __init__(self, config: Any, services: Services) -> None:
        self.config = config
        self.state = State()
        self._services = services

    # -- hooks ---------------------------------------------------------------------------------------------------

    def setup(self) -> None:
        """Once, the model built: wrap modules, create memories and state."""

    def build(self, task: Task) -> None:
        """Before each task, and replayed on resuming: create parameters and modules. The head is grown already."""

    def begin_task(self, task: Task) -> None:
        """Before a task's first phase, on fresh entry only: set values."""

    def phases(self, task: Task) -> list[Phase]:
        """The plan of a task: a pure list. Default: one phase of SGD on the task's training data."""
        return [self.phase("train", task.train)]

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a step, a scalar. Default: the objective's own."""
        return self.objective.loss(self.model, batch)

    def after_backward(self, batch: Batch) -> None:
        """Gradients are ready: project them, or add the gradient of a penalty."""

    def after_step(self, batch: Batch) -> None:
        """The optimiser has stepped (or, without one, the batch was read): averages, buffers, masks."""

    def adopt(self, task: Task) -> None:
        """The first task was learned elsewhere (`--upstream`), its weights are in the model: take in what training on
        it would have left you. Between `begin_task` and `end_task`; phases with an optimiser are left out then, those
        without are run. Draw the order of samples from a generator. Default: nothing."""

    def end_task(self, task: Task) -> None:
        """After the last phase, before evaluation: prototypes, importances, merging."""

    def predict(self, inputs: Tensor) -> Tensor:
        """Scores of evaluation inputs: [B, classes seen], or token logits [B, T, V]. No gradients, eval mode.

        Classes beyond the last column have no score: they are never chosen.

        With `task_id_at_test` declared, it is called as `predict(inputs, task=index)` on task-incremental streams.
        """
        return self.model(inputs)

    def extract(self, inputs: Tensor) -> Tensor:
        """Features [B, d] of normalised inputs, once a phase has frozen the backbone (`Phase.inputs`); eval mode, no
        gradients. Default: the model's features. Must not change from then on."""
        features: Tensor = self.model.features(inputs)  # type: ignore[operator]
        return features

    def deploy(self) -> dict[str, Tensor] | None:
        """Other values of the model's parameters and buffers, by name, to evaluate with; None: those trained."""
        return None

    def diagnostics(self) -> dict[str, Any] | None:
        """What to keep in the record of the task that has just ended: JSON values by name; must not change anything.

        Called after `end_task`. None: nothing. Numbers that are not finite become null. A dict `effective_rank`
        from modules to ranks is what `clbench compare --figures ranks` draws.
        """
        return None

    # -- services ------------------------------------------------------------------------------------------------

    @property
    def model(self) -> nn.Module:
        """The model: `forward`, `features`, and for classifiers `n_classes`."""
        return self._services.model

    @property
    def frozen(self) -> bool:
        """Whether batches and `predict` hold features of a frozen backbone by now."""
        return self._services.features is not None

    @property
    def objective(self) -> Objective:
        """Losses and scores of the stream's regime."""
        return self._services.objective

    def phase(self, name: str, data: Any, **changes: Any) -> Phase:
        """A phase with the training settings of `config` (and the stream's where they are None), `changes` applied;
        where the stream says what batches are made of, with its mixture."""
        c = self.config
        settings: dict[str, Any] = {
            "batch_size": c.batch_size,
            "schedule": c.schedule,
            "clip": c.clip,
            "optimizer_state": c.optimizer_state,
            "anneal": 0.0 if changes.get("optimizer", c.optimizer) is None else c.anneal,
            "resume_from": c.resume_from,
            "optimizer": Optimizer(c.optimizer, c.lr, c.momentum, c.weight_decay),
            **({"steps": c.steps} if c.steps else {"epochs": c.epochs}),
        }
        if changes.get("steps") is not None:
            settings.pop("epochs", None)
        if changes.get("epochs") is not None:
            settings.pop("steps", None)
        return self._services.mixed(Phase(name=name, data=data, **{**settings, **changes}))

    def memory(self, size: int, policy: str = "reservoir") -> Memory:
        """A new memory (see `clbench.memory`); keep it in `self.state`. Needs `stores_samples`, or `stores_features`
        where `inputs` are features."""
        return self._services.memory(size, policy)

    def exemplars(self, size: int) -> Exemplars:
        """New sets of exemplars (see `clbench.exemplars`); keep them in `self.state`. Needs `stores_samples`."""
        return self._services.exemplars(size)

    def replay(self, memory: Memory, n: int, view: Literal["train", "plain"] = "train") -> Batch | None:
        """A batch of up to `n` remembered samples, augmented anew; None while the memory is empty.

        `n` counts for the whole step; where several devices share it, `loss` gets its share of them.
        """
        return self._services.replay(memory, n, view)

    def batches(self, samples: Samples, batch_size: int = 64, view: Literal["train", "plain"] = "plain") -> Any:
        """An iterator over samples in order, as `Batch`es (for `end_task` and `Phase.begin`)."""
        return self._services.batches(samples, batch_size, view)

    def snapshot(self, name: str) -> nn.Module:
        """Take a frozen copy of the model as it is (replacing one of that name); saved and rebuilt by the engine."""
        return self._services.snapshot(name)

    def teacher(self, name: str) -> nn.Module | None:
        """The snapshot of that name, in eval mode and without gradients, or None before it was taken."""
        return self._services.snapshots.get(name)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Parameters trained in this phase, by name; in hooks outside phases, all that may be trained."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def squared_gradients(self, samples: Samples, labels: str = "true", limit: int | None = None) -> dict[str, Tensor]:
        """Mean over samples of the squared per-sample gradient of the objective's loss: the diagonal Fisher.

        Norm layers in eval mode. labels: "true" (empirical Fisher), "sampled" from the model, or "predicted".
        limit: use that many samples, drawn once without replacement. Returns {name: tensor like the parameter}.
        """
        return self._services.squared_gradients(samples, labels, limit)

    def seen_samples(self) -> Samples:
        """Training data of this task and all before it. Needs `sees_all_data`."""
        return self._services.seen_samples()

    def all_samples(self) -> Samples:
        """Training data of all tasks, later ones included. Needs `sees_all_data`."""
        return self._services.all_samples()

    def earlier_samples(self) -> dict[str, Samples]:
        """Training data of each task before this one, by its name. Needs `stores_samples` and `task_boundaries` (or
        `sees_all_data`): from the first call on, the data of all tasks done count as stored."""
        return self._services.earlier_samples()

    def pretraining_samples(self) -> Samples | None:
        """Data of what the model knew before the stream, where the stream has any."""
        return self._services.stream.pretraining

    def selection_samples(self) -> dict[str, Samples]:
        """Validation data of each task seen, this one's included, by its name: what a choice during training may be
        based on. Needs what `earlier_samples` does. Raises UserError where the stream keeps none."""
        return self._services.selection_samples()

    def sample_losses(self, samples: Samples) -> Tensor:
        """The model's loss on each sample, un-augmented, in eval mode and without gradients: float32 [n], nats. Its
        cost counts as training."""
        return self._services.sample_losses(samples)

    @property
    def mixture(self) -> Policy | None:
        """The policy of the phase under way, where it has sources."""
        running = self._services.mixing.running
        return None if running is None else running.policy

    def draw_counts(self) -> dict[str, dict[str, float]]:
        """Of each source that phases have drawn from: `samples` read in the run, and the `epochs` they make."""
        return self._services.mixing.report()

    def is_last_task(self) -> bool:
        """Whether this task is the stream's last. Needs `knows_horizon`."""
        return self._services.is_last_task()

    def horizon(self) -> int:
        """How many tasks the stream has. Needs `knows_horizon`."""
        return self._services.horizon()

    def generator(self, concern: str) -> torch.Generator:
        """A CPU generator for this concern, keyed to the run's seed and place; equal on resuming."""
        return self._services.generator(concern)

    def join(self, *batches: Batch | None) -> Batch:
        """One batch of several; Nones are left out. `part` numbers them."""
        present: Sequence[Batch] = [b for b in batches if b is not None]
        return present[0] if len(present) == 1 else Batch.join(present)
