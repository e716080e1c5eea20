"""APER: adapt on the first task, then classify by the cosine to class means of old and adapted features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from clbench.class_statistics import ClassStatistics
from clbench.models.pet import untouched
from clbench.phase import Phase
from clbench.samples import Batch
from clbench.strategy import Needs
from clbench.stream import Task

from .first_session import FirstSession

PRETRAINED = "pretrained"


class APER(FirstSession):
    """Adapt the backbone on the first task and freeze it; class means of [pretrained; adapted] features, by cosine.

    Zhou et al., IJCV 2024 (arXiv 2303.07338), where it was called ADAM at first. Task 0: cross-entropy training of
    adapters (or of SSF, or of the whole backbone, `first_session`). From then on nothing is trained. With f_0 the
    features of the pretrained backbone and f_1 those of the adapted one, g(x) = [f_0(x); f_1(x)] without augmentation,
    w_c the mean of g over all samples of class c, and the score of class c is cos(g(x), w_c). Means are raw: neither
    features nor their halves are normalised before, so the longer half weighs more. Classes that come again (domains)
    add to their means, so neither order nor cut of the tasks after the first matters.

    The code's recipe of `finetune` is another: epochs=6, batch_size=128, weight_decay=0.05. The paper's prompt and
    batch-norm variants are not here; `first_session=none` is SimpleCIL, its baseline.
    """

    needs = Needs(objectives=("classification",))
    paper = "Zhou et al. 2024, IJCV (arXiv 2303.07338)"

    def setup(self) -> None:
        super().setup()
        self.state.statistics = ClassStatistics()

    def begin_task(self, task: Task) -> None:
        if task.index == 0 and self.config.first_session == "finetune":
            self.snapshot(PRETRAINED)

    def phases(self, task: Task) -> list[Phase]:
        means = Phase(
            "means",
            task.train,
            "plain",
            inputs="features",
            epochs=1,
            batch_size=self.config.batch_size,
            shuffle=False,
            optimizer=None,
            after_step=self._add,
        )
        return [*self.first_session(task), means]

    def extract(self, inputs: Tensor) -> Tensor:
        """[f_0; f_1], [B, 2 d]."""
        adapted = super().extract(inputs)
        pretrained = self.teacher(PRETRAINED)
        if pretrained is not None:
            return torch.cat([pretrained.features(inputs), adapted], dim=1)  # type: ignore[operator]
        with untouched(self.model):
            return torch.cat([super().extract(inputs), adapted], dim=1)

    def predict(self, inputs: Tensor) -> Tensor:
        if not self.frozen:
            return self.temporary_scores(inputs)
        if not self.state.statistics.n_classes:
            return inputs.new_zeros(len(inputs), 0)
        means = self.state.statistics.means().to(inputs.device)
        scores = F.normalize(inputs.double(), dim=1) @ F.normalize(means, dim=1).T
        return scores.float().nan_to_num(nan=float("-inf"))  # rounded, since the last bits depend on the chunk

    def _add(self, batch: Batch) -> None:
        self.state.statistics.add(batch.x, batch.y)
