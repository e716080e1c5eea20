"""WiSE-FT along a stream: interpolation between a task's start and its end."""

from __future__ import annotations

from typing import Literal

from clbench.config import setting
from clbench.merging import Weights, interpolated

from .merging import Init, Merging


class WiSEFT(Merging):
    """After each task, interpolate between the weights it started from and those it ended with (WiSE-FT).

    Wortsman et al. 2022 (arXiv 2109.01903): theta = (1 - alpha) theta0 + alpha theta_1, for a single task. Along a
    stream as the baseline in the code of ZSCL (Zheng et al. 2023, arXiv 2303.06628): theta0 becomes the weights at the
    task's start, alpha is 0.8, and the next task goes on from the result, so it is EMA-merge with a weight of 0.2.
    `reference=theta0` is that code's other choice. Rows of classes that the reference lacks stay as trained. One copy
    of the weights is kept.
    """

    paper = "Wortsman et al. 2022, CVPR (arXiv 2109.01903)"

    class Config(Merging.Config):
        init: Init = setting("merged", "weights a task is trained from", source="ZSCL code")
        alpha: float = setting(0.8, "weight of the trained weights", source="ZSCL code: wise_ft_alpha", ge=0, le=1)
        reference: Literal["start", "theta0"] = setting("start", "the other weights", source="ZSCL code: model n")

    def setup(self) -> None:
        super().setup()
        self.state.reference = {}

    def begun(self, start: Weights, current: Weights) -> None:
        if self.config.reference == "start" or not self.state.reference:
            self.state.reference = start

    def merged(self, trained: Weights) -> Weights:
        return interpolated(trained, self.state.reference, 1 - self.config.alpha)
