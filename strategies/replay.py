"""Experience replay: the current batch and a batch from memory, under one loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor

from clbench.config import setting
from clbench.errors import UserError
from clbench.memory import Policy
from clbench.mixtures import FixedReplay, TiC
from clbench.phase import Phase
from clbench.samples import Batch
from clbench.strategy import Needs, Strategy
from clbench.stream import Stream, Task

LATER = {"memory": "bounded", "order": "shuffled", "budget": "additive", "over": "uniform", "rule": "fixed"}


class Replay(Strategy):
    """Train on the current batch together with remembered samples (experience replay).

    Chaudhry et al. 2019 (arXiv 1902.10486), with reservoir sampling as in Mammoth's `er`: one loss over the union of
    the current batch and a batch drawn from memory; samples enter the memory after the step, un-augmented, and are
    augmented anew whenever they are replayed. The memory learns of no task boundary.

    With `mixing=share` a batch holds `batch_size` samples, of which `share` are replayed, exactly in the long run: what
    a batch is owed in parts of a sample is carried to the next. With `memory=domains` all training data of earlier
    tasks are kept, and the share is read from them as in continual pre-training (Ibrahim et al. 2024, arXiv
    2403.08763), in the order of the data or shuffled, evenly over the earlier tasks or by their sizes; `rule=tic` gives
    the current one of t tasks a share of 1/t (TiC-LM). The budget: `additive` reads all new samples and takes
    1 / (1 - share) times as many steps, `compute_equivalent` takes as many steps as without replay.
    """

    class Config(Strategy.Config):
        memory_size: int = setting(200, "samples kept", source="Mammoth: seq-cifar10, its smallest buffer", ge=1)
        policy: Policy = setting("reservoir", "which samples are kept", source="Mammoth er")
        mixing: Literal["add", "share"] = setting(
            "add",
            "add: replayed samples on top of batch_size; share: batch_size in all, `share` of it replayed",
            source="Mammoth er: add",
        )
        replay_batch_size: int | None = setting(
            None, "replayed samples per step with mixing=add; none: batch_size", source="Mammoth er: 32 and 32", ge=0
        )
        share: float = setting(0.5, "replayed part of a batch with mixing=share", source="clbench", ge=0, lt=1)
        memory: Literal["bounded", "domains"] = setting(
            "bounded",
            "bounded: memory_size samples; domains: all data of earlier tasks, always mixed by share",
            source="Mammoth er: bounded; arXiv 2403.08763: domains",
        )
        order: Literal["shuffled", "in_order"] = setting(
            "shuffled", "how earlier tasks are read with memory=domains", source="clbench; arXiv 2403.08763: in_order"
        )
        budget: Literal["additive", "compute_equivalent"] = setting(
            "additive",
            "with shares: all new samples and replay on top, or as many samples in all as without replay",
            source="clbench; arXiv 2403.08763: compute_equivalent",
        )
        over: Literal["uniform", "samples"] = setting(
            "uniform", "how memory=domains divides the share over earlier tasks", source="clbench, TiC-LM: uniform"
        )
        rule: Literal["fixed", "tic"] = setting(
            "fixed", "with memory=domains: share, or all but 1/t of a batch in the t-th task (tic)", source="TiC-LM"
        )

        @model_validator(mode="after")
        def _all_act(self) -> Replay.Config:
            """A share that nothing reads would be a replay of another size without a word."""
            if self.memory == "domains":
                self._refuse(("share",) if self.rule == "tic" else (), "rule=fixed")
                return self
            self._refuse(("order", "over", "rule"), "memory=domains")
            if self.mixing == "add":
                self._refuse(("share", "budget"), "mixing=share or memory=domains")
            return self

        def _refuse(self, names: Sequence[str], wanted: str) -> None:
            for name in names:
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name}={getattr(self, name)} acts with {wanted} only")

        @model_serializer(mode="wrap")
        def _without_idle_settings(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
            """A run that uses none of the later settings has the specification of those made before they were."""
            values: dict[str, Any] = super()._without_idle_settings(serialize)
            idle = all(values.get(name) == value for name, value in LATER.items())
            return {name: value for name, value in values.items() if not (idle and name in LATER)}

    paper = "Chaudhry et al. 2019 (arXiv 1902.10486)"
    needs = Needs(task_boundaries=False, stores_samples=True)
    plans_ahead = True

    @classmethod
    def needs_with(cls, config: Any) -> Needs:
        return Needs(stores_samples=True) if config.memory == "domains" else cls.needs

    @classmethod
    def check_stream(cls, config: Any, stream: Stream) -> None:
        if config.memory == "domains" and len(stream.tasks) == 1:
            raise UserError(
                f"strategy replay: memory=domains replays earlier tasks, but {stream.name} has one task: use finetune, "
                "or a stream of two tasks or more"
            )

    def setup(self) -> None:
        if self.config.memory == "bounded":
            self.state.memory = self.memory(self.config.memory_size, self.config.policy)

    def phases(self, task: Task) -> list[Phase]:
        c = self.config
        if c.memory == "domains":
            return [self._over_domains(task)]
        if c.mixing == "add":
            return [self.phase("train", task.train)]
        mixture = FixedReplay(c.share, budget=c.budget)
        return [self.phase("train", task.train, sources={"current": task.train, "memory": None}, mixture=mixture)]

    def _over_domains(self, task: Task) -> Phase:
        c, earlier = self.config, self.earlier_samples()
        if not earlier:
            return self.phase("train", task.train)
        sizes = {name: len(samples) for name, samples in earlier.items()} if c.over == "samples" else None
        kind = (
            TiC("1/t", c.order, c.budget, sizes) if c.rule == "tic" else FixedReplay(c.share, c.order, c.budget, sizes)
        )
        return self.phase("train", task.train, sources={task.name: task.train, **earlier}, mixture=kind)

    def loss(self, batch: Batch) -> Tensor:
        if self.config.memory == "domains":
            return super().loss(batch)
        return super().loss(self.join(batch, self.replay(self.state.memory, self.replayed(batch))))

    def replayed(self, batch: Batch) -> int:
        """How many samples of the memory go with a batch."""
        c = self.config
        if c.mixing == "share":
            return batch.whole.left_out
        return c.batch_size if c.replay_batch_size is None else c.replay_batch_size

    def after_step(self, batch: Batch) -> None:
        if self.config.memory == "bounded":
            self.state.memory.add(batch, self.generator("memory"))

    def adopt(self, task: Task) -> None:
        """Offer the task's samples to the memory once, in a random order."""
        if "memory" in self.state:
            order = torch.randperm(len(task.train), generator=self.generator("adopt"))
            for batch in self.batches(task.train.subset(order)):
                self.state.memory.add(batch, self.generator("memory"))

    def diagnostics(self) -> dict[str, Any] | None:
        """Samples and passes of every earlier task."""
        return {"drawn": self.draw_counts()} if self.config.memory == "domains" else None
