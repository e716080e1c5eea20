"""The contract of an objective, and the table of those there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor, nn

if TYPE_CHECKING:
    import torch

    from clbench.models import InputSpec
    from clbench.samples import Batch, Samples
    from clbench.stream import EvalSet, Stream, Task

OBJECTIVES = {
    "classification": "clbench.objectives.classification:Classification",
    "language_modeling": "clbench.objectives.language_modeling:LanguageModeling",
    "contrastive": "clbench.objectives.contrastive:Contrastive",
}


def build_objective(stream: Stream) -> Objective:
    """The objective a stream names."""
    module, _, name = OBJECTIVES[stream.objective].partition(":")
    kind: type[Objective] = getattr(import_module(module), name)
    return kind(stream)


class Objective(ABC):
    """Inputs from stored values, losses from outputs, scores from predictions.

    primary: the name of the primary metric, direction: which way is better. decides: whether a sample's score is a
    0/1 decision (accuracy) whose noise floor is binomial. keeps_values: whether the value of every evaluated sample is
    kept in the run's folder (`clbench.block_losses`). couples_samples: whether a sample's loss depends on the others of
    its batch: gradients are then squared batch by batch, and batches are not divided among devices. scores_whole:
    whether a set is scored when the answers to all its samples are there (`score_whole`), each sample asked once.
    """

    primary: ClassVar[str]
    direction: ClassVar[Literal["higher", "lower"]]
    keeps_values: ClassVar[bool] = False
    couples_samples: ClassVar[bool] = False
    scores_whole: ClassVar[bool] = False

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    @property
    def chunk(self) -> int:
        """Samples that are evaluated at once."""
        return 64

    @abstractmethod
    def inputs(
        self,
        raw: Tensor,
        labels: Tensor,
        view: Literal["train", "plain"],
        generator: torch.Generator | None,
        rows: Tensor | None = None,
    ) -> tuple[Any, Tensor]:
        """Model inputs x and targets y from stored values. `generator` draws the augmentation of the train view. rows:
        where the samples lie in the stream's pool, int64 [B], -1 for one that does not; None: unknown."""

    @abstractmethod
    def losses(self, outputs: Any, y: Tensor) -> Tensor:
        """Per-sample losses, float [B], in nats (per token for text)."""

    def mean_loss(self, outputs: Any, y: Tensor) -> Tensor:
        """The mean of `losses`, a scalar."""
        return self.losses(outputs, y).mean()

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean loss of the model on a batch, a scalar."""
        return self.mean_loss(model(batch.x), batch.y)

    @abstractmethod
    def decide(self, outputs: Any, generator: torch.Generator | None = None) -> Tensor:
        """Targets according to the model: the most likely ones, or drawn from its distribution with `generator`."""

    @abstractmethod
    def distillation(self, outputs: Any, teacher: Any, temperature: float) -> Tensor:
        """Per-sample KL divergence, softened by `temperature` (times its square), from the teacher's outputs to the
        same columns of `outputs`: float [B]. The teacher may know fewer classes."""

    def per_sample(self, outputs: Any) -> Tensor:
        """Outputs as one tensor [B, ...], each row of its sample alone: what may be stored with a sample and compared
        with its outputs later. Default: as they are."""
        rows: Tensor = outputs
        return rows

    @abstractmethod
    def scores(self, outputs: Tensor, y: Tensor, eval_set: EvalSet) -> Tensor:
        """Per-sample values of the primary metric, float [B]."""

    def prepare_scoring(self, sets: Sequence[EvalSet], predict: Callable[[Any], Any], key: str | None) -> int:
        """Before sets are scored: what does not depend on their samples, by `predict`, in eval mode with the weights
        that are evaluated. key: equal keys, equal predictions of texts; None: not known. Returns how many predictions
        that takes where none is known yet. Default: nothing."""
        return 0

    def asked(self, x: Any) -> Any:
        """The part of inputs that `predict` needs where sets are scored whole. Default: all."""
        return x

    def answers(self, outputs: Any) -> Tensor:
        """The part of outputs that scores need, float [B, ...]. Default: all."""
        answers: Tensor = outputs
        return answers

    def score_whole(self, outputs: Tensor, samples: Samples, eval_set: EvalSet) -> Tensor:
        """Where sets are scored whole: values of the primary metric of all its samples, float [n]."""
        raise NotImplementedError

    def counts(self, batch: Batch) -> dict[str, int]:
        """What a run's cost counts of a training batch, besides its samples. Default: nothing."""
        return {}

    def further(self, value: float, eval_set: EvalSet) -> dict[str, float]:
        """Other metrics of a set, as functions of the primary value."""
        return {}

    def scorable(self, eval_set: EvalSet, n_classes: int) -> bool:
        """Whether a head with `n_classes` outputs can score the set."""
        return True

    @abstractmethod
    def base(self, eval_set: EvalSet, n_classes: int) -> float:
        """The value of knowing nothing: chance accuracy, or the set's unigram cross-entropy."""

    def fit(self, spec: InputSpec) -> None:
        """Prepare inputs as this model wants them (its size, channels and normalisation). Default: nothing to do."""

    def grow_to(self, model: nn.Module, n_classes: int) -> None:
        """Give the model outputs for this many classes. Default: nothing to grow."""

    def grow(self, model: nn.Module, task: Task) -> None:
        """Give the model outputs for all classes up to the task's."""
        self.grow_to(model, max(task.classes, default=-1) + 1)
