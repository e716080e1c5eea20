"""GDumb: collect a balanced memory, and train from scratch on nothing else."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from clbench.config import setting
from clbench.errors import UserError
from clbench.growing import known_part
from clbench.phase import Phase
from clbench.samples import Batch
from clbench.strategy import Needs, Strategy
from clbench.stream import Task

POLICIES = {"greedy": "greedy", "capped": "first", "reservoir": "reservoir"}


class GDumb(Strategy):
    """Collect a class-balanced memory; at each task's end train from the initial weights on it alone (GDumb).

    Prabhu et al. 2020. Samplers: `greedy` is the paper's algorithm 1; `capped` is what the official code does (the
    first floor(memory_size / total_classes) samples of each class, which needs the number of classes in advance);
    `reservoir` is Mammoth's. Training follows the official code: 256 passes, one at lr / 10 and then warm restarts of
    doubling length. Mammoth trains after the last task only and applies CutMix to every batch; here the model is
    trained after every task, so each row of the accuracy matrix means something. CutMix (official: p = 0.5) pastes
    image patches and is off unless `cutmix` is set.
    """

    class Config(Strategy.Config):
        memory_size: int = setting(200, "samples kept", source="Mammoth: seq-cifar10, its smallest buffer", ge=1)
        sampler: Literal["greedy", "capped", "reservoir"] = setting(
            "greedy", "greedy (paper), capped (official code) or reservoir (Mammoth)", source="GDumb, algorithm 1"
        )
        total_classes: int | None = setting(
            None, "classes of the whole stream; sampler=capped alone needs it", source="official code", ge=1
        )
        cutmix: float = setting(0.0, "probability of mixing a batch", source="clbench; official: 0.5", ge=0, le=1)
        optimizer: str | None = setting("sgd", "sgd, adam or adamw", source="official code")
        lr: float | None = setting(0.05, "peak learning rate", source="official code", ge=0)
        momentum: float | None = setting(0.9, "SGD momentum", source="official code", ge=0, lt=1)
        weight_decay: float | None = setting(1e-6, "weight decay", source="official code", ge=0)
        batch_size: int | None = setting(16, "memory samples per step", source="official code", ge=1)
        epochs: float | None = setting(256, "passes over the memory", source="official code", gt=0)
        schedule: str | None = setting("warm-restarts", "learning-rate schedule", source="official code")
        clip: float | None = setting(10.0, "largest gradient norm", source="official code", gt=0)

    paper = "Prabhu et al. 2020, ECCV"
    needs = Needs(stores_samples=True)

    def setup(self) -> None:
        c = self.config
        self.state.memory = self.memory(c.memory_size, POLICIES[c.sampler])
        self.state.initial = {}
        if c.sampler == "capped":
            if c.total_classes is None:
                raise UserError("gdumb: sampler=capped needs total_classes (the classes of the whole stream)")
            self.state.memory.quota = max(1, c.memory_size // c.total_classes)

    def begin_task(self, task: Task) -> None:
        """Note the initial values of whatever is new: at first the whole model, later the head's new rows."""
        for name, value in self.model.state_dict().items():
            initial = value.detach().clone()
            if name in self.state.initial:
                known_part(initial, self.state.initial[name]).copy_(self.state.initial[name])
            self.state.initial[name] = initial

    def phases(self, task: Task) -> list[Phase]:
        read_once = {"view": "plain", "epochs": 1, "optimizer": None, "after_step": self.collect}
        collect = self.phase("collect", task.train, **read_once)
        return [collect, self.phase("scratch", self.state.memory.samples, begin=self.reset)]

    def collect(self, batch: Batch) -> None:
        self.state.memory.add(batch, self.generator("memory"))

    def reset(self) -> None:
        """Put the model back to its initial weights and buffers."""
        self.model.load_state_dict(self.state.initial)

    def loss(self, batch: Batch) -> Tensor:
        generator = self.generator("cutmix") if self.config.cutmix else None
        if generator is None or torch.rand(1, generator=generator).item() >= self.config.cutmix:
            return super().loss(batch)
        x, partner, share = cutmix(batch.x, generator)
        outputs = self.model(x)
        own = self.objective.mean_loss(outputs, batch.y)
        return share * own + (1 - share) * self.objective.mean_loss(outputs, batch.y[partner])


def cutmix(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Images with one patch from another image of the batch, the other images' positions, and the share kept.

    Yun et al. 2019 (arXiv 1905.04899) with alpha = 1: the patch has a uniformly drawn area and centre, is clipped at
    the border, and the share counts the pixels that are left. x: float [B, C, H, W]. Raises UserError for other inputs.
    """
    if x.dim() != 4:
        raise UserError(f"cutmix mixes images [B, C, H, W]; these inputs are {list(x.shape)}: set cutmix=0")
    height, width = x.shape[-2:]
    partner = torch.randperm(len(x), generator=generator).to(x.device)
    area, row, column = torch.rand(3, generator=generator).tolist()
    half = (height * area**0.5 / 2, width * area**0.5 / 2)
    top, bottom = (int(min(max(row * height + side, 0), height)) for side in (-half[0], half[0]))
    left, right = (int(min(max(column * width + side, 0), width)) for side in (-half[1], half[1]))
    mixed = x.clone()
    mixed[..., top:bottom, left:right] = x[partner, :, top:bottom, left:right]
    return mixed, partner, 1 - (bottom - top) * (right - left) / (height * width)
