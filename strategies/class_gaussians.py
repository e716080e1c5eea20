"""Normal distributions of the features of each class: estimated once, drawn from ever after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from clbench.class_statistics import ClassStatistics
from clbench.models.modes import in_eval_mode
from clbench.samples import Pool, Samples
from clbench.strategy import Strategy

Place = Callable[[Tensor, Tensor, int], Tensor]
"""Samples float32 [n, d] from a mean [d], the deviations drawn [n, d], and the task the Gaussian comes from."""


class ClassGaussians:
    """Gaussians N(mu, Sigma + ridge I), one for each class and task in which the class came. Keep it in the state.

    mu and Sigma (divided by n - 1) are computed in float64. Sigma is kept as a factor F [d, r], F F^T = Sigma, of its
    principal axes: r is its rank, so a class of few samples takes little memory, and a singular Sigma is drawn from
    as well as any other. Lists: `classes`, `tasks`, `means` (float32 [d]) and `factors` (float32 [d, r]).
    """

    def __init__(self, ridge: float) -> None:
        self.ridge = ridge
        self.classes: list[int] = []
        self.tasks: list[int] = []
        self.means: list[Tensor] = []
        self.factors: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.classes)

    def add(self, task: int, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Estimate the classes of a task from batches of features [B, d] and labels int64 [B]."""
        statistics = ClassStatistics("class")
        for features, labels in batches:
            statistics.add(features, labels)
        means = statistics.means()
        for label in statistics.classes:
            self.classes.append(label)
            self.tasks.append(task)
            self.means.append(means[label].float())
            self.factors.append(factored(statistics.covariance(label)))

    def deviations(self, number: int, n: int, generator: torch.Generator) -> Tensor:
        """n draws from the Gaussian of this number, without its mean: float32 [n, d]."""
        factor = self.factors[number]
        along = torch.randn(n, factor.shape[1], generator=generator)
        around = torch.randn(n, len(factor), generator=generator)
        return along @ factor.T + self.ridge**0.5 * around

    def draw(self, n: int, generator: torch.Generator, place: Place) -> Samples:
        """n new samples of every Gaussian in random order, to be read in order: `len(self) * n` rows."""
        size = len(self) * n
        rows = torch.empty(size, len(self.means[0]))
        labels = torch.empty(size, dtype=torch.int64)
        for number, targets in enumerate(torch.randperm(size, generator=generator).split(n)):
            deviations = self.deviations(number, n, generator)
            rows[targets] = place(self.means[number], deviations, self.tasks[number])
            labels[targets] = self.classes[number]
        return Samples(Pool(rows, labels, features=True))

    def state_dict(self) -> dict[str, Any]:
        """The four lists."""
        return {name: getattr(self, name) for name in ("classes", "tasks", "means", "factors")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        for name, value in state.items():
            setattr(self, name, value)


def factored(covariance: Tensor) -> Tensor:
    """float32 [d, r] with F F^T the covariance, float64 [d, d]; eigenvalues that are rounding errors are left out."""
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    return (vectors[:, kept] * values[kept].sqrt()).float()


@torch.no_grad()
def plain_features(strategy: Strategy, samples: Samples) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of features [B, d] and labels of un-augmented samples, the model in eval mode meanwhile."""
    model: Any = strategy.model
    with in_eval_mode(model):
        for batch in strategy.batches(samples):
            yield model.features(batch.x), batch.y
