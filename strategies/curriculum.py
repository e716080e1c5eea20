"""Curriculum: a new task is read from easy to hard."""

from __future__ import annotations

from typing import Any, Literal

import torch

from clbench.config import setting
from clbench.errors import UserError
from clbench.mixtures import Curriculum
from clbench.mixtures.selection import ngram_perplexity, sorted_by
from clbench.phase import Phase
from clbench.strategy import Strategy
from clbench.stream import Stream, Task


class EasyToHard(Strategy):
    """Read each task after the first from its easiest to its hardest samples, in every pass over it (curriculum).

    Llama-3-SynE (Chen et al. 2024, arXiv 2407.18743) orders the documents of continual pre-training from low to high
    perplexity of the model as it is before, which in its trials is better than other orders. Here this alone: the rest
    is finetuning, and nothing is replayed (`syne` has both; with alpha=0 its shares stay as they are). `key=ngram`
    orders blocks of text by the perplexity of an n-gram model of the task's validation data, or, where there are none,
    of the other half of its training data: an order that does not depend on the model.
    """

    class Config(Strategy.Config):
        key: Literal["loss", "ngram"] = setting(
            "loss", "what hard means: the loss of the model before the task, or n-grams", source="arXiv 2407.18743"
        )
        direction: Literal["easy_to_hard", "hard_to_easy"] = setting(
            "easy_to_hard", "what comes first", source="arXiv 2407.18743"
        )
        order: int = setting(5, "length of the n-grams with key=ngram", source="clbench; KenLM's usual 5", ge=1, le=12)

    paper = "Chen et al. 2024 (arXiv 2407.18743)"
    plans_ahead = True

    @classmethod
    def check_stream(cls, config: Any, stream: Stream) -> None:
        if config.key == "ngram" and stream.vocabulary is None:
            raise UserError(f"strategy curriculum: {stream.name} is no stream of text: use key=loss")

    def setup(self) -> None:
        self.state.scores = torch.empty(0, dtype=torch.float32)

    def begin_task(self, task: Task) -> None:
        if task.index == 0:
            return
        if self.config.key == "ngram":
            scores = ngram_perplexity(task.train, task.validation or None, self.config.order).float()
        else:
            scores = self.sample_losses(task.train)
        self.state.scores = scores if self.config.direction == "easy_to_hard" else -scores

    def phases(self, task: Task) -> list[Phase]:
        scores = self.state.scores
        if task.index == 0 or len(scores) != len(task.train):  # planned ahead: before anything was scored
            return [self.phase("train", task.train)]
        return [
            self.phase("ordered", task.train, sources={task.name: sorted_by(task.train, scores)}, mixture=Curriculum())
        ]

    def end_task(self, task: Task) -> None:
        self.state.scores = torch.empty(0, dtype=torch.float32)

    def diagnostics(self) -> dict[str, Any] | None:
        """How often each task was read."""
        return {"drawn": self.draw_counts()} if self.draw_counts() else None
