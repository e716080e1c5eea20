"""FeCAM: a covariance for each class of frozen features."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.class_statistics import ClassStatistics, inverse_root
from clbench.config import setting
from clbench.errors import UserError
from clbench.samples import Batch

from .one_pass import OnePass


class FeCAM(OnePass):
    """Classify by Mahalanobis distance of frozen features to class means, with the classes' own covariances (FeCAM).

    Goswami et al. 2023 (arXiv 2309.14062). Of each class: the mean m_c and the covariance; shrinkage,
    S + a1 mean(diagonal) I + a2 mean(off-diagonal) (1 - I); normalisation to correlations, S_ij / sqrt(S_ii S_jj);
    the distance (u - m_c)^T S_c^+ (u - m_c). Rectified features are first made more Gaussian by Tukey's transform
    x^b. A class of one sample, and a feature that never varies, have no correlations: the identity is taken.

    The defaults are those of the code's script for vision transformers: features of unit length, no transform, a1 = 1,
    a2 = 0. That for ResNets is tukey=0.5 a2=1 shrinkages=2 normalise=distance: it takes covariances of features as
    they are and brings them and the means to unit length in the distance only; besides, it classifies by nearest mean
    in the first task, which is left out, transforms the means where here transformed features are averaged, and leaves
    covariances of exactly zero out of their mean. shared: here the covariance about class means, treated as a class's
    own; the code averages over tasks those about the tasks' means, without correlations.
    Order and cut of the stream do not change the result.
    """

    class Config(OnePass.Config):
        covariance: Literal["class", "shared"] = setting(
            "class", "one covariance for each class, or one for all", source="arXiv 2309.14062"
        )
        a1: float = setting(1.0, "shrinkage: mean variance added to variances", source="code, ViT and ResNet", ge=0)
        a2: float = setting(
            0.0, "shrinkage: mean covariance added to covariances", source="code, ViT; for ResNets 1", ge=0
        )
        shrinkages: int = setting(1, "how often shrinkage is applied", source="code, ViT; for ResNets 2", ge=0)
        correlations: bool = setting(True, "normalise covariances to correlations", source="arXiv 2309.14062")
        tukey: float | None = setting(
            None,
            "exponent of Tukey's transform, for features without negative values; none: no transform",
            source="code, ViT: none, since their features are signed; for ResNets 0.5",
            gt=0,
        )
        normalise: Literal["features", "distance"] = setting(
            "features",
            "scale features to unit length before all else, or features and means in the distance alone",
            source="code, ViT; for ResNets in the distance",
        )

    paper = "Goswami et al. 2023, NeurIPS (arXiv 2309.14062)"

    def setup(self) -> None:
        self.state.statistics = ClassStatistics(self.config.covariance)
        self._roots: dict[int, tuple[int, Tensor]] = {}

    def after_step(self, batch: Batch) -> None:
        self.state.statistics.add(self._features(batch.x), batch.y)

    def predict(self, inputs: Tensor) -> Tensor:
        statistics = self.state.statistics
        u, means = self._features(inputs), statistics.means().to(inputs.device)
        if self.config.normalise == "distance":
            u, means = F.normalize(u, dim=1), F.normalize(means, dim=1)
        scores = u.new_full((len(u), statistics.n_classes), float("-inf"))
        for c in statistics.classes:
            scores[:, c] = -((u - means[c]) @ self._root(c, u.device).double()).square().sum(1)
        return scores.float()  # rounded, since the last bits depend on the chunk

    def _features(self, x: Tensor) -> Tensor:
        """float64 [B, d]: transformed, and of unit length unless only the distance wants that."""
        x = x.double()
        if self.config.tukey is not None:
            if bool((x < 0).any()):
                raise UserError(
                    "fecam: tukey is for features without negative values; this model's have some: unset it"
                )
            x = x**self.config.tukey
        return F.normalize(x, dim=1) if self.config.normalise == "features" else x

    def _root(self, label: int, device: torch.device) -> Tensor:
        """R [d, d] with R R^T the inverse of the class's covariance; computed once for each state of it.

        Kept in float32, which halves the memory: 472 MB for 200 classes of 768 features.
        """
        shared = self.config.covariance == "shared"
        key = -1 if shared else label
        n = int(self.state.statistics.counts.sum() if shared else self.state.statistics.counts[label])
        if key not in self._roots or self._roots[key][0] != n:
            s = self.state.statistics.shared_covariance() if shared else self.state.statistics.covariance(label)
            self._roots[key] = n, inverse_root(self._regular(s)).float().to(device)
        return self._roots[key][1]

    def _regular(self, s: Tensor) -> Tensor:
        """Shrunk and normalised."""
        one = torch.eye(len(s), dtype=s.dtype)
        for _ in range(self.config.shrinkages):
            variance = s.diagonal().mean()
            others = (s.sum() - s.diagonal().sum()) / max(1, s.numel() - len(s))
            s = s + self.config.a1 * variance * one + self.config.a2 * others * (1 - one)
        varying = s.diagonal() > 0
        if not varying.any():
            return one
        if self.config.correlations:
            scale = torch.where(varying, s.diagonal().rsqrt(), 0.0)
            s = s * scale * scale[:, None]
            s.diagonal().fill_(1.0)
        return s
