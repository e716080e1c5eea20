"""Pretrain micro-vit on Tiny-ImageNet: `CLBENCH_DATA=FOLDER python -m clbench.models.micro_vit.pretrain OUT`.

Writes OUT.safetensors (float16, batch normalisations folded, no classifier) and OUT.json (recipe, time, accuracy).
About an hour on two cores. After every epoch OUT.resume.pt is replaced; starting again goes on from it.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional as F

from ...data.images import ImageSet, load_images
from .architecture import SIZE, ConvStem, micro_vit
from .augment import jitter_colours, mix, random_resized_crops
from .backbone import MEAN, STD


@dataclass(frozen=True)
class Recipe:
    """AdamW with a linear warm-up and a cosine; `average_decay` is that of the running average of the weights."""

    data: str = "tiny_imagenet, training split"
    epochs: int = 30
    batch: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    smallest_crop: float = 0.25
    colour_jitter: float = 0.3
    grey: float = 0.1
    label_smoothing: float = 0.1
    drop_path: float = 0.05
    average_decay: float = 0.998
    precision: str = "bf16"
    seed: int = 0


RECIPE = Recipe()


def normalise(images: Tensor) -> Tensor:
    """Pixels in [0, 1], float [B, 3, H, W], as the network takes them."""
    return (images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def training_batch(images: Tensor, labels: Tensor, classes: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Augmented images float [B, 3, 32, 32] and soft targets float [B, classes] of uint8 images [B, 3, H, W]."""
    x = random_resized_crops(images.float() / 255, SIZE, RECIPE.smallest_crop, draw)
    x = jitter_colours(x, RECIPE.colour_jitter, RECIPE.grey, draw)
    return mix(normalise(x), F.one_hot(labels, classes).float(), draw)


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    peak, warmup = RECIPE.learning_rate, int(RECIPE.warmup * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images, uint8 [N, 3, H, W], whose class the model finds."""
    model.eval()
    right = 0
    with torch.no_grad():
        for x, y in zip(images.split(500), labels.split(500), strict=True):
            x = F.interpolate(x.float() / 255, size=(SIZE, SIZE), mode="area")
            right += int((model(normalise(x)).argmax(1) == y).sum())
    return right / len(labels)


class Training:
    """Network, its running average, optimiser and random draws; the average is what is shipped."""

    def __init__(self, classes: int) -> None:
        torch.manual_seed(RECIPE.seed)
        self.model = micro_vit(classes=classes, normalise=True, drop_path=RECIPE.drop_path)
        self.average = copy.deepcopy(self.model)
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": RECIPE.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
        self.draw = torch.Generator().manual_seed(RECIPE.seed)
        self.epoch, self.seconds = 0, 0.0

    def step(self, x: Tensor, targets: Tensor, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        with torch.autocast("cpu", torch.bfloat16):
            scores = self.model(x)
        loss = F.cross_entropy(scores.float(), targets, label_smoothing=RECIPE.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            weight = 1 - RECIPE.average_decay
            for mean, now in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(now, weight)

    def save(self, path: Path) -> None:
        state = {name: getattr(self, name).state_dict() for name in ("model", "average", "optimizer")}
        partial = path.with_suffix(".partial")
        torch.save({**state, "draw": self.draw.get_state(), "epoch": self.epoch, "seconds": self.seconds}, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        for name in ("model", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.draw.set_state(state["draw"])
        self.epoch, self.seconds = state["epoch"], state["seconds"]


def pretrain(training: Training, images: Tensor, labels: Tensor, classes: int, resume: Path) -> None:
    """Train to the last epoch of the recipe, saving after each."""
    batch, epochs = RECIPE.batch, RECIPE.epochs
    per_epoch = len(labels) // batch
    with Progress() as progress:
        bar = progress.add_task("micro-vit", total=epochs * per_epoch, completed=training.epoch * per_epoch)
        while training.epoch < epochs:
            began = time.perf_counter()
            order = torch.randperm(len(labels), generator=training.draw)
            for index in range(per_epoch):
                rows = order[index * batch : (index + 1) * batch]
                x, targets = training_batch(images[rows], labels[rows], classes, training.draw)
                training.step(x, targets, learning_rate(training.epoch * per_epoch + index, epochs * per_epoch))
                progress.advance(bar)
            training.epoch += 1
            training.seconds += time.perf_counter() - began
            training.save(resume)


def export(training: Training, path: Path) -> None:
    """The average as safetensors: float16, normalisations folded into the stem, no classifier."""
    from safetensors.torch import save_file

    net = copy.deepcopy(training.average)
    stem = net.patch_embed
    assert isinstance(stem, ConvStem)
    stem.fold()
    tensors = {name: t.half().contiguous() for name, t in net.state_dict().items() if not name.startswith("head.")}
    save_file(tensors, path, metadata={"model": "micro-vit"})


def _tensors(data: ImageSet) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(data.x), torch.from_numpy(data.y).long()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    train, test = (load_images("tiny_imagenet", split) for split in ("train", "test"))
    images, labels = _tensors(train)
    classes = len(train.class_names)
    training, resume = Training(classes), out.with_suffix(".resume.pt")
    if resume.exists():
        training.load(resume)
    pretrain(training, images, labels, classes, resume)
    export(training, out.with_suffix(".safetensors"))
    report = {
        "recipe": asdict(RECIPE),
        "images": len(labels),
        "training_seconds": round(training.seconds),
        "threads": torch.get_num_threads(),
        "accuracy_on_tiny_imagenet_test": accuracy(training.average, *_tensors(test)),
    }
    out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
