"""FT-merge: finetuning, drawn back to theta0 after each task."""

from __future__ import annotations

from clbench.config import setting
from clbench.merging import Weights, cut, interpolated

from .merging import Init, Merging


class FTMerge(Merging):
    """Finetune, and after each task merge with the initial weights (FT-merge).

    Roth et al. 2024 (arXiv 2408.14471), there `ft_paint`: merge_t = (1 - weight) theta_t + weight theta0. The code also
    trains task t + 1 from merge_t, which is the default here; its description merges for use alone: `init=last`.
    Without a coefficient the code merges half and half. Rows of classes that theta0 lacks stay as trained. One copy of
    the weights is kept.
    """

    paper = "Roth et al. 2024 (arXiv 2408.14471)"
    keeps_initial = True

    class Config(Merging.Config):
        init: Init = setting("merged", "weights a task is trained from", source="code of arXiv 2408.14471")
        weight: float = setting(0.5, "of the initial weights", source="code of arXiv 2408.14471", ge=0, le=1)

    def merged(self, trained: Weights) -> Weights:
        return interpolated(trained, cut(self.state.initial, self.state.known), self.config.weight)
