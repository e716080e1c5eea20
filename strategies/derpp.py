"""Dark experience replay++: DER and replay of the labels."""

from __future__ import annotations

from torch import Tensor

from clbench.config import setting
from clbench.samples import Batch

from .der import DER


class DERPlusPlus(DER):
    """DER plus the ordinary loss on a second, independent draw from memory (DER++).

    Buzzega et al. 2020 (arXiv 2004.07211), eq. 6: DER's loss + beta * loss(remembered samples, their labels).
    """

    class Config(DER.Config):
        alpha: float = setting(0.1, "weight of the squared difference", source="Mammoth: seq-cifar10, 200", ge=0)
        beta: float = setting(0.5, "weight of the replayed loss", source="Mammoth: seq-cifar10, 200", ge=0)

    def loss(self, batch: Batch) -> Tensor:
        loss = super().loss(batch)
        old = self.draw() if self.config.beta else None
        return loss if old is None else loss + self.config.beta * self.objective.loss(self.model, old)
