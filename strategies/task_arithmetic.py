"""Task arithmetic along a stream: the sum of task vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from clbench.config import setting
from clbench.merging import Weights, added, averaged, cut, difference, extended, summed

from .merging import Init, Merging


class TaskArithmetic(Merging):
    """Deploy the initial weights plus a multiple of the sum of all task vectors (task arithmetic).

    Ilharco et al. 2023 (arXiv 2212.04089): theta0 + scale * sum_k (theta_k - theta0), every task trained from theta0.
    Where tasks are not (`init=last`, `merged`), `origin` says what a vector is measured from: theta0, as Roth et al.
    2024 (arXiv 2408.14471) do, which counts what tasks share once for each of them, or the weights at the task's start.
    `merge_of=running` merges, as they do, the vectors of theta_t and of the last merge instead of all.

    theta0 has no row for a new class, so there is no vector: like the heads of these papers, which belong to one task
    each, such a row is not scaled, but taken as trained, the mean over the tasks in whose loss its class was. Buffers
    are those of the latest training: a sum of differences of variances is no variance. Besides theta0, one sum is kept,
    and the new rows.
    """

    paper = "Ilharco et al. 2023, ICLR (arXiv 2212.04089)"
    keeps_initial = True

    class Config(Merging.Config):
        init: Init = setting("theta0", "weights a task is trained from", source="arXiv 2212.04089")
        origin: Literal["theta0", "task_start"] = setting(
            "theta0", "what a task vector is measured from", source="arXiv 2212.04089"
        )
        scale: float = setting(0.3, "lambda: of the merged vector", source="code of arXiv 2408.14471, offline merge")
        merge_of: Literal["all", "running"] = setting(
            "all", "vectors: those of all tasks, or of this one and the last merge", source="arXiv 2412.06712"
        )

    def setup(self) -> None:
        super().setup()
        self.state.vectors = []
        self.state.origin = {}
        self.state.mean, self.state.counts = {}, {}  # of tensors with rows that theta0 lacks

    def begun(self, start: Weights, current: Weights) -> None:
        if self.config.origin == "task_start":
            self.state.origin = self._known(current)

    def merged(self, trained: Weights) -> Weights:
        merge = self._merge([*self.state.vectors, self.vector(trained)])
        grown, _ = self._grown(trained)
        return merge | extended({name: merge[name] for name in grown}, grown)

    def fold(self, trained: Weights) -> None:
        vectors = [*self.state.vectors, self.vector(trained)]
        if self.config.merge_of == "running":
            vectors = [self.prepared(difference(self._merge(vectors), self._known(self.state.initial)))]
        self.state.vectors = self.kept(vectors)
        self.state.mean, self.state.counts = self._grown(trained)

    def vector(self, trained: Weights) -> Weights:
        """The vector of the task that ended at `trained`, as it is merged and kept."""
        origin = self.state.origin or self._known(self.state.initial)
        return self.prepared(difference(self._known(trained), origin, self.votes(trained)))

    def prepared(self, vector: Weights) -> Weights:
        """A vector before merging."""
        return vector

    def combined(self, vectors: Sequence[Weights]) -> Weights:
        """One vector of all."""
        return summed(vectors)

    def kept(self, vectors: list[Weights]) -> list[Weights]:
        """What to keep so that later merges combine these vectors."""
        return [summed(vectors)]

    def _merge(self, vectors: list[Weights]) -> Weights:
        return added(self._known(self.state.initial), self.combined(vectors), self.config.scale)

    def _known(self, weights: Weights) -> Weights:
        """Of the parameters, the rows that theta0 has."""
        parameters = self.trainable()
        return cut(weights, {name: shape for name, shape in self.state.known.items() if name in parameters})

    def _grown(self, trained: Weights) -> tuple[Weights, Weights]:
        """The means of parameters with rows that theta0 lacks, `trained` among them, and the votes for each row."""
        known = self._known(trained)
        grown = {name: trained[name] for name, value in known.items() if value.shape != trained[name].shape}
        return averaged(self.state.mean, self.state.counts, grown, self.votes(trained))
