"""AdaLoRA: a rank budget that moves between layers during training."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from clbench.config import setting
from clbench.engine.sampling import phase_length
from clbench.models.rank_one import adaptable_layers
from clbench.phase import Phase
from clbench.samples import Batch
from clbench.strategy import Strategy
from clbench.stream import Task

from .chosen_classes import among
from .rank_lora import FUSED

CODE = "official code (QingruZhang/AdaLoRA)"
MNLI = f"{CODE}, MNLI script"
PEFT = "peft, AdaLoraConfig"
ADAPTER = "default"


class AdaLoRA(Strategy):
    """Write updates as P diag(e) Q, and during each task spend a shrinking budget of ranks where they matter (AdaLoRA).

    Zhang et al. 2023 (arXiv 2303.10512), by peft. The importance of a weight is |w * gradient|, smoothed, times its
    smoothed uncertainty; a triplet's is that of e_k plus the means over column k of P and row k of Q. The budget b(t)
    stays at its start for t_init steps, falls to the target by a cubic, and stays there for the last t_final steps;
    whenever it is applied, all e_k but the b(t) most important of all layers are set to 0. To the loss comes
    `orthogonal` times the mean over all P and Q of |P'P - I|_F (not squared, as in the code).

    The paper is about one task. Along a stream the schedule starts anew with each task, over the steps of that task
    alone, and the update is merged into the backbone at its end: nothing is stored, and the stream's length is not
    used. As in peft, and unlike the official code, the ranks are final once the budget has reached its target.
    """

    class Config(Strategy.Config):
        rank: int = setting(12, "ranks of each layer at a task's start", source=f"{PEFT}: init_r", ge=1)
        target_rank: int = setting(8, "mean rank of a layer at its end", source=f"{PEFT}: target_r", ge=1)
        alpha: float = setting(16.0, "the update is scaled by alpha / rank", source=MNLI, gt=0)
        warmup: float = setting(
            0.1, "share of the steps before the budget falls", source=f"{MNLI}: 8,000 of about 86,000", ge=0, lt=1
        )
        final: float = setting(
            0.58, "share of the steps after it has fallen", source=f"{MNLI}: 50,000 of about 86,000", ge=0, lt=1
        )
        interval: int = setting(1, "steps between two allocations", source=f"{PEFT}: deltaT", ge=1)
        beta1: float = setting(0.85, "smoothing of importances", source=CODE, gt=0, lt=1)
        beta2: float = setting(0.85, "smoothing of uncertainties", source=CODE, gt=0, lt=1)
        orthogonal: float = setting(0.1, "weight of the orthogonality of P and Q", source=CODE, ge=0)
        separate: bool = setting(True, "fused query, key and value layers get factors of their own", source=FUSED)
        optimizer: str | None = setting("adamw", "sgd, adam or adamw", source=CODE)
        lr: float | None = setting(5e-4, "peak learning rate", source=MNLI, ge=0)

    paper = "Zhang et al. 2023, arXiv 2303.10512"

    def setup(self) -> None:
        self._tuner = inject(self.model, self.config)
        self.state.step = 0
        self.state.told = {}
        self._forget()

    def begin_task(self, task: Task) -> None:
        self.state.step = 0
        for layer in layers(self.model).values():
            layer.lora_E[ADAPTER].data.zero_()
            for factor in (layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]):
                factor.data.copy_(torch.randn(factor.shape) * 0.02)

    def phases(self, task: Task) -> list[Phase]:
        phase = self.phase(
            "train", task.train, loss=partial(self.task_loss, task.classes), trainable=is_trained, mode="frozen_norms"
        )
        phase.after_step = partial(self.after_update, phase_length(phase, len(task.train)))
        return [phase]

    def task_loss(self, classes: Any, batch: Batch) -> Tensor:
        outputs, y = among(self.model(batch.x), batch.y, classes)
        loss = self.objective.mean_loss(outputs, y)
        if not self.config.orthogonal:
            return loss
        return loss + self.config.orthogonal * non_orthogonality(self.model)

    def after_update(self, steps: int, batch: Batch) -> None:
        """Let peft update importances and apply the budget; what it remembers lives in the state."""
        self.state.step += 1
        if self.config.target_rank >= self.config.rank:
            return
        plan, allocator = self._tuner.peft_config[ADAPTER], self._tuner.rankallocator
        plan.total_step, plan.tinit, plan.tfinal = steps, *spans(steps, self.config.warmup, self.config.final)
        plan.rank_pattern = self.state.pattern or None
        device = next(self.model.parameters()).device
        allocator.exp_avg_ipt = {name: t.to(device) for name, t in self.state.importance.items()}
        allocator.exp_avg_unc = {name: t.to(device) for name, t in self.state.uncertainty.items()}
        allocator.ipt = dict(allocator.exp_avg_ipt)
        self._tuner.update_and_allocate(self.state.step)
        self.state.importance, self.state.uncertainty = allocator.exp_avg_ipt, allocator.exp_avg_unc
        self.state.pattern = plan.rank_pattern or {}

    @torch.no_grad()
    def end_task(self, task: Task) -> None:
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

    def diagnostics(self) -> dict[str, Any]:
        return dict(self.state.told)


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


def non_orthogonality(model: nn.Module) -> Tensor:
    """Mean over all P and Q of the Frobenius distance of their Gram matrix from the identity."""
    grams = [p @ p.T for name, p in model.named_parameters() if ".lora_A." in name]
    grams += [p.T @ p for name, p in model.named_parameters() if ".lora_B." in name]
    return torch.stack([torch.linalg.norm(g - torch.eye(len(g), device=g.device)) for g in grams]).mean()


def is_trained(name: str) -> bool:
    """Triplets, and a classifier's head."""
    return ".lora_" in name or name.startswith("head.")
