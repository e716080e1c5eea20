"""Feedback: more replay while earlier tasks are worse than they were, less while they are not."""

from __future__ import annotations

from typing import Any, Literal

from clbench.config import setting
from clbench.mixtures import Feedback, Policy
from clbench.samples import Samples
from clbench.stream import Stream, Task

from .guided_mixture import GuidedMixture


class FeedbackMixture(GuidedMixture):
    """Steer the replayed share by how much worse earlier tasks have become since the switch (integrating controller).

    A stand-in, without anything learned, for Data Mixing Agent (Yang et al. 2025, arXiv 2507.15640), which trains a
    policy to choose the mixture from what models lose on evaluation data. At every observation the share x of earlier
    tasks becomes x + gain * (L - L_0 - target), held between `lowest` and `highest`: L is the mean of their losses on
    validation data, L_0 the same before the task's first step, `target` the rise in nats that is tolerated. Since x
    grows for as long as L - L_0 lies above the target, no share need be chosen beforehand. A task takes as many steps
    as without replay.
    """

    class Config(GuidedMixture.Config):
        gain: float = setting(
            0.5, "change of the share for each nat above the target, at each observation", source="clbench", ge=0
        )
        target: float = setting(0.0, "rise of earlier tasks' loss that is tolerated, nats", source="clbench: none")
        start: float = setting(
            0.05, "replayed share until losses ask for another", source="arXiv 2403.08763: a weak shift", ge=0, le=1
        )
        lowest: float = setting(0.01, "smallest replayed share", source="clbench", ge=0, le=1)
        highest: float = setting(0.5, "largest replayed share", source="arXiv 2403.08763: the most tried", ge=0, le=1)
        over: Literal["uniform", "samples"] = setting(
            "uniform", "how the share is divided over earlier tasks: evenly, or by their sizes", source="clbench"
        )

    paper = "after Yang et al. 2025 (arXiv 2507.15640)"
    looks_first = True

    @classmethod
    def check_stream(cls, config: Any, stream: Stream) -> None:
        cls._controller(config, None)

    def policy(self, task: Task, earlier: dict[str, Samples]) -> Policy:
        sizes = {name: len(samples) for name, samples in earlier.items()}
        return self._controller(self.config, sizes if self.config.over == "samples" else None)

    @staticmethod
    def _controller(c: Any, sizes: dict[str, int] | None) -> Feedback:
        return Feedback(c.gain, c.target, c.start, c.lowest, c.highest, sizes)
