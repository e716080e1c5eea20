"""Statistics of features by class, gathered in one pass: counts, means, covariances, Gram matrices.

Everything is summed in float64 on the CPU, so order and cut of a stream change the result by rounding alone. A batch is
added as a whole: the scatter of joined groups follows from those of the parts (Chan, Golub and LeVeque 1983), the
streaming update of single samples being its special case.

Symmetric matrices are kept as their lower triangle, d (d + 1) / 2 numbers: the covariances of 200 classes of 768
features take 472 MB.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.errors import RunFailed

Covariance = Literal["none", "shared", "class"]


class ClassStatistics:
    """Counts and means by class, and covariances: none, one shared by all classes, or one for each class.

    Classes are numbered from 0 and may come in any order, in parts, and again. Attributes: `counts` int64 [C], `sums`
    float64 [C, d]; C grows to the largest class added. Keep it in a strategy's state, made in `setup`.
    """

    def __init__(self, covariance: Covariance = "none") -> None:
        self.kind = covariance
        self.counts = torch.zeros(0, dtype=torch.int64)
        self.sums = torch.zeros(0, 0, dtype=torch.float64)
        self._scatters: dict[int, Tensor] = {}

    @property
    def n_classes(self) -> int:
        """The largest class added, plus one."""
        return len(self.counts)

    @property
    def classes(self) -> list[int]:
        """Classes that have samples."""
        return self.counts.nonzero()[:, 0].tolist()

    def means(self) -> Tensor:
        """float64 [C, d]; NaN for classes without samples."""
        return self.sums / self.counts[:, None]

    def covariance(self, label: int, correction: int = 1) -> Tensor:
        """float64 [d, d]: scatter about the class's mean, divided by n - correction. Zero where n <= correction.

        Needs covariance="class". Raises KeyError for a class without samples.
        """
        if self.kind != "class":
            raise ValueError(f"covariances of single classes are not kept with covariance={self.kind!r}")
        return unpacked(self._scatters[label]).div_(max(1, int(self.counts[label]) - correction))

    def shared_covariance(self, correction: int = 0) -> Tensor:
        """float64 [d, d]: scatter of all samples about their class's mean, divided by N - correction.

        correction: 0 for the maximum-likelihood estimate, the number of classes for the unbiased one.
        """
        if self.kind == "none":
            raise ValueError("covariances are not kept with covariance='none'")
        total = torch.zeros_like(next(iter(self._scatters.values())))
        for scatter in self._scatters.values():
            total += scatter
        return unpacked(total).div_(max(1, int(self.counts.sum()) - correction))

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Take up samples: features [B, d] of any floating type, labels int64 [B]."""
        if not len(labels):
            return
        x, y = features.detach().to("cpu", torch.float64), labels.cpu()
        if self.kind != "none" and not bool(x.isfinite().all()):
            raise RunFailed("features are not finite: their covariance is undefined")
        counts, sums = self._grow(int(y.max()) + 1, x.shape[1])
        new_counts = y.bincount(minlength=len(counts))
        new_sums = torch.zeros_like(sums).index_add_(0, y, x)
        if self.kind != "none":
            self._add_scatter(x, y, new_counts, new_sums)
        self.sums.index_add_(0, y, x)
        self.counts += new_counts

    def forget(self, labels: list[int]) -> None:
        """Drop what is known of these classes, to describe them anew. With a shared covariance: ValueError."""
        if self.kind == "shared":
            raise ValueError("a class cannot be taken out of a shared covariance")
        for label in labels:
            if label < self.n_classes:
                self.counts[label] = 0
                self.sums[label] = 0
            self._scatters.pop(label, None)

    def state_dict(self) -> dict[str, Any]:
        """Counts, sums and scatter matrices (lower triangles)."""
        return {"counts": self.counts, "sums": self.sums, "scatters": self._scatters}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, of statistics of the same kind."""
        self.counts, self.sums = state["counts"], state["sums"]
        self._scatters = {int(label): scatter for label, scatter in state["scatters"].items()}

    def _grow(self, n_classes: int, dim: int) -> tuple[Tensor, Tensor]:
        """Room for that many classes; the counts and sums before the batch."""
        if len(self.sums) and self.sums.shape[1] != dim:
            raise ValueError(f"features of {dim} dimensions after features of {self.sums.shape[1]}")
        more, wider = max(0, n_classes - self.n_classes), dim - self.sums.shape[1]
        self.counts = F.pad(self.counts, (0, more))
        self.sums = F.pad(self.sums, (0, wider, 0, more))
        return self.counts, self.sums

    def _add_scatter(self, x: Tensor, y: Tensor, counts: Tensor, sums: Tensor) -> None:
        """Add the batch's scatter about its own class means, and that of those means about the earlier ones.

        counts, sums: the batch's own, by class.
        """
        means = sums / counts[:, None]
        present = counts.nonzero()[:, 0]
        known, coming = self.counts[present].double(), counts[present]
        shift = (means[present] - self.sums[present] / known.clamp(min=1)[:, None]).mul_(
            (known * coming / (known + coming)).sqrt()[:, None]
        )
        centred = x - means[y]
        if self.kind == "shared":
            self._add_rows(0, torch.cat([centred, shift]))
            return
        for row, label in enumerate(present.tolist()):
            self._add_rows(label, torch.cat([centred[y == label], shift[row : row + 1]]))

    def _add_rows(self, label: int, rows: Tensor) -> None:
        scatter = packed(rows.T @ rows)
        if label in self._scatters:
            self._scatters[label] += scatter
        else:
            self._scatters[label] = scatter


class GramStatistics:
    """Sums of h h^T and of h by class, for ridge regression onto one-hot targets.

    Attributes: `gram` float64 [M, M]; `by_class` float64 [C, M], the sum of each class's rows; `counts` int64 [C].
    8 M^2 bytes, 800 MB for M = 10,000, and as many again while `solve` works. `gram` and `by_class` are on `device`.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        self.dim = dim
        self.gram = torch.zeros(dim, dim, dtype=torch.float64, device=device)
        self.by_class = torch.zeros(0, dim, dtype=torch.float64, device=device)
        self.counts = torch.zeros(0, dtype=torch.int64)

    def add(self, rows: Tensor, labels: Tensor) -> None:
        """Take up rows [B, M] of any floating type with labels int64 [B]."""
        if not len(labels):
            return
        h, y = rows.detach().to(self.gram.device, torch.float64), labels.to(self.gram.device)
        more = max(0, int(y.max()) + 1 - len(self.counts))
        self.by_class, self.counts = F.pad(self.by_class, (0, 0, 0, more)), F.pad(self.counts, (0, more))
        self.gram.addmm_(h.T, h)
        self.by_class.index_add_(0, y, h)
        self.counts += y.cpu().bincount(minlength=len(self.counts))

    def solve(self, ridge: float) -> Tensor:
        """float64 [C, M]: the weights W that minimise |H W^T - Y|^2 + ridge |W|^2 over all rows added.

        See `solved` for what happens where the ridge is too small for the matrix to be regular.
        """
        diagonal = self.gram.diagonal().clone()
        self.gram.diagonal().add_(ridge)
        weights = solved(self.gram, self.by_class.T).T
        self.gram.diagonal().copy_(diagonal)
        return weights

    def state_dict(self) -> dict[str, Any]:
        """The three attributes."""
        return {"gram": self.gram, "by_class": self.by_class, "counts": self.counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        device = self.gram.device
        self.gram, self.by_class, self.counts = state["gram"].to(device), state["by_class"].to(device), state["counts"]


def solved(matrix: Tensor, right: Tensor) -> Tensor:
    """X of `matrix` X = `right`: float64 [d, d], positive semidefinite, and [d, n].

    By Cholesky; where the matrix is singular to working precision, by its pseudo-inverse.
    """
    factor = _cholesky(matrix)
    if factor is not None:
        return torch.cholesky_solve(right, factor)
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ (inverted(values)[:, None] * (vectors.T @ right))


def inverse_root(matrix: Tensor) -> Tensor:
    """R with R R^T the inverse of `matrix`, float64 [d, d], positive semidefinite (singular: the pseudo-inverse).

    |x^T R|^2 is the squared Mahalanobis length of x.
    """
    factor = _cholesky(matrix)
    if factor is not None:
        one = torch.eye(len(matrix), dtype=matrix.dtype)
        return torch.linalg.solve_triangular(factor, one, upper=False).T.contiguous()
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * inverted(values).sqrt()


def inverted(values: Tensor, ridge: float = 0.0) -> Tensor:
    """1 / (values + ridge) for the eigenvalues [d] of a positive semidefinite matrix; 0 for those that are rounding
    errors of the largest and that the ridge does not lift above them."""
    lifted = values.clamp(min=0) + ridge
    return torch.where(lifted > _rounding(values), lifted.reciprocal(), 0.0)


def _cholesky(matrix: Tensor) -> Tensor | None:
    """The lower factor, or None where pivots are no larger than rounding errors."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    pivots = factor.diagonal().square()
    return None if failed or pivots.min() <= _rounding(pivots) else factor


def _rounding(values: Tensor) -> Tensor:
    """What an eigenvalue of a positive semidefinite matrix with these [d] may be off by, a scalar."""
    return values.max().clamp(min=0) * len(values) * torch.finfo(values.dtype).eps


def packed(matrix: Tensor) -> Tensor:
    """The lower triangle of [d, d], row after row: [d (d + 1) / 2]."""
    return matrix.flatten().index_select(0, _triangle(len(matrix)))


def unpacked(triangle: Tensor) -> Tensor:
    """The symmetric matrix [d, d] whose lower triangle `packed` gave."""
    d = (math.isqrt(8 * len(triangle) + 1) - 1) // 2
    lower = triangle.new_zeros(d * d).index_copy_(0, _triangle(d), triangle).view(d, d)
    return lower + lower.tril(-1).T


@lru_cache(maxsize=2)
def _triangle(d: int) -> Tensor:
    """Positions of the lower triangle in a flattened [d, d] matrix."""
    rows, columns = torch.tril_indices(d, d)
    return rows * d + columns
