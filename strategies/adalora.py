"""AdaLoRA: a rank budget that moves between layers during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clbench.config import setting
from clbench.models.rank_one import adaptable_layers
from clbench.samples import Batch
from clbench.stream import Task

from .rank_lora import RankSelection

CODE = "official code (QingruZhang/AdaLoRA)"
MNLI = f"{CODE}, MNLI script"
PEFT = "peft, AdaLoraConfig"
ADAPTER = "default"


class AdaLoRA(RankSelection):
    """A rank budget that shrinks during each task, spent on the layers where ranks matter most (AdaLoRA).

    Zhang et al. 2023 (arXiv 2303.10512), by peft. The update of a layer is alpha / rank * P diag(e) Q, P and Q from
    N(0, 0.02^2), e zero. The importance of a weight is |w * gradient|, smoothed, times its smoothed uncertainty; that
    of a triplet is that of e_k plus the means over column k of P and row k of Q. The budget b(t) stays at its start for
    t_init steps, falls to the target by a cubic, and stays there for the last t_final steps; whenever it is applied,
    all e_k but the b(t) most important of all layers are set to 0. P and Q keep training, so that an e_k can come back
    as long as the budget falls. To the loss comes `orthogonal` times the mean over all P and Q of |P'P - I|_F.

    The paper is about one task. Along a stream the schedule starts anew with each task, over the steps of that task
    alone, and the update is merged into the backbone at its end: nothing is stored, and the stream's length is not
    used.

    peft and the official code alike differ from the paper. Importances take the weights after the step, not before it.
    The weight 0.1 belongs to the mean of norms above; the paper has their squares, summed over the layers (`squares`).
    The official code counts steps from 0; here they count from 1, as in the paper's Algorithm 1.
    """

    class Config(RankSelection.Config):
        rank: int = setting(
            12, "ranks of each layer at a task's start", source=f"{PEFT}: init_r; paper: 1.5 times the target", ge=1
        )
        target_rank: int = setting(8, "mean rank of a layer at its end", source=f"{PEFT}: target_r", ge=1)
        alpha: float = setting(16.0, "the update is scaled by alpha / rank", source=MNLI, gt=0)
        warmup: float = setting(
            0.1, "share of the steps before the budget falls", source=f"{MNLI}: 8,000 of about 86,000", ge=0, lt=1
        )
        final: float = setting(
            0.58, "share of the steps after it has fallen", source=f"{MNLI}: 50,000 of about 86,000", ge=0, lt=1
        )
        interval: int = setting(
            1, "steps between two allocations", source=f"{CODE}, RTE script, and {PEFT}: deltaT; MNLI 100", ge=1
        )
        beta1: float = setting(0.85, "smoothing of importances", source=CODE, gt=0, lt=1)
        beta2: float = setting(0.85, "smoothing of uncertainties", source=CODE, gt=0, lt=1)
        orthogonal: float = setting(0.1, "weight of the orthogonality of P and Q", source=MNLI, ge=0)
        squares: bool = setting(False, "the sum of squared norms (the paper's) for their mean", source=CODE)
        optimizer: str | None = setting("adamw", "sgd, adam or adamw", source=CODE)
        lr: float | None = setting(5e-4, "peak learning rate", source=MNLI, ge=0)
        weight_decay: float | None = setting(0.0, "weight decay", source=MNLI, ge=0)
        schedule: str | None = setting("linear", "learning-rate schedule within a task", source=MNLI)

    paper = "Zhang et al. 2023, ICLR (arXiv 2303.10512)"

    def setup(self) -> None:
        super().setup()
        self._tuner = inject(self.model, self.config)
        self._forget()

    def begin_task(self, task: Task) -> None:
        super().begin_task(task)
        for layer in layers(self.model).values():
            layer.lora_E[ADAPTER].data.zero_()
            for factor in (layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]):
                factor.data.copy_(torch.randn(factor.shape) * 0.02)

    def is_trained(self, name: str) -> bool:
        return ".lora_" in name or name.startswith("head.")

    def task_loss(self, classes: Sequence[int], batch: Batch) -> Tensor:
        loss = super().task_loss(classes, batch)
        if not self.config.orthogonal:
            return loss
        return loss + self.config.orthogonal * non_orthogonality(self.model, self.config.squares)

    def reweigh(self, step: int, steps: int) -> None:
        """Let peft update importances and apply the budget; what it remembers lives in the state."""
        if self.config.target_rank >= self.config.rank:
            return
        plan, allocator = self._tuner.peft_config[ADAPTER], self._tuner.rankallocator
        plan.total_step, plan.tinit, plan.tfinal = steps, *spans(steps, self.config.warmup, self.config.final)
        plan.rank_pattern = self.state.pattern or None
        device = next(self.model.parameters()).device
        allocator.exp_avg_ipt = {name: t.to(device) for name, t in self.state.importance.items()}
        allocator.exp_avg_unc = {name: t.to(device) for name, t in self.state.uncertainty.items()}
        allocator.ipt = dict(allocator.exp_avg_ipt)
        if step == 0 and steps - plan.tfinal == 1:  # peft would apply the budget before it has any importances
            allocator.update_ipt(self._tuner.model)
        self._tuner.update_and_allocate(step + 1)
        self.state.importance, self.state.uncertainty = allocator.exp_avg_ipt, allocator.exp_avg_unc
        self.state.pattern = plan.rank_pattern or {}

    @torch.no_grad()
    def end_task(self, task: Task) -> None:
        super().end_task(task)
        ranks, squares = {}, 0.0
        for name, layer in layers(self.model).items():
            change = layer.get_delta_weight(ADAPTER)
            ranks[name] = int(layer.lora_E[ADAPTER].count_nonzero())
            squares += float(change.double().square().sum())
            layer.get_base_layer().weight.add_(change)
            for factor in (layer.lora_E, layer.lora_A, layer.lora_B):
                factor[ADAPTER].zero_()
        self.state.told = {"effective_rank": ranks, "update_norm": squares**0.5}
        self._forget()

    def _forget(self) -> None:
        self.state.importance, self.state.uncertainty, self.state.pattern = {}, {}, {}


def inject(model: Any, config: AdaLoRA.Config) -> Any:
    """peft's AdaLoRA on every linear layer that the backbone's forward pass calls; peft's model of it."""
    targets = adaptable_layers(model, config.separate, "AdaLoRA")
    from peft import AdaLoraConfig
    from peft.tuners.adalora import AdaLoraModel

    plan = AdaLoraConfig(
        init_r=config.rank,
        target_r=config.target_rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        deltaT=config.interval,
        beta1=config.beta1,
        beta2=config.beta2,
        total_step=1,  # each task sets its own
        target_modules=targets,
    )
    training = model.training
    tuner = AdaLoraModel(model.backbone, plan, ADAPTER)
    model.train(training)
    return tuner


def layers(model: Any) -> dict[str, Any]:
    """peft's layers by their names in the backbone."""
    from peft.tuners.adalora.layer import AdaLoraLayer

    return {name: layer for name, layer in model.backbone.named_modules() if isinstance(layer, AdaLoraLayer)}


def spans(steps: int, warmup: float, final: float) -> tuple[int, int]:
    """t_init and t_final in steps; at least one step between them, so that the budget always reaches its target."""
    last = min(int(final * steps), steps - 1)
    return min(int(warmup * steps), steps - last - 1), last


def non_orthogonality(model: nn.Module, squares: bool = False) -> Tensor:
    """Mean over all P and Q of the Frobenius distance of their Gram matrix from the identity; or the sum of squares."""
    grams = [p @ p.T for name, p in model.named_parameters() if ".lora_A." in name]
    grams += [p.T @ p for name, p in model.named_parameters() if ".lora_B." in name]
    distances = torch.stack([torch.linalg.norm(g - torch.eye(len(g), device=g.device)) for g in grams])
    return distances.square().sum() if squares else distances.mean()
