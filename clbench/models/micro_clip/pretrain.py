"""The training of micro-clip; its image tower starts from micro-vit's weights.

`streams/micro_clip_pool.py` reads the sets and runs it. Every step hangs on the recipe and its number alone, so that a
training that goes on from a saved state ends with the same weights.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional as F

from ...objectives.contrastive_losses import clip_mp
from ..clip.model import LARGEST_SCALE
from ..micro_vit.augment import jitter_colours, random_resized_crops
from ..micro_vit.pretrain import normalise
from ..weights import read_tensors
from .architecture import CONFIG, PIXELS, register
from .tokenizer import FIRST_WORD, PAD, START

SAVE = 40  # steps


@dataclass(frozen=True)
class Recipe:
    """AdamW; the rates rise in a straight line, stay, and fall in a straight line to 0 over the last `anneal` of the
    steps.

    For the first `locked` steps the image tower stays as it is, and its features of `bank` images a class, not
    augmented, are learned from: `locked_images` of each of `locked_classes` in a batch. Then all is trained but `kept`.
    quotas: images of each set in such a batch. flipped: the sets whose images may be mirrored, photographs.
    word_noise: of a template's words, the share that is replaced.
    """

    steps: int = 1500
    locked: int = 300
    bank: int = 16
    locked_classes: int = 64
    locked_images: int = 4
    quotas: tuple[tuple[str, int], ...] = (
        ("cifar10", 38),
        ("tiny_imagenet", 54),
        ("pacs_photo", 8),
        ("caltech101", 12),
        ("shapes:clean", 4),
        ("stripes:clean", 4),
        ("glyphs:clean", 4),
        ("digits:clean", 4),
    )
    flipped: tuple[str, ...] = ("cifar10", "tiny_imagenet", "pacs_photo", "caltech101")
    kept: str = "visual.trunk.patch_embed"
    image_rate: float = 2e-4
    rate: float = 1e-3
    warmup: int = 50
    image_warmup: int = 200
    anneal: float = 0.4
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    smallest_crop: float = 0.4
    colour_jitter: float = 0.2
    grey: float = 0.05
    word_noise: float = 0.1
    precision: str = "bf16"
    seed: int = 0


RECIPE = Recipe()


@dataclass
class Images:
    """Of one set: images uint8 [N, 3, 32, 32], and of each the number of its class among all captioned ones."""

    name: str
    images: Tensor
    classes: Tensor

    def rows(self, start: int, n: int) -> Tensor:
        """Places `start` to `start + n` of an endless sequence of passes, each in an order of its own."""
        found: list[Tensor] = []
        while n > 0:
            done, offset = divmod(start, len(self.classes))
            order = torch.randperm(len(self.classes), generator=_draws(self.name, done))
            found.append(order[offset : offset + n])
            start, n = start + len(found[-1]), n - len(found[-1])
        return torch.cat(found)


@dataclass
class Captioned:
    """A class: its captions, as tokens [K, context], and the tokens of its name."""

    tokens: Tensor
    name: set[int]


def _draws(*key: object) -> torch.Generator:
    """Random numbers that hang on the recipe's seed and the key alone."""
    from hashlib import sha256

    digest = sha256("/".join(map(str, (RECIPE.seed, *key))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def training_batch(sets: Sequence[Images], classes: Sequence[Captioned], step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Augmented images float [B, 3, 32, 32]; tokens [U, context], a caption of each class among them; of each image
    which of these is its own, int64 [B]."""
    quotas, draw = dict(RECIPE.quotas), _draws("step", step)
    images, labels, flips = [], [], []
    for each in sets:
        rows = each.rows(step * quotas[each.name], quotas[each.name])
        images.append(each.images[rows])
        labels.append(each.classes[rows])
        flips.append(torch.full(rows.shape, 0.5 if each.name in RECIPE.flipped else 0.0))
    x = random_resized_crops(torch.cat(images).float() / 255, PIXELS, RECIPE.smallest_crop, draw, torch.cat(flips))
    x = normalise(jitter_colours(x, RECIPE.colour_jitter, RECIPE.grey, draw))
    shown, own = torch.cat(labels).unique(return_inverse=True)
    return x, torch.stack([caption(classes[number], draw) for number in shown.tolist()]), own


@dataclass
class Bank:
    """The image tower's features of some images, float [N, 192], and of every class the places of its own."""

    features: Tensor
    places: list[Tensor]


@torch.no_grad()
def read_bank(model: Any, sets: Sequence[Images], classes: int) -> Bank:
    """Of the first `RECIPE.bank` images of every class of every set."""
    features, labels = [], []
    for each in sets:
        shown = each.classes.unique().tolist()
        rows = torch.cat([(each.classes == number).nonzero()[: RECIPE.bank, 0] for number in shown])
        labels.append(each.classes[rows])
        for part in each.images[rows].split(256):
            with torch.autocast("cpu", torch.bfloat16):
                features.append(model.visual.trunk(normalise(part.float() / 255)).float())
    every = torch.cat(labels)
    return Bank(torch.cat(features), [(every == number).nonzero()[:, 0] for number in range(classes)])


def locked_batch(bank: Bank, classes: Sequence[Captioned], step: int) -> tuple[Tensor, Tensor, Tensor]:
    """As `training_batch`, with features float [B, 192] for images."""
    draw = _draws("locked", step)
    shown = torch.randperm(len(classes), generator=draw)[: RECIPE.locked_classes].tolist()
    places = [bank.places[number] for number in shown]
    chosen = [own[torch.randint(len(own), (RECIPE.locked_images,), generator=draw)] for own in places]
    tokens = torch.stack([caption(classes[number], draw) for number in shown])
    return bank.features[torch.cat(chosen)], tokens, torch.arange(len(shown)).repeat_interleave(RECIPE.locked_images)


def caption(of: Captioned, draw: torch.Generator) -> Tensor:
    """One of a class's captions, int64 [context]; words beside its name are replaced by any others now and then, so
    that words never seen in training do not hide the name."""
    tokens = of.tokens[int(torch.randint(len(of.tokens), (), generator=draw))].clone()
    noisy = torch.rand(len(tokens), generator=draw) < RECIPE.word_noise
    words = torch.randint(FIRST_WORD, START, tokens.shape, generator=draw)
    for place in noisy.nonzero()[:, 0].tolist():
        if FIRST_WORD <= int(tokens[place]) < START and int(tokens[place]) not in of.name:
            tokens[place] = words[place]
    return tokens


def untrained() -> Any:
    """open_clip's model, the image tower with micro-vit's weights, everything else drawn anew."""
    register()
    import open_clip

    from ..catalogue import SHIPPED

    torch.manual_seed(RECIPE.seed)
    model = open_clip.CLIP(**CONFIG)
    model.visual.trunk.load_state_dict(read_tensors(SHIPPED))
    return model


def encode_text(model: Any, tokens: Tensor) -> Tensor:
    """open_clip's `encode_text`, without the padding that all rows end in: attention does not look ahead."""
    length = int((tokens != PAD).sum(1).max())
    tokens = tokens[:, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    return x[torch.arange(len(x)), tokens.argmax(1)] @ model.text_projection


def share_of_rate(step: int, warmup: int, begin: int = 0) -> float:
    """What a step's rate is of the full one, for what is trained from step `begin` on."""
    falling = RECIPE.anneal * RECIPE.steps
    return max(0.0, min(1.0, (step + 1 - begin) / warmup, (RECIPE.steps - step) / falling))


class Training:
    """Model, optimiser and the number of steps done."""

    def __init__(self) -> None:
        self.model = untrained()
        self.optimizer = torch.optim.AdamW(self._groups(), lr=0.0, fused=True)
        self.done, self.seconds, self.cpu_seconds = 0, 0.0, 0.0
        self.loss = math.nan

    def _groups(self) -> list[dict[str, Any]]:
        """What is trained, by tower and by whether it decays: matrices do, but not embeddings."""
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        self.model.get_submodule(RECIPE.kept).requires_grad_(False)
        trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        for name, parameter in trained:
            decays = parameter.ndim > 1 and not any(part in name for part in ("embed", "positional"))
            groups.setdefault((name.startswith("visual.trunk."), decays), []).append(parameter)
        return [
            {"params": parameters, "image": image, "weight_decay": RECIPE.weight_decay if decays else 0.0}
            for (image, decays), parameters in groups.items()
        ]

    def step(self, x: Tensor, tokens: Tensor, own: Tensor) -> None:
        """Of images [B, 3, 32, 32] or features [B, 192]."""
        for group in self.optimizer.param_groups:
            begin, peak, warmup = 0, RECIPE.rate, RECIPE.warmup
            if group["image"]:
                begin, peak, warmup = RECIPE.locked, RECIPE.image_rate, RECIPE.image_warmup
            group["lr"] = peak * share_of_rate(self.done, warmup, begin)
        with torch.autocast("cpu", torch.bfloat16):
            images = self.model.visual.head(x) if x.ndim == 2 else self.model.encode_image(x)
            texts = encode_text(self.model, tokens)
        images, texts = F.normalize(images.float(), dim=-1), F.normalize(texts.float(), dim=-1)
        loss = clip_mp(self.model.logit_scale.exp() * images @ texts[own].T, own).mean()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), RECIPE.clip_norm)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0.0, LARGEST_SCALE)
        self.done += 1
        self.loss = float(loss.detach())

    def save(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        state = {name: getattr(self, name) for name in ("done", "seconds", "cpu_seconds", "loss")}
        torch.save(state | {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state.pop("model"))
        self.optimizer.load_state_dict(state.pop("optimizer"))
        vars(self).update(state)


def pretrain(training: Training, sets: Sequence[Images], classes: Sequence[Captioned], resume: Path) -> None:
    """Train to the recipe's last step, saving now and then."""
    bank = read_bank(training.model, sets, len(classes)) if training.done < RECIPE.locked else None
    with Progress() as progress:
        bar = progress.add_task("micro-clip", total=RECIPE.steps, completed=training.done)
        while training.done < RECIPE.steps:
            began, cpu = time.perf_counter(), time.process_time()
            if bank is not None and training.done < RECIPE.locked:
                training.step(*locked_batch(bank, classes, training.done))
            else:
                training.step(*training_batch(sets, classes, training.done))
            training.seconds += time.perf_counter() - began
            training.cpu_seconds += time.process_time() - cpu
            progress.update(bar, advance=1, description=f"micro-clip, loss {training.loss:.3f}")
            if training.done % SAVE == 0 or training.done == RECIPE.steps:
                training.save(resume)


def export(model: nn.Module, path: Path) -> None:
    """Its tensors as float16 safetensors."""
    from safetensors.torch import save_file

    tensors = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path, metadata={"model": "micro-clip"})


def run(sets: Sequence[Images], classes: Sequence[Captioned], out: Path) -> None:
    """Train and write OUT.safetensors (float16, open_clip's names) and OUT.json (recipe, data, time).

    Every `SAVE` steps OUT.resume.pt is replaced; starting again goes on from it.
    """
    training, resume = Training(), out.with_suffix(".resume.pt")
    if resume.exists():
        training.load(resume)
    pretrain(training, sets, classes, resume)
    export(training.model, out.with_suffix(".safetensors"))
    report = {
        "recipe": asdict(RECIPE),
        "images": {each.name: len(each.classes) for each in sets},
        "classes": len(classes),
        "seconds": round(training.seconds),
        "cpu_seconds": round(training.cpu_seconds),
        "threads": torch.get_num_threads(),
        "last_loss": round(training.loss, 4),
    }
    out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
