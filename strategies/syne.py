"""The mixture of Llama-3-SynE: tasks whose perplexity rises get more data; easy samples first."""

from __future__ import annotations

import torch

from clbench.config import setting
from clbench.mixtures import Policy, Reading, TopicPerplexity
from clbench.mixtures.selection import sorted_by
from clbench.samples import Samples
from clbench.stream import Task

from .guided_mixture import GuidedMixture


class SynE(GuidedMixture):
    """Give more data to tasks whose perplexity rises, and read new data from easy to hard (Llama-3-SynE).

    Chen et al. 2024 (arXiv 2407.18743), first stage: at every observation the proportion of each topic is multiplied
    by 1 + alpha * delta * w, delta the change of its perplexity on validation data, and all are normalised; documents
    are ordered from low to high perplexity of the model as it is before. Topics are the tasks seen. Unpublished are
    alpha, the weights w (here 1) and the normalisation of delta (here by the largest change); the bounds of a factor
    and of a proportion are clbench's. Not here: the second stage with synthetic data, and the topic classifier.
    """

    class Config(GuidedMixture.Config):
        alpha: float = setting(0.3, "how far a proportion moves at an observation", source="clbench: unpublished", ge=0)
        share: float = setting(
            0.5, "part of a batch that starts with earlier tasks", source="clbench; the paper: 0.8", ge=0, lt=1
        )
        lowest: float = setting(0.5, "smallest factor of an observation", source="clbench", ge=0, le=1)
        highest: float = setting(2.0, "largest factor of an observation", source="clbench", ge=1)
        floor: float = setting(0.01, "smallest proportion of a task", source="clbench", ge=0, le=0.5)
        curriculum: bool = setting(
            True, "read a new task from low to high loss of the model before it", source="arXiv 2407.18743"
        )

    paper = "Chen et al. 2024 (arXiv 2407.18743)"
    looks_first = True

    def setup(self) -> None:
        super().setup()
        self.state.order = torch.empty(0, dtype=torch.float32)

    def begin_task(self, task: Task) -> None:
        if self.config.curriculum and task.index > 0:
            self.state.order = self.sample_losses(task.train)

    def current(self, task: Task) -> Samples:
        losses = self.state.order
        return sorted_by(task.train, losses) if len(losses) == len(task.train) else task.train

    def policy(self, task: Task, earlier: dict[str, Samples]) -> Policy:
        c = self.config
        start = {task.name: 1 - c.share, **dict.fromkeys(earlier, c.share / len(earlier))}
        reading = Reading("in_order" if c.curriculum else "shuffled")
        return TopicPerplexity(c.alpha, start, clip=(c.lowest, c.highest), floor=c.floor, reading_new=reading)

    def end_task(self, task: Task) -> None:
        self.state.order = torch.empty(0, dtype=torch.float32)
