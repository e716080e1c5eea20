"""LAE: a fast (online) and a slowly averaged (offline) tuning of one frozen transformer, which predict together."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call

from clbench.config import setting
from clbench.engine.sampling import phase_length
from clbench.errors import UserError
from clbench.models.pet import attach_attention_adapters, attach_lora, attach_prefix, is_pet, pet_parameters
from clbench.models.vit import SMALL_VIT, first_blocks
from clbench.phase import Phase
from clbench.samples import Batch
from clbench.strategy import Needs, Strategy
from clbench.stream import Task

from .chosen_classes import among, class_rows

CODE = "LAE code"
SIZES = {"adapter": 5, "lora": 5, "prefix": 10}


class LAE(Strategy):
    """Tune few parameters of a frozen vision transformer and average them slowly; predict with both versions.

    Gao et al., ICCV 2023 (arXiv 2303.10070), "learning, accumulation, ensemble". Parameter-efficient modules (`pet`)
    sit in the first blocks of the transformer, all else of which is frozen: adapters beside the attention, LoRA on its
    keys and values, or a prefix of further keys and values; each with learnable scales that let the three learn at the
    same speed (`clbench.models.pet`).

    Learning: cross-entropy over the task's own classes trains the head and the online modules. From the second task on
    the modules are frozen for the first part of the steps, in which the head alone learns. Rows of new classes start
    near zero, so a task's logits sum to about zero and those of several tasks can be compared. Accumulation: when the
    second task begins, the offline modules are made as a copy of the online ones; after every step from then on, those
    with frozen modules too, offline <- ema * offline + (1 - ema) * online. Ensemble: the score of a class is the larger
    one of its two softmax probabilities, over all classes seen, with online and with offline modules and the same head.

    After n steps the online modules have a share of about 1 - ema^n in the offline ones: with 0.9999, a tenth after
    1050 steps, which is a task of the paper's CIFAR-100. How many steps a task has is thus part of the method: in a
    short run, lower `ema` by as much as the steps are fewer.

    The code leaves an epoch's last, smaller batch out, which is kept here, and freezes for 3 of 5 or 30 of 50 epochs,
    which is one share. It gives a prefix a total attention of 1, the tokens keeping what the joint softmax left to
    them (`prefix_compensation=divided`); with few tokens that is far less than they had before, and `added` leaves
    the tokens' own attention whole. Under the code's PyTorch (1.12) Adam also counts the steps in which the modules are
    frozen, which makes their next steps up to 4.5 times as long; under later ones it does not, nor here. PILOT's port
    freezes in the first task, too, copies the offline modules before any training, and uses the learning rate of
    batches of 24 with batches of 128.
    """

    class Config(Strategy.Config):
        pet: Literal["adapter", "lora", "prefix"] = setting("adapter", "what is trained", source=CODE)
        pet_size: int | None = setting(
            None, "units of an adapter (5), rank of LoRA (5), length of a prefix (10)", source=CODE, ge=1
        )
        adapt_blocks: int | None = setting(5, "number of leading blocks that are tuned; none: all", source=CODE, ge=1)
        ema: float = setting(0.9999, "what the offline modules keep at each step", source=CODE, ge=0, le=1)
        freeze: float = setting(
            0.6, "share of a later task's steps in which the head learns alone", source=CODE, ge=0, le=1
        )
        head_std: float | None = setting(
            0.001,
            "deviation of the weights of new classes, with zero biases; none: as the head draws them",
            source=CODE,
            ge=0,
        )
        expert: Literal["both", "online", "offline"] = setting(
            "both", "who predicts (of no influence on training)", source="arXiv 2303.10070: both"
        )
        prefix_compensation: Literal["divided", "added", "none"] = setting(
            "divided", "attention that prefix and tokens get; see above", source=CODE
        )
        optimizer: str | None = setting("adam", "sgd, adam or adamw", source=CODE)
        lr: float | None = setting(
            0.0028125, "learning rate; 0.00046875 on ImageNet-R and DomainNet", source="LAE code: 0.03 * 24 / 256", ge=0
        )
        weight_decay: float | None = setting(0.0, "weight decay", source=CODE, ge=0)
        batch_size: int | None = setting(24, "samples per step", source=CODE, ge=1)
        epochs: float | None = setting(5.0, "passes over a task; 50 on ImageNet-R and DomainNet", source=CODE, gt=0)
        schedule: str | None = setting("constant", "learning-rate schedule", source=CODE)

    needs = Needs(objectives=("classification",))
    checked_with = SMALL_VIT
    tunable = False
    paper = "Gao et al. 2023, ICCV (arXiv 2303.10070)"

    def setup(self) -> None:
        if not any(True for _ in self.model.head.parameters()):  # type: ignore[union-attr]
            raise UserError("LAE trains the head: use --head linear or cosine")
        kind, where = self.config.pet, first_blocks(self.model, self.config.adapt_blocks, "LAE")
        size = self.config.pet_size or SIZES[kind]
        if kind == "adapter":
            attach_attention_adapters(self.model, where, size, "LAE")
        elif kind == "lora":
            attach_lora(self.model, where, size, "LAE")
        else:
            attach_prefix(self.model, where, size, "LAE", self.config.prefix_compensation)
        self.state.offline = {}

    def begin_task(self, task: Task) -> None:
        if task.index > 0 and not self.state.offline:
            self.state.offline = {name: p.detach().clone() for name, p in pet_parameters(self.model).items()}
        if self.config.head_std is not None:
            self._draw_rows(list(task.new_classes), self.config.head_std)

    def phases(self, task: Task) -> list[Phase]:
        whole = self.phase("tune", task.train, loss=partial(self._loss, list(task.classes)), trainable=_is_tuned)
        steps = phase_length(whole, len(task.train))
        frozen = round(self.config.freeze * steps) if task.index > 0 else 0
        if not frozen:
            return [whole]
        head = replace(whole, name="head", trainable=_is_head, epochs=None, steps=frozen)
        tune = replace(whole, epochs=None, steps=steps - frozen, optimizer_state="keep")
        return [head, tune] if frozen < steps else [head]

    def after_step(self, batch: Batch) -> None:
        if not self.state.offline:
            return
        for name, online in pet_parameters(self.model).items():
            offline = self.state.offline[name].to(online.device)
            self.state.offline[name] = offline.mul_(self.config.ema).add_(online, alpha=1 - self.config.ema)

    def predict(self, inputs: Tensor) -> Tensor:
        """Probabilities [B, classes seen]; the larger ones of the two experts' are no distribution."""
        if not self.state.offline or self.config.expert == "online":
            return self.model(inputs).softmax(dim=1)
        device = inputs.device
        modules = {name: value.to(device) for name, value in self.state.offline.items()}
        offline = functional_call(self.model, modules, (inputs,)).softmax(dim=1)
        if self.config.expert == "offline":
            return offline
        return torch.maximum(self.model(inputs).softmax(dim=1), offline)

    def _loss(self, classes: list[int], batch: Batch) -> Tensor:
        """Cross-entropy over these classes alone."""
        return self.objective.mean_loss(*among(self.model(batch.x), batch.y, classes))

    def _draw_rows(self, classes: list[int], std: float) -> None:
        """New values for the head's rows of these classes: weights N(0, std^2), biases zero."""
        for rows in class_rows(self.model).values():
            new = torch.zeros(len(classes), *rows.shape[1:])
            rows.detach()[classes] = (new.normal_(std=std) if new.dim() > 1 else new).to(rows)


def _is_head(name: str) -> bool:
    return name.startswith("head.")


def _is_tuned(name: str) -> bool:
    return _is_head(name) or is_pet(name)
