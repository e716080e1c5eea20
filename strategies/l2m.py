"""L2M: a pool of modulators of a frozen transformer, chosen for each sample by its features."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from clbench.config import setting
from clbench.models.pet import is_pet
from clbench.models.vit import SMALL_VIT, first_blocks
from clbench.phase import Phase
from clbench.samples import Batch
from clbench.strategy import Needs, Strategy
from clbench.stream import Task

from .chosen_classes import among
from .modulator_pool import Chosen, attach_pool, modulated

SMALL = 1e-6


class L2M(Strategy):
    """Choose for each sample, by its features, one of a pool of modulators of a frozen transformer (L2M).

    Schmied et al., NeurIPS 2023 (arXiv 2306.14884), for decision transformers on Continual-World; there is no published
    number on images. A modulator is a key and, for every block, a LoRA of q, of v and of the MLP's hidden layer:
    h + scale (h A) B before the activation, as in the official code. Each sample passes the transformer twice: frozen,
    its features are the query; then with the modulator whose key has the largest cosine with the query. Loss:
    cross-entropy - pull * (mean cosine of queries and chosen keys), through which alone keys learn. While a later task
    is trained, (cosine + 1) / 2 is multiplied by p_i = 1 / (f_i + 1e-6) (and p made to sum to one), f_i the share of
    the samples of earlier tasks that chose i: in effect a ban on keys that were used. p is renewed at a task's
    beginning, and not applied in `predict`.

    For class-incremental images (the paper has none of this): the query is the backbone's features, in place of the
    mean of state embeddings; the head learns on the task's own classes; the transformer stays in eval mode. The
    official code initialises all A as one tensor, whose fan-in makes them far smaller than LoRA's; here each matrix has
    its own. Its optimiser lives through all tasks and moves modulators that nobody chose, by momentum; here they stand
    still. Weight decay is for the head's weights alone, there as here. The rates are those for 100,000 steps a task: in
    much fewer, weights and keys hardly move, and `lr` and `key_lr_scale` have to be raised. Needs a vision transformer
    of timm's.
    """

    class Config(Strategy.Config):
        pool_size: int = setting(30, "modulators", source="official code: l2m_lora.yaml", ge=1)
        rank: int = setting(8, "rank of each LoRA", source="official code: l2m_lora.yaml", ge=1)
        scale: float = setting(2.0, "factor of the LoRA's product", source="official code: alpha = 2 rank")
        mlp: bool = setting(True, "modulate the MLPs' hidden layers, too", source="official code: mod_ff")
        adapt_blocks: int | None = setting(
            None, "number of leading blocks with modulators; none: all", source="arXiv 2306.14884: all", ge=1
        )
        pull: float = setting(0.5, "weight of the cosine of queries and chosen keys", source="official code", ge=0)
        penalise_used: bool = setting(
            True, "steer later tasks to keys that were not used", source="official code: count_penalty"
        )
        protect_used: bool = setting(
            False, "modulators that earlier tasks chose do not learn any more", source="clbench: off, as in the paper"
        )
        optimizer: str | None = setting("adamw", "sgd, adam or adamw", source="arXiv 2306.14884")
        lr: float | None = setting(1e-4, "peak learning rate", source="official code", ge=0)
        key_lr_scale: float = setting(
            1.0, "learning rate of the keys over the modulators'", source="official code: one rate for all", ge=0
        )
        schedule: str | None = setting("constant", "learning-rate schedule", source="official code")
        clip: float | None = setting(0.25, "largest gradient norm", source="official code: max_grad_norm", gt=0)
        weight_decay: float | None = setting(0.01, "weight decay of the head's weights", source="official code", ge=0)

    needs = Needs(objectives=("classification",))
    checked_with = SMALL_VIT
    tunable = False
    paper = "Schmied et al. 2023, NeurIPS (arXiv 2306.14884)"

    def setup(self) -> None:
        c = self.config
        where = first_blocks(self.model, c.adapt_blocks, "l2m")
        self.pool = attach_pool(self.model, where, c.pool_size, c.rank, c.scale, c.mlp, "l2m")
        self.state.classes = []
        self.state.counts = torch.zeros(c.pool_size, dtype=torch.int64)  # training samples that chose each modulator
        self.state.used = torch.zeros(c.pool_size, dtype=torch.int64)  # the same, as the task began

    def begin_task(self, task: Task) -> None:
        self.state.classes = list(task.classes)
        self.state.used = self.state.counts.clone()

    def phases(self, task: Task) -> list[Phase]:
        return [self.phase("train", task.train, trainable=_is_trained, parameter_groups=self.groups, mode="eval")]

    def groups(self, parameters: dict[str, Parameter]) -> list[dict[str, Any]]:
        """The head, of which only weights decay; modulators; keys, at a rate of their own."""
        keys = [p for name, p in parameters.items() if _is_key(name)]
        weights = [p for name, p in parameters.items() if name == "head.weight"]
        others = [p for name, p in parameters.items() if name != "head.weight" and not _is_key(name)]
        return [
            {"params": weights},
            {"params": others, "weight_decay": 0.0},
            {"params": keys, "weight_decay": 0.0, "lr": self.config.lr * self.config.key_lr_scale},
        ]

    def loss(self, batch: Batch) -> Tensor:
        query = self.query(batch.x)
        index = batch.extra["modulator"] = self.choice(query, training=True)
        keys, chosen = self.pool.choose(index)
        z, y = among(self.scores(batch.x, chosen), batch.y, self.state.classes)
        pulled = F.cosine_similarity(query, keys.float(), dim=1).mean()
        return self.objective.mean_loss(z, y) - self.config.pull * pulled

    @torch.no_grad()
    def after_backward(self, batch: Batch) -> None:
        if self.config.protect_used:
            for number in self.state.used.nonzero()[:, 0].tolist():
                for parameter in self.pool[number].parameters():
                    parameter.grad = None

    def after_step(self, batch: Batch) -> None:
        self.state.counts += batch.extra["modulator"].cpu().bincount(minlength=len(self.pool))

    def predict(self, inputs: Tensor) -> Tensor:
        _, chosen = self.pool.choose(self.choice(self.query(inputs), training=False))
        return self.scores(inputs, chosen)

    @torch.no_grad()
    def query(self, x: Tensor) -> Tensor:
        """Features of the frozen transformer, float32 [B, d]."""
        model: Any = self.model
        return model.features(x).float()

    @torch.no_grad()
    def choice(self, query: Tensor, training: bool) -> Tensor:
        """The modulator of each sample, int64 [B]."""
        cosines = F.cosine_similarity(query[:, None], self.pool.keys().float(), dim=2)  # no product to autocast
        if training and self.config.penalise_used and self.state.used.any():
            rare = 1 / (self.state.used / self.state.used.sum() + SMALL)
            cosines = (cosines + 1) / 2 * (rare / rare.sum()).to(cosines.device)
        return cosines.argmax(1)

    def scores(self, x: Tensor, chosen: Chosen) -> Tensor:
        """Scores [B, classes] of images, each with its modulator."""
        with modulated(self.model, chosen):
            return self.model(x)


def _is_trained(name: str) -> bool:
    return name.startswith("head.") or is_pet(name)


def _is_key(name: str) -> bool:
    return is_pet(name) and name.endswith(".key")
