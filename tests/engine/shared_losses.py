"""Strategies for runs on several devices."""

import os
import signal
from pathlib import Path

import torch

from clbench.strategy import Batch, Needs, Strategy


class Idiom(Strategy):
    """As in the README: as many remembered samples as the batch has."""

    needs = Needs(task_boundaries=False, stores_samples=True)

    def setup(self):
        self.state.memory = self.memory(size=30)

    def loss(self, batch: Batch):
        remembered = self.replay(self.state.memory, len(batch))
        return self.objective.loss(self.model, self.join(batch, remembered))

    def after_step(self, batch: Batch):
        self.state.memory.add(batch, self.generator("insert"))


class OneForward(Idiom):
    """Outputs of the step's batch, cut from one forward pass over the joined batch, are stored."""

    def loss(self, batch: Batch):
        joined = self.join(batch, self.replay(self.state.memory, 5))
        outputs = self.model(joined.x)
        batch.extra["outputs"] = outputs[: len(batch)].detach()
        batch.extra["odd"] = batch.labels % 2 == 1
        return self.objective.mean_loss(outputs, joined.y)

    def after_step(self, batch: Batch):
        self.state.memory.add(batch, self.generator("insert"), extra=batch.extra)


class Unused(Strategy):
    """Parameters that only some samples reach, and one that none does."""

    def setup(self):
        self.model.register_parameter("odd", torch.nn.Parameter(torch.ones(())))
        self.model.register_parameter("none", torch.nn.Parameter(torch.ones(())))

    def loss(self, batch: Batch):
        losses = self.objective.losses(self.model(batch.x), batch.y)
        first = batch.index == batch.whole.index[0]
        if first.any():
            losses = torch.where(first, losses * self.model.odd, losses)
        return losses.mean()


class Noisy(Strategy):
    """Random numbers in loss and after it."""

    def setup(self):
        self.state.seen = torch.zeros(2)

    def loss(self, batch: Batch):
        self.drawn = torch.rand(1)
        batch.extra["drawn"] = self.drawn.expand(len(batch)).clone()
        return super().loss(batch)

    def after_step(self, batch: Batch):
        self.state.seen = torch.stack([batch.extra["drawn"][0], batch.extra["drawn"][-1], torch.rand(())])


class Apart(Strategy):
    """Acts on what differs by process."""

    def after_step(self, batch: Batch):
        self.state.mine = torch.tensor(os.getpid())


class Dies(Strategy):
    """The second process is killed, once."""

    def after_step(self, batch: Batch):
        mark = os.environ.get("DIES", "")
        if os.environ.get("RANK") == "1" and mark and not Path(mark).exists():
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps == 4:
                Path(mark).touch()
                os.kill(os.getpid(), signal.SIGKILL)


class Raises(Strategy):
    """One process raises."""

    def loss(self, batch: Batch):
        if os.environ.get("RANK") == "1":
            raise ValueError("no such luck")
        return super().loss(batch)
