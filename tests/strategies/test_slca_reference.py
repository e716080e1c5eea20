"""SLCA and SLCA++ beside loops written anew from the papers and the official code: same start, same batches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

from clbench.engine.session import Session
from clbench.strategies.slca import SLCA
from clbench.strategies.slcapp import SLCAPlusPlus

Drive = Callable[..., Session]
Batches = list[tuple[Tensor, Tensor]]
VIT = "timm:vit_tiny_patch16_224?img_size=16,patch_size=8,embed_dim=24,depth=2,num_heads=2"
JOB = {"stream": "split-digits", "backbone": VIT, "stream_settings": {"train_per_class": 10, "sizes": [3, 1, 6]}}
EPOCHS, CA_EPOCHS = 4, 3
SETTINGS = {"epochs": EPOCHS, "batch_size": 16, "samples_per_class": 8, "ca_epochs": CA_EPOCHS, "lr": 0.05}


@dataclass
class Seen:
    """What a task was given: the rows of the head that it began with, its batches, features drawn; and its scores."""

    weight: Tensor
    bias: Tensor
    batches: Batches = field(default_factory=list)
    drawn: Batches = field(default_factory=list)
    scores: Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass
class Recording:
    """A run as it was seen by the strategy's hooks; `start`: the backbone's first weights, `probe`: images scored."""

    start: dict[str, Tensor] = field(default_factory=dict)
    probe: Tensor = field(default_factory=lambda: torch.empty(0))
    tasks: list[Seen] = field(default_factory=list)


def record(cls: type[SLCA], monkeypatch: pytest.MonkeyPatch) -> Recording:
    """Listen to the runs of a strategy from now on."""
    kept = Recording()
    begin_task, loss, alignment_loss, end_task = cls.begin_task, cls.loss, cls.alignment_loss, cls.end_task

    def begin(self: Any, task: Any) -> None:
        begin_task(self, task)
        if not kept.tasks:
            kept.start = {name: value.clone() for name, value in self.model.backbone.state_dict().items()}
            kept.probe = next(self.batches(task.train)).x
        head, new = self.model.head, list(task.new_classes)
        kept.tasks.append(Seen(head.weight.detach()[new].clone(), head.bias.detach()[new].clone()))

    def training(self: Any, batch: Any) -> Tensor:
        kept.tasks[-1].batches.append((batch.x.clone(), batch.y.clone()))
        return loss(self, batch)

    def aligning(self: Any, batch: Any) -> Tensor:
        kept.tasks[-1].drawn.append((batch.x.clone(), batch.y.clone()))
        return alignment_loss(self, batch)

    def end(self: Any, task: Any) -> None:
        end_task(self, task)
        self.model.eval()
        with torch.no_grad():
            kept.tasks[-1].scores = self.predict(kept.probe)
        self.model.train()

    for name, hook in {"begin_task": begin, "loss": training, "alignment_loss": aligning, "end_task": end}.items():
        monkeypatch.setattr(cls, name, hook)
    return kept


class Heads(nn.Module):
    """A linear layer for each task, that of task k on features times its scale."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList()
        self.scales: list[float] = []

    def add(self, seen: Seen) -> None:
        self.requires_grad_(False)
        head = nn.Linear(seen.weight.shape[1], len(seen.weight))
        head.load_state_dict({"weight": seen.weight, "bias": seen.bias})
        self.heads.append(head)
        self.scales.append(1.0)

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([head(features * s) for head, s in zip(self.heads, self.scales, strict=True)], dim=1)


def train(vit: nn.Module, heads: Heads, batches: Batches, optimizer: Any, scheduler: Any, loss: Callable) -> None:
    """Epochs on the task's own slice of the logits."""
    offset = sum(head.out_features for head in list(heads.heads)[:-1])
    vit.train()
    for step, (x, y) in enumerate(batches, start=1):
        optimizer.zero_grad()
        loss(heads(vit(x))[:, offset:], y - offset).backward()
        optimizer.step()
        if step % (len(batches) // EPOCHS) == 0:
            scheduler.step()


def align(heads: Heads, drawn: Batches, tau: float) -> None:
    """All heads on drawn features; logits over the mean of the tasks' norms; the rate is stepped by epoch."""
    heads.requires_grad_(True)
    optimizer = torch.optim.SGD(heads.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    scheduler = CosineAnnealingLR(optimizer, T_max=CA_EPOCHS)
    sizes = [head.out_features for head in heads.heads]
    for step, (x, y) in enumerate(drawn, start=1):
        optimizer.zero_grad()
        z = heads(x)
        norms = torch.stack([part.norm(dim=1) + 1e-7 for part in z.split(sizes, dim=1)], dim=1)
        F.cross_entropy(z / norms.mean(1, keepdim=True) / tau, y).backward()
        optimizer.step()
        if step % (len(drawn) // CA_EPOCHS) == 0:
            scheduler.step()


def compare(recording: Recording, vit: nn.Module, plan: Callable, scale: float, inspect: Callable = print) -> None:
    """Go through the run again and compare the scores after every task. plan: optimiser, scheduler, loss of a task."""
    heads = Heads()
    for t, seen in enumerate(recording.tasks):
        heads.add(seen)
        train(vit, heads, seen.batches, *plan(t, heads))
        vit.eval()
        inspect(t)
        backup = copy.deepcopy(heads.state_dict())
        assert len(seen.drawn) == (CA_EPOCHS * sum(head.out_features for head in heads.heads) if t else 0)
        if t:
            align(heads, seen.drawn, tau=0.1)
            heads.scales = [1 + scale * (t - k) for k in range(t + 1)]
        with torch.no_grad():
            torch.testing.assert_close(heads(vit(recording.probe)), seen.scores, rtol=1e-3, atol=1e-4)
        heads.load_state_dict(backup)
        heads.scales = [1.0] * (t + 1)


def untrained() -> nn.Module:
    """The transformer of the runs, without a head."""
    import timm

    return timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=24, depth=2, num_heads=2, in_chans=1, num_classes=0
    )


@pytest.mark.oracle("slca", "scores after every task equal those of a loop written from the official code")
def test_slca_is_the_published_loop(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates of backbone and head, MultiStepLR, frozen old heads, alignment, restoring; and means and covariances."""
    recording = record(SLCA, monkeypatch)
    session = drive("slca", {**SETTINGS, "schedule": "multistep:0.5", "backbone_lr_scale": 0.1}, job=JOB)
    gaussians, vit = session.strategy.state.gaussians, untrained()
    vit.load_state_dict({name.removeprefix("net."): value for name, value in recording.start.items()})

    def plan(t: int, heads: Heads) -> tuple:
        groups = [{"params": vit.parameters(), "lr": 0.005}, {"params": heads.heads[-1].parameters()}]
        optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=5e-4)
        return optimizer, MultiStepLR(optimizer, milestones=[EPOCHS // 2]), F.cross_entropy

    def inspect(t: int) -> None:
        samples = session.stream.tasks[t].train
        batch = session.services.batch(samples, torch.arange(len(samples)), "plain")
        with torch.no_grad():
            features = vit(batch.x).double()
        for label in batch.y.unique().tolist():
            own, factor = features[batch.y == label], gaussians.factors[label].double()
            torch.testing.assert_close(gaussians.means[label].double(), own.mean(0), rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(factor @ factor.T, own.T.cov(), rtol=1e-2, atol=1e-4)

    compare(recording, vit, plan, 0.0, inspect)


class Added(nn.Module):
    """W + 0.8 B A, A the first four right singular vectors of W."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.lora_a = nn.Parameter(torch.linalg.svd(weight.detach()).Vh[:4].clone())
        self.lora_b = nn.Parameter(torch.zeros(len(weight), 4))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + 0.8 * self.lora_b @ self.lora_a


def symmetric(z: Tensor, y: Tensor) -> Tensor:
    """CE + RCE / 10."""
    p, onehot = z.softmax(1).clamp(1e-7, 1.0), F.one_hot(y, z.shape[1]).float().clamp(1e-4, 1.0)
    return F.cross_entropy(z, y) - 0.1 * (p * onehot.log()).sum(1).mean()


@pytest.mark.oracle("slca++", "scores after every task equal those of a loop written from the official code")
def test_slcapp_is_the_published_loop(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trained at which rate, the floor of the cosine, the symmetric loss, scaled features at test."""
    recording = record(SLCAPlusPlus, monkeypatch)
    drive("slca++", {**SETTINGS, "schedule": f"annealing:{EPOCHS}"}, job=JOB)
    vit: Any = untrained()
    plain = {n.removeprefix("net.").replace(".inner.", "."): v for n, v in recording.start.items() if ".pet." not in n}
    vit.load_state_dict(plain)
    for block in vit.blocks:
        for layer in (block.attn.qkv, block.mlp.fc1, block.mlp.fc2):
            parametrize.register_parametrization(layer, "weight", Added(layer.weight))
    for name, parameter in vit.named_parameters():
        parameter.requires_grad_(any(part in name for part in ("norm", "bias", "cls_token", "lora")))

    def plan(t: int, heads: Heads) -> tuple:
        lora = [p for n, p in vit.named_parameters() if "lora" in n]
        others = [p for n, p in vit.named_parameters() if "lora" not in n and p.requires_grad]
        groups = [
            {"params": lora, "lr": 0.05 * (0.5 if t == 0 else 0.1)},
            {"params": others, "lr": 0.05 * 0.1},
            {"params": heads.heads[-1].parameters()},
        ]
        optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=5e-4)
        return optimizer, CosineAnnealingLR(optimizer, T_max=EPOCHS, eta_min=0.05 * 0.1 * 0.1), symmetric

    compare(recording, vit, plan, 0.02)
