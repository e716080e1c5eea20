"""EMA-merge: a running merge of checkpoints, trained on and deployed."""

from __future__ import annotations

from clbench.config import setting
from clbench.merging import Weights, interpolated

from .merging import Init, Merging


class EMAMerge(Merging):
    """Go on from, and deploy, a moving average of the weights after each task (EMA-merge).

    Roth et al. 2024 (arXiv 2408.14471), there `ema_paint`: merge_t = (1 - weight) theta_t + weight merge_{t-1}, merge_0
    = theta0, and task t + 1 is trained from merge_t. At weight 0 it is training without any merging; at 1 theta0 is
    deployed, and rows of classes that theta0 lacks as they were after their first task. The released code merges half
    and half where no coefficient is given; on a long stream from a good theta0 a larger weight keeps more. One copy of
    the weights is kept.
    """

    paper = "Roth et al. 2024 (arXiv 2408.14471)"

    class Config(Merging.Config):
        init: Init = setting("merged", "weights a task is trained from", source="arXiv 2408.14471")
        weight: float = setting(0.5, "of the earlier merge", source="code of arXiv 2408.14471", ge=0, le=1)

    def setup(self) -> None:
        super().setup()
        self.state.running = {}

    def begun(self, start: Weights, current: Weights) -> None:
        self.state.running = self.state.running or start

    def merged(self, trained: Weights) -> Weights:
        return interpolated(trained, self.state.running, self.config.weight, self.votes(trained))

    def fold(self, trained: Weights) -> None:
        self.state.running = self.merged(trained)
