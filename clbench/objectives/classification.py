"""Classification: images and labels; accuracy over the classes seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.objectives.base import Objective
from clbench.transforms import Normalise, augment

if TYPE_CHECKING:
    from clbench.models import InputSpec
    from clbench.stream import EvalSet, Stream


class Classification(Objective):
    """Cross-entropy over all classes seen; a sample scores 1 when its class has the highest score.

    On task-incremental streams the scorer looks at the classes of the set's own task alone.
    """

    primary: ClassVar[str] = "accuracy"
    direction: ClassVar[Literal["higher", "lower"]] = "higher"

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self.normalise = Normalise(stream.mean, stream.std, stream.input_shape[0], None)

    def inputs(
        self,
        raw: Tensor,
        labels: Tensor,
        view: Literal["train", "plain"],
        generator: torch.Generator | None,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        if view == "train":
            raw = augment(raw, self.stream.augmentation, generator)
        return self.normalise(raw), labels

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs, y, reduction="none")

    def mean_loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs, y)

    def decide(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if generator is None:
            return outputs.argmax(1)
        return torch.multinomial(outputs.float().softmax(1).cpu(), 1, generator=generator)[:, 0].to(outputs.device)

    def distillation(self, outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        student = (outputs[:, : teacher.shape[1]] / temperature).log_softmax(1)
        target = (teacher / temperature).softmax(1)
        return F.kl_div(student, target, reduction="none").sum(1) * temperature**2

    def scores(self, outputs: Tensor, y: Tensor, eval_set: EvalSet) -> Tensor:
        missing = max(eval_set.classes) + 1 - outputs.shape[1]
        if missing > 0:  # classes the strategy has no score for: never chosen
            outputs = F.pad(outputs, (0, missing), value=float("-inf"))
        if self.stream.scenario == "task":
            allowed = torch.full(outputs.shape[1:], float("-inf"), device=outputs.device)
            allowed[list(eval_set.classes)] = 0.0
            outputs = outputs + allowed
        return (outputs.argmax(1) == y).float()

    def scorable(self, eval_set: EvalSet, n_classes: int) -> bool:
        return n_classes > 0 and max(eval_set.classes) < n_classes

    def base(self, eval_set: EvalSet, n_classes: int) -> float:
        known = len(eval_set.classes) if self.stream.scenario == "task" else n_classes
        return 1.0 / known if known else 0.0

    def fit(self, spec: InputSpec) -> None:
        self.normalise = Normalise(spec.mean, spec.std, spec.channels, spec.size)

    def grow_to(self, model: Any, n_classes: int) -> None:
        if n_classes > model.n_classes:
            model.grow(n_classes - model.n_classes)
