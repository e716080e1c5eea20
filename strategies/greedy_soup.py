"""Greedy soup: the mean of those checkpoints that help on held-out data."""

from __future__ import annotations

import torch

from clbench.config import setting
from clbench.memory import Policy
from clbench.merging import Weights, averaged, chosen_rows, extended
from clbench.phase import Phase
from clbench.samples import Batch, Pool, Samples
from clbench.strategy import Needs
from clbench.stream import EvalSet, Task

from .chosen_classes import class_rows
from .merging import Init, Merging


class GreedySoup(Merging):
    """Deploy the mean of those checkpoints that improve the score on held-out data of all tasks (greedy soup).

    Wortsman et al. 2022 (arXiv 2203.05482): checkpoints in order of their own score; the best is in; each further one
    joins if the mean with it scores strictly higher. Here they come from the tasks so far, each trained from theta0,
    and the choice is made anew after every task. Held out is a share of each task's data, not trained on; `memory_size`
    of these samples are kept. The score is the stream's metric, so text works as well (nats, lower is better); on
    task-incremental streams among the classes of the sample's task. Rows that a checkpoint lacks are scored with the
    values they were created with, and so is what no member has learned. All checkpoints are kept, and theta0.
    """

    paper = "Wortsman et al. 2022, ICML (arXiv 2203.05482)"
    keeps_initial = True
    needs = Needs(stores_samples=True, predicts_between_boundaries=False)

    class Config(Merging.Config):
        init: Init = setting("theta0", "weights a task is trained from", source="arXiv 2203.05482")
        held_out: float = setting(0.1, "share of a task's data that is not trained on", source="clbench", gt=0, lt=1)
        memory_size: int = setting(500, "held-out samples kept", source="clbench", ge=1)
        policy: Policy = setting("class-balanced", "which samples are kept", source="clbench")

    def setup(self) -> None:
        super().setup()
        self.state.memory = self.memory(self.config.memory_size, self.config.policy)
        self.state.classes = []
        self.state.checkpoints = []
        self.state.voters = []  # for each checkpoint, the classes that were in its loss
        self.state.chosen = []
        self.state.soup = {}

    def begin_task(self, task: Task) -> None:
        super().begin_task(task)
        self.state.classes.append(list(task.classes))

    def phases(self, task: Task) -> list[Phase]:
        order = torch.randperm(len(task.train), generator=self.generator("held-out"))
        n = min(len(order) - 1, max(1, round(self.config.held_out * len(order))))
        held_out, train = (task.train.subset(part.sort().values) for part in (order[:n], order[n:]))
        size = self.config.batch_size
        collect = Phase(
            "collect", held_out, "plain", epochs=1, batch_size=size, optimizer=None, after_step=self.collect
        )
        return [collect, self.phase("train", train)]

    def collect(self, batch: Batch) -> None:
        task = torch.full((len(batch),), len(self.state.classes) - 1)
        self.state.memory.add(batch, self.generator("memory"), extra={"task": task})

    def end_task(self, task: Task) -> None:
        self.state.checkpoints.append(self.weights())
        self.state.voters.append(self.state.in_loss)
        trained = self.weights()
        self.state.chosen, self.state.soup, _ = self.greedy()
        self.load(trained)

    def merged(self, trained: Weights) -> Weights:
        return extended(self.state.soup, self.state.initial)

    def greedy(self) -> tuple[list[int], Weights, float]:
        """The numbers of the chosen checkpoints, their mean, and its score. Leaves other weights in the model."""
        checkpoints = [extended(weights, self.state.initial) for weights in self.state.checkpoints]
        rows = [name for name in class_rows(self.model) if name in checkpoints[0]]
        votes = [
            {name: chosen_rows(weights[name], voters) for name in rows}
            for weights, voters in zip(checkpoints, self.state.voters, strict=True)
        ]
        alone = [self.score(weights) for weights in checkpoints]
        best, *others = sorted(range(len(alone)), key=lambda i: -alone[i])
        chosen, highest = [best], alone[best]
        soup, counts = averaged({}, {}, checkpoints[best], votes[best])
        for i in others:
            further = averaged(soup, counts, checkpoints[i], votes[i])
            score = self.score(further[0])
            if score > highest:
                chosen, highest, (soup, counts) = [*chosen, i], score, further
        return chosen, soup, highest

    @torch.no_grad()
    def score(self, weights: Weights) -> float:
        """Mean score on the held-out samples, higher is better. Puts the weights into the model."""
        self.load(extended(weights, self.state.initial))
        rows = self.state.memory.all()
        pool = Pool(rows.raw, rows.labels)
        training = self.model.training
        self.model.eval()
        total = 0.0
        for task, classes in enumerate(self.state.classes):
            mine = EvalSet(
                "held-out", Samples(pool, (rows.extra["task"] == task).nonzero()[:, 0]), None, tuple(classes)
            )
            for batch in self.batches(mine.data):
                total += self.objective.scores(self.model(batch.x).float(), batch.y, mine).double().sum().item()
        self.model.train(training)
        return (total if self.objective.direction == "higher" else -total) / len(pool.labels)
