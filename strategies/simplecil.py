"""SimpleCIL: a cosine classifier whose weights are class means."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from clbench.class_statistics import ClassStatistics
from clbench.samples import Batch

from .one_pass import OnePass


class SimpleCIL(OnePass):
    """Classify by the cosine between frozen features and class means; nothing is trained (SimpleCIL).

    Zhou et al. 2024 (arXiv 2303.07338), the baseline of APER: w_c is the mean of the un-augmented features of class c,
    the score cos(f, w_c). Unlike in NMC, features are averaged as they are and the mean is brought to unit length
    afterwards. The code's cosine layer has a learnable scale, which nothing trains; it is left out. A class that comes
    again adds to its mean (the code would overwrite it). Order and cut of the stream do not change the result.
    """

    paper = "Zhou et al. 2024, IJCV (arXiv 2303.07338)"

    def setup(self) -> None:
        self.state.statistics = ClassStatistics()

    def after_step(self, batch: Batch) -> None:
        self.state.statistics.add(batch.x, batch.y)

    def predict(self, inputs: Tensor) -> Tensor:
        means = self.state.statistics.means().to(inputs.device)
        if not len(means):
            return inputs.new_zeros(len(inputs), 0)
        scores = F.normalize(inputs.double(), dim=1) @ F.normalize(means, dim=1).T
        return scores.float().nan_to_num(nan=float("-inf"))  # rounded, since the last bits depend on the chunk
