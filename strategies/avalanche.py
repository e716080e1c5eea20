"""Avalanche's strategies in this loop: `avalanche:GEM`, `avalanche:MIR`, `avalanche:Naive`, ..."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any, ClassVar

import torch
from pydantic import create_model
from torch import Tensor, nn

from clbench.errors import RunFailed, UserError, did_you_mean
from clbench.extras import import_extra
from clbench.phase import Phase
from clbench.samples import Batch
from clbench.signature import signature_fields
from clbench.strategy import Needs, Strategy
from clbench.stream import Task

from .avalanche_data import Pools, data_set, experience
from .avalanche_memory import Held

EXTRA = "avalanche"
SOURCE = "Avalanche's signature"
# what this file passes to a strategy's constructor, or leaves at Avalanche's default
GIVEN = {
    "model", "optimizer", "criterion", "train_mb_size", "train_epochs", "eval_mb_size", "device", "plugins",
    "evaluator", "eval_every", "peval_mode",
}  # fmt: skip
EXEMPLAR_FREE = {
    "Naive", "OnlineNaive", "EWC", "SynapticIntelligence", "LwF", "LFL", "MAS", "CWRStar", "PNNStrategy", "PackNet",
    "StreamingLDA", "LearningToPrompt", "FromScratchTraining",
    "EWCPlugin", "SynapticIntelligencePlugin", "LwFPlugin", "LFLPlugin", "MASPlugin", "RWalkPlugin", "CWRStarPlugin",
    "FeatureDistillationPlugin", "FromScratchTrainingPlugin",
}  # fmt: skip
ALL_DATA = {"Cumulative", "NCM_FullUpdatePlugin"}
NOT_METHODS = {"SupervisedPlugin", "EvaluationPlugin", "EarlyStoppingPlugin", "LRSchedulerPlugin", "SupervisedTemplate"}
STATELESS = {"Naive", "OnlineNaive"}
OTHER_NAMES = {"SI": "SynapticIntelligence"}


class Avalanche(Strategy):
    """Any strategy of Avalanche 0.6, by its class's name: avalanche:Naive, avalanche:GEM, avalanche:MIR, ...

    Lomonaco et al., Avalanche: an End-to-End Library for Continual Learning (CVPR Workshops 2021). Names are those of
    avalanche.training.supervised; a plugin's name (avalanche:RWalkPlugin) stands for plain training with this plugin.
    The constructor's arguments are settings (`clbench show strategy avalanche:GEM`).

    The strategy's own methods are called, in the order of Avalanche's template, one training iteration for each of our
    steps: `training_epoch` runs over a loader of one batch. Our model with its growing head is trained, by the
    optimiser of our phase. Batches are ours (order, augmentation) unless the strategy makes a loader of its own.
    Predictions pass through its evaluation hooks. See docs/avalanche.md.
    """

    needs: ClassVar[Needs] = Needs(stores_samples=True, resume="none", objectives=("classification",))
    adopts = False
    packages: ClassVar[tuple[str, ...]] = ("avalanche-lib",)
    kind: ClassVar[Any] = None
    arguments: ClassVar[dict[str, str]] = {}

    @classmethod
    def member(cls, name: str) -> type[Strategy]:
        """The strategy of this name. Raises UserError where there is none, or Avalanche is not installed."""
        return _member(name)

    # -- construction --------------------------------------------------------------------------------------------

    def setup(self) -> None:
        c = self.config
        self._pools = Pools()
        self._batches: Iterator[Any] | None = None
        self._loader: Any = None
        self._own_batches, self._at, self._epoch_length = True, 0, 0
        device = next(self.model.parameters()).device
        own = {argument: getattr(c, field) for field, argument in self.arguments.items()}
        common = {
            "model": self.model,
            "optimizer": self._stand_in(),
            "train_mb_size": c.batch_size,
            "eval_mb_size": c.batch_size,
            "device": device,
            "evaluator": None,
            **self._criterion(),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._foreign = _constructed(self.kind, own, common)
        self._foreign.make_optimizer = _nothing  # the optimiser is our phase's
        if c.clip is not None:
            self._foreign.optimizer_step = self._clipped_step
        self.state.held = Held(self._foreign, self._pools)

    def _criterion(self) -> dict[str, nn.Module]:
        """Cross-entropy where the constructor asks for a criterion, or has it as its default; else Avalanche's own."""
        asked = inspect.signature(self.kind.__init__).parameters.get("criterion")
        usual = asked is not None and (asked.default is asked.empty or type(asked.default) is nn.CrossEntropyLoss)
        return {"criterion": nn.CrossEntropyLoss()} if usual else {}

    def _stand_in(self) -> torch.optim.Optimizer:
        """For constructors and boundary hooks, which do not step: steps are taken with the phase's optimiser."""
        return torch.optim.SGD(self.model.parameters(), lr=self.config.lr)

    def _clipped_step(self) -> None:
        parameters = [p for group in self._foreign.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, self.config.clip)
        self._foreign.optimizer.step()

    # -- a task --------------------------------------------------------------------------------------------------

    def begin_task(self, task: Task) -> None:
        f = self._foreign
        earlier = set(range(max(task.classes, default=-1) + 1)) - set(task.new_classes)
        f.optimizer = self._stand_in()
        f.clock.train_exp_counter = task.index
        f.is_training, f._stop_training, f._eval_streams = True, False, []
        f._before_training()
        number = self._pools.number(task.train.pool)
        data = data_set(task.train, number, self.objective, lambda: self.generator("augment"))
        f.experience = experience(task, data, earlier)
        self._own_batches = self._prepared(f)
        if f.model is not self.model:
            raise RunFailed(f"avalanche:{self.kind.__name__} puts another model in the place of the one it is given")
        self._loader = f.dataloader
        self._epoch_length = self._per_epoch(task)
        self._at = 0

    @staticmethod
    def _prepared(f: Any) -> bool:
        """Run Avalanche's preparation of an experience; whether it will read the task's data in batches as they are.

        It does so where the template's own loader over the unchanged data set is left in its place by all plugins.
        """
        data, made = f.experience.dataset, dict[str, Any]()

        def noting(name: str, *attributes: str) -> None:
            method = getattr(f, name)

            def noted(**keywords: Any) -> None:
                method(**keywords)
                made.update({each: getattr(f, each) for each in attributes}, data=f.experience.dataset)

            setattr(f, name, noted)

        noting("train_dataset_adaptation", "adapted_dataset")
        noting("make_train_dataloader", "dataloader")
        try:
            f._before_training_exp()
        finally:
            del f.train_dataset_adaptation, f.make_train_dataloader
        template = import_extra("avalanche.training.templates", EXTRA).BaseSGDTemplate
        usual = all(
            getattr(type(f), name) is getattr(template, name)
            for name in ("train_dataset_adaptation", "make_train_dataloader")
        )
        same = f.adapted_dataset is made.get("adapted_dataset") and f.dataloader is made.get("dataloader")
        return bool(usual and same and made["data"] is data)

    def phases(self, task: Task) -> list[Phase]:
        c = self.config
        steps = c.steps or math.ceil(self._per_epoch(task) * c.epochs)
        return [self.phase("train", task.train, steps=steps, update=self._iteration)]

    def _per_epoch(self, task: Task) -> int:
        """Batches of an epoch: of the strategy's own loader, where it makes one."""
        if self._own_batches:
            return math.ceil(len(task.train) / self.config.batch_size)
        return max(1, len(self._loader))

    def _iteration(self, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
        """One training iteration of Avalanche's, at the borders of epochs with their hooks. The loss, detached."""
        f = self._foreign
        f.optimizer = optimizer
        if self._at == 0:
            f._before_training_epoch()
            self._batches = None if self._own_batches else iter(self._loader)
        f.dataloader = [self._minibatch(batch)]
        f.training_epoch()
        f.dataloader = self._loader
        self._at += 1
        if self._at == self._epoch_length:
            self._end_epoch()
        return f.loss.detach().reshape(-1).mean()

    def _minibatch(self, batch: Batch) -> list[Tensor]:
        """Our batch, or the next one of the strategy's loader."""
        if self._batches is None:
            return [batch.x, batch.y, torch.zeros_like(batch.y)]
        return next(self._batches)

    def _end_epoch(self) -> None:
        self._foreign._after_training_epoch()
        self._at = 0

    def end_task(self, task: Task) -> None:
        f = self._foreign
        if self._at:
            self._end_epoch()
        f._after_training_exp()
        f._after_training()
        f._train_cleanup()
        self._loader = self._batches = None
        for parameter in self.model.parameters():
            parameter.grad = None

    # -- evaluation ----------------------------------------------------------------------------------------------

    def predict(self, inputs: Tensor) -> Tensor:
        f = self._foreign
        nothing = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)
        kept = f.is_training, f.mbatch, f.mb_output
        f.is_training, f.mbatch = False, [inputs, nothing, nothing]
        try:
            f._before_eval_forward()
            f.mb_output = f.forward()
            f._after_eval_forward()
            return f.mb_output
        finally:
            f.is_training, f.mbatch, f.mb_output = kept


def _nothing(**keywords: Any) -> None:
    """In the place of a method that clbench does itself."""


def _constructed(kind: Any, own: dict[str, Any], common: dict[str, Any]) -> Any:
    """An object of this class; of a plugin: plain training with it."""
    templates = import_extra("avalanche.training.templates", EXTRA)
    if issubclass(kind, templates.BaseSGDTemplate):
        taken = inspect.signature(kind.__init__).parameters
        if not any(p.kind == p.VAR_KEYWORD for p in taken.values()):
            common = {name: value for name, value in common.items() if name in taken}
        return kind(**own, **common)
    return templates.SupervisedTemplate(plugins=[kind(**own)], **common)


def _known() -> dict[str, Any]:
    """Avalanche's strategies and plugins by name."""
    supervised = import_extra("avalanche.training.supervised", EXTRA)
    plugins = import_extra("avalanche.training.plugins", EXTRA)
    template = import_extra("avalanche.training.templates", EXTRA).BaseSGDTemplate
    core = import_extra("avalanche.core", EXTRA)
    found: dict[str, Any] = {}
    for module, base in ((supervised, template), (plugins, core.SupervisedPlugin)):
        found |= {
            name: value
            for name, value in vars(module).items()
            if inspect.isclass(value) and issubclass(value, base) and value.__module__.startswith("avalanche.training")
        }
    return {name: kind for name, kind in found.items() if name not in NOT_METHODS}


@cache
def _member(name: str) -> type[Strategy]:
    known = _known()
    name = OTHER_NAMES.get(name, name)
    if name not in known:
        raise UserError(
            f"Avalanche has no strategy {name!r}{did_you_mean(name, known)} (it has {', '.join(sorted(known))})"
        )
    kind = known[name]
    owner = f"avalanche:{name}"
    template = import_extra("avalanche.training.templates", EXTRA).BaseSGDTemplate
    for method in ("train", "_train_exp"):
        if getattr(kind, method, None) not in (None, getattr(template, method)):
            raise UserError(f"{owner} has a {method} of its own, over more than a batch: it cannot be run step by step")
    fields, arguments = signature_fields(kind.__init__, GIVEN, set(Strategy.Config.model_fields), owner, SOURCE)
    config = create_model("Config", __base__=Strategy.Config, **fields)  # type: ignore[call-overload]
    summary = (inspect.getdoc(kind) or name).strip()
    needs = Needs(
        stores_samples=name not in EXEMPLAR_FREE,
        sees_all_data=name in ALL_DATA,
        resume="task" if name in STATELESS else "none",
        objectives=("classification",),
    )
    members = {"Config": config, "needs": needs, "kind": kind, "arguments": arguments}
    return type(name, (Avalanche,), {**members, "__module__": __name__, "__doc__": f"{summary}"})
