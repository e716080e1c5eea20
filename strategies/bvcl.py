"""Variational continual learning with binary weights."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from clbench.config import setting
from clbench.errors import UserError
from clbench.growing import known_part
from clbench.models.small import MLP
from clbench.phase import Optimizer, Phase
from clbench.samples import Batch
from clbench.strategy import Needs, Strategy
from clbench.stream import Task

from .binary_weights import BinaryHead, BinaryLinear, binary_layers

BETAS = (0.9, 0.99)  # Adam's, in the official code


class BVCL(Strategy):
    """Learn a distribution over weights of -1 and 1, each task's prior being the last one's posterior (binary VCL).

    Li et al. 2023, "Statistical mechanics of continual learning" (PRE 108, 014309; arXiv 2212.02846). A weight is 1
    with probability sigmoid(2 beta theta). The loss is the cross-entropy, summed over the batch, + kl_weight *
    KL(posterior || prior), whose gradient beta^2 (1 - tanh(beta theta)^2) (theta - theta_0) is added after the backward
    pass. Fields are trained by Adam, whose moments are carried over tasks.

    The MLP that the backbone names (`mlp:400x2`) and its head are replaced by binary layers of the same sizes without
    biases.

    theta_0, the prior's fields: those after the latest task (`anchor=task`, the paper's equation and the official
    perceptron, which is trained on full batches: here a batch takes its share of the KL; no KL in the first task), or
    those of the step before (`anchor=step`, the official deep networks: each batch has a prior and all of the KL, in
    every task). beta is constant as in the perceptron, or grows over the whole run (`constant_beta=none`, the official
    deep networks), as beta_max tanh(0.1 + 2 x) with x the part done: that needs the number of tasks. Growing beta
    freezes weights, which is most of what `anchor=step` has against forgetting; with `anchor=task` the network hardly
    learns any more. So the published curves of deep networks are `anchor=step constant_beta=none`.

    Where beta grows, the prior's fields are weighed with the current beta; `prior=strength` leaves the prior the beta
    that it had. Predictions are of the mean network; `networks=K` averages the probabilities of K binary networks, the
    same ones for every input (the official code: one pass with Gaussian noise). Fields move by about the rate in a
    step and start as N(0, 1): training takes hundreds of steps a task.
    """

    paper = "Li et al. 2023, Physical Review E 108 (arXiv 2212.02846)"

    class Config(Strategy.Config):
        optimizer: str | None = setting("adam", "sgd, adam or adamw", source="official code, deep networks")
        lr: float | None = setting(0.01, "peak learning rate", source="official code, permuted MNIST", ge=0)
        weight_decay: float | None = setting(0.0, "weight decay", source="official code, deep networks", ge=0)
        batch_size: int | None = setting(64, "samples per step", source="official code, deep networks", ge=1)
        optimizer_state: Literal["reset", "keep", "keep-moments"] = setting(
            "keep", "at a task's start: reset, keep, or keep-moments", source="official code: one Adam for all tasks"
        )
        anchor: Literal["task", "step"] = setting(
            "task",
            "the prior: the fields after the latest task, or before the latest step",
            source="arXiv 2212.02846, official perceptron; official deep networks: step",
        )
        prior: Literal["fields", "strength"] = setting(
            "fields", "beta of the prior: the current one, or the one it had", source="arXiv 2212.02846, official code"
        )
        kl_weight: float = setting(1.0, "weight of the KL divergence", source="arXiv 2212.02846", ge=0)
        constant_beta: float | None = setting(
            1.0,
            "beta throughout; none: growing",
            source="official perceptron; official deep networks: growing",
            gt=0,
        )
        beta_max: float = setting(10.0, "where growing beta tends to", source="official code, deep networks", gt=0)
        beta_growth: float = setting(
            2.0,
            "growing beta is beta_max tanh(0.1 + this at the run's end)",
            source="official code, permuted MNIST; else 1",
            ge=0,
        )
        networks: int | None = setting(
            None, "binary networks to predict with; none: their mean", source="clbench", ge=1
        )

    needs = Needs(knows_horizon=True, objectives=("classification",))  # the horizon: only where beta grows
    checked_with = "mlp:32x1"
    tunable = False

    def setup(self) -> None:
        backbone = self.model.backbone
        if not isinstance(backbone, MLP):
            raise UserError(
                "bvcl has binary weights in a fully connected network: use --backbone mlp:400x2, or another"
            )
        device = next(backbone.parameters()).device
        for place, layer in enumerate(backbone.layers):
            if isinstance(layer, nn.Linear):
                backbone.layers[place] = BinaryLinear(layer.in_features, layer.out_features).to(device)
        self.model.head = BinaryHead(backbone.feature_dim).to(device)
        self.state.task, self.state.step, self.state.size = 0, 0, 1
        self.state.anchor, self.state.anchor_beta = {}, 0.0
        self.state.network_seed = int(torch.randint(2**62, (1,), generator=self.generator("networks")))

    def begin_task(self, task: Task) -> None:
        self.state.task, self.state.step, self.state.size = task.index, 0, len(task.train)

    def phases(self, task: Task) -> list[Phase]:
        c = self.config
        return [
            self.phase("train", task.train, optimizer=Optimizer(c.optimizer, c.lr, c.momentum, c.weight_decay, BETAS))
        ]

    def loss(self, batch: Batch) -> Tensor:
        self.set_beta(self.beta_at(batch.epoch))
        return super().loss(batch) * len(batch.whole)

    def beta_at(self, epoch: int) -> float:
        """beta in an epoch of the current task; with `steps` instead of epochs, in its current step."""
        c = self.config
        if c.constant_beta is not None:
            return float(c.constant_beta)
        of_task = (self.state.step + 1) / c.steps if c.steps else (epoch + 1) / max(1, math.ceil(c.epochs))
        return float(c.beta_max * math.tanh(0.1 + c.beta_growth * (self.state.task + of_task) / self.horizon()))

    def set_beta(self, beta: float) -> None:
        for layer in binary_layers(self.model).values():
            layer.beta.fill_(beta)

    @torch.no_grad()
    def after_backward(self, batch: Batch) -> None:
        """Add the gradient of the KL divergence; it is zero where there is no prior yet."""
        weight = self.config.kl_weight * (1 if self.config.anchor == "step" else len(batch) / self.state.size)
        for name, layer in binary_layers(self.model).items():
            theta, gradient = layer.theta, layer.theta.grad
            if name in self.state.anchor and gradient is not None:
                anchor = self.state.anchor[name].to(theta.device)
                known = known_part(theta, anchor)
                beta = float(layer.beta)
                prior = (beta if self.config.prior == "fields" else self.state.anchor_beta) * anchor
                pull = beta * (1 - torch.tanh(beta * known).square()) * (beta * known - prior)
                known_part(gradient, anchor).add_(weight * pull)
        if self.config.anchor == "step":
            self._drop_anchor()

    def after_step(self, batch: Batch) -> None:
        self.state.step += 1

    def end_task(self, task: Task) -> None:
        if self.config.anchor == "task":
            self._drop_anchor()

    def _drop_anchor(self) -> None:
        """The fields as they are become the prior's."""
        layers = binary_layers(self.model)
        self.state.anchor = {name: layer.theta.detach().clone() for name, layer in layers.items()}
        self.state.anchor_beta = float(self.model.head.linear.beta)  # type: ignore[union-attr, arg-type]

    def predict(self, inputs: Tensor) -> Tensor:
        if self.config.networks is None:
            return super().predict(inputs)
        generator = torch.Generator().manual_seed(self.state.network_seed)
        layers = binary_layers(self.model).values()
        total = torch.zeros(())
        for _ in range(self.config.networks):
            for layer in layers:
                layer.drawn = layer.draw(generator)
            total = total.to(inputs.device) + super().predict(inputs).float().softmax(1)
        for layer in layers:
            layer.drawn = None
        return (total / self.config.networks).log()
