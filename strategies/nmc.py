"""Nearest mean classifier: one running mean of frozen features per class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.config import Config as Settings
from clbench.config import setting
from clbench.phase import Phase
from clbench.samples import Batch
from clbench.strategy import Needs, Strategy
from clbench.stream import Task


class NMC(Strategy):
    """Classify by the nearest class mean of frozen features; nothing is trained, tasks do not matter.

    Janson et al. 2022 (arXiv 2210.04428); incremental class means: Mensink et al. 2013. mu_c is the mean of the
    features of class c, and the prediction is argmin_c |f - mu_c|, computed as argmax_c 2 f.mu_c - |mu_c|^2. Means
    are kept as sums and counts in float64: order and cut of the stream do not change them. As in the paper, features
    have unit length and means do not. The paper's 88.5 % on 10-split CIFAR-100 is the average over the ten steps;
    after the last it is 83.7 %.
    """

    class Config(Settings):
        normalise: bool = setting(
            True, "scale each sample's features to unit length", source="arXiv 2210.04428 and its code"
        )
        batch_size: int | None = setting(
            None, "samples read per step (of no influence on the result)", source="the stream's recommendation", ge=1
        )

    paper = "Janson et al. 2022 (arXiv 2210.04428)"
    needs = Needs(task_boundaries=False, gradient_free=True, objectives=("classification",))
    inputs = "features"

    def setup(self) -> None:
        self.state.sums = torch.zeros(0, 0, dtype=torch.float64)
        self.state.counts = torch.zeros(0, dtype=torch.int64)

    def phases(self, task: Task) -> list[Phase]:
        size = self.config.batch_size
        return [Phase("means", task.train, "plain", epochs=1, batch_size=size, shuffle=False, optimizer=None)]

    def after_step(self, batch: Batch) -> None:
        features, y = self._features(batch.x).cpu(), batch.y.cpu()
        new = int(y.max()) + 1 - len(self.state.counts)
        if new > 0:
            width = features.shape[1] - self.state.sums.shape[1]
            self.state.sums = F.pad(self.state.sums, (0, width, 0, new))
            self.state.counts = F.pad(self.state.counts, (0, new))
        self.state.sums.index_add_(0, y, features)
        self.state.counts += y.bincount(minlength=len(self.state.counts))

    def predict(self, inputs: Tensor) -> Tensor:
        if not len(self.state.counts):
            return inputs.new_zeros(len(inputs), 0)
        means = (self.state.sums / self.state.counts[:, None]).to(inputs.device)
        scores = 2 * self._features(inputs) @ means.T - means.square().sum(1)
        return scores.float().nan_to_num(nan=float("-inf"))  # rounded, since the last bits depend on the chunk

    def _features(self, x: Tensor) -> Tensor:
        """float64 [B, d]."""
        return F.normalize(x.double(), dim=1) if self.config.normalise else x.double()
