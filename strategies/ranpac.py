"""RanPAC: ridge regression on random features of a frozen backbone."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.class_statistics import GramStatistics, inverted
from clbench.config import setting
from clbench.phase import Phase
from clbench.samples import Batch
from clbench.strategy import Needs
from clbench.stream import Task

from .first_session import FirstSession

RIDGES = 10.0 ** torch.arange(-8, 9, dtype=torch.float64)
ROWS = 512


class RanPAC(FirstSession):
    """Adapt the backbone on the first task, then do ridge regression on random rectified features (RanPAC).

    McDonnell et al. 2023 (arXiv 2307.02251). With f the frozen features and P [d, M] drawn once from N(0, 1),
    h = relu(f P). Over all samples so far G = sum h h^T and Q = sum h y^T, y one-hot; the scores of x are
    h(x)^T (G + lambda I)^-1 Q. After each task lambda is chosen among 1e-8, 1e-7, ..., 1e8, as in paper and code, on
    that task alone: fitted on a random 80 % of its samples, judged by the squared error on the rest; and applied to
    the sums over all tasks. With a fixed `ridge` order and cut of the tasks after the first do not change the result.

    Everything is in float64 (the code: float32, and a solve for each of 17 lambdas; here they share one
    eigendecomposition, of the smaller of h h^T and h^T h). G takes 8 M^2 bytes, 800 MB for the paper's M = 10,000, and
    about three times that while lambda is chosen. Classes that come again (domains) add to G and Q.
    """

    class Config(FirstSession.Config):
        projection: int | None = setting(
            None,
            "random features M; 0: none, features as they are; none: in proportion to the features, 10,000 for 768",
            source="arXiv 2307.02251: 10,000 for ViT-B/16",
            ge=0,
        )
        ridge: float | None = setting(
            None, "lambda; none: chosen after each task", source="arXiv 2307.02251, appendix", gt=0
        )

    needs = Needs(predicts_between_boundaries=False, objectives=("classification",))
    paper = "McDonnell et al. 2023, NeurIPS (arXiv 2307.02251)"

    def setup(self) -> None:
        super().setup()
        dim: int = self.model.head.dim  # type: ignore[assignment]
        m = self.config.projection
        m = min(10_000, round(dim * 10_000 / 768)) if m is None else m
        drawn = torch.randn(dim, m, generator=self.generator("projection"), dtype=torch.float64)
        device = next(self.model.parameters()).device
        self.state.projection = drawn.to(device)
        self.state.gram = GramStatistics(m or dim, device)
        self.state.weights = torch.zeros(0, m or dim, dtype=torch.float64)
        self.state.ridge = 1.0

    def phases(self, task: Task) -> list[Phase]:
        gram = Phase(
            "gram",
            task.train,
            "plain",
            inputs="features",
            epochs=1,
            batch_size=ROWS,
            shuffle=False,
            optimizer=None,
            after_step=self._add,
        )
        return [*self.first_session(task), gram]

    def end_task(self, task: Task) -> None:
        if self.config.ridge is not None:
            self.state.ridge = self.config.ridge
        elif len(task.train) > 1:
            self.state.ridge = self._chosen_ridge(task)
        self.state.weights = self.state.gram.solve(self.state.ridge)

    def diagnostics(self) -> dict[str, Any]:
        return {"ridge": self.state.ridge}

    def predict(self, inputs: Tensor) -> Tensor:
        weights = self.state.weights.to(inputs.device)
        if not len(weights):
            return inputs.new_zeros(len(inputs), 0)
        absent = self.state.gram.counts[: len(weights)] == 0
        scores = (self._random_features(inputs) @ weights.T).float()  # rounded, since the last bits depend on the chunk
        return scores.masked_fill(absent.to(inputs.device), float("-inf"))

    def _add(self, batch: Batch) -> None:
        self.state.gram.add(self._random_features(batch.x), batch.y)

    def _random_features(self, features: Tensor) -> Tensor:
        """h, float64 [B, M]."""
        if self.config.projection == 0:
            return features.double()
        return (features.double() @ self.state.projection.to(features.device)).relu_()

    def _chosen_ridge(self, task: Task) -> float:
        """The lambda that predicts a fifth of the task best from the rest; of equally good ones the smallest."""
        batches = list(self.batches(task.train, ROWS))
        x, y = torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])
        order = torch.randperm(len(y), generator=self.generator("ridge")).to(y.device)
        fit, held = order.tensor_split([int(0.8 * len(y))])
        targets = F.one_hot(y).double()
        values, basis, right = self._decomposed(x[fit], y[fit], targets[fit])
        left = torch.cat([self._random_features(rows) @ basis for rows in x[held].split(ROWS)])
        errors = [(left * inverted(values, ridge) @ right - targets[held]).square().mean() for ridge in RIDGES.tolist()]
        return float(RIDGES[int(torch.stack(errors).argmin())])

    def _decomposed(self, x: Tensor, y: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """values [n], basis [M, n] and right [n, C]: ridge weights are basis diag(1 / (values + lambda)) right."""
        if len(x) < self.state.gram.dim:
            h = self._random_features(x)
            values, vectors = torch.linalg.eigh(h @ h.T)
            return values, h.T @ vectors, vectors.T @ targets
        own = GramStatistics(self.state.gram.dim, x.device)
        for rows, labels in zip(x.split(ROWS), y.split(ROWS), strict=True):
            own.add(self._random_features(rows), labels)
        values, vectors = torch.linalg.eigh(own.gram)
        missing = targets.shape[1] - len(own.by_class)
        return values, vectors, vectors.T @ F.pad(own.by_class, (0, 0, 0, missing)).T
