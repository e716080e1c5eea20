"""What strategies are given besides their hooks. Undeclared needs raise here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from clbench.engine.faults import fault_point
from clbench.engine.kept import Kept
from clbench.engine.mixing import Mixing
from clbench.engine.parallel import Ranks
from clbench.engine.pools import mixed
from clbench.engine.snapshots import Snapshots
from clbench.errors import RunFailed
from clbench.models.modes import in_eval_mode
from clbench.rng import Randomness
from clbench.samples import Batch, Pool, Samples
from clbench.stream import Stream, Task

if TYPE_CHECKING:
    from clbench.engine.features import Features
    from clbench.exemplars import Exemplars
    from clbench.memory import Memory
    from clbench.objectives import Objective
    from clbench.phase import Phase
    from clbench.strategy import Needs


class Services:
    """One run's model, data access and randomness, guarded by what the strategy declares."""

    def __init__(
        self,
        stream: Stream,
        objective: Objective,
        needs: Needs,
        random: Randomness,
        device: torch.device,
        build_model: Callable[[], nn.Module],
        features: Features | None,
        ranks: Ranks,
    ) -> None:
        self.stream = stream
        self.objective = objective
        self.needs = needs
        self.device = device
        self.features = features
        self.ranks = ranks
        self.snapshots = Snapshots()
        self.mixing = Mixing()
        self.kept = Kept(stream)
        self.counted: Callable[[], AbstractContextManager[None]] = nullcontext
        self.remembered: Callable[[int], None] = lambda n: None
        self.built = 0
        self.task = -1
        self._own_captions = _pools(stream) if stream.captions is not None and stream.captions.of_row else set()
        self._random = random
        self._build_model = build_model
        self._model: nn.Module | None = None

    @property
    def model(self) -> nn.Module:
        """Built when first asked for: a method that reads cached features may never need it."""
        if self._model is None:
            self._model = self._build_model()
        return self._model

    @property
    def model_is_built(self) -> bool:
        return self._model is not None

    def view(self, task: Task) -> Task:
        """The task as the strategy may see it."""
        return task if self.needs.task_boundaries else UnboundedTask(task)  # type: ignore[return-value]

    def mixed(self, phase: Phase) -> Phase:
        """The phase with the stream's mixture, where it has one."""
        return mixed(phase, self.stream, self.task, self._random)

    # -- batches -------------------------------------------------------------------------------------------------

    def batch(self, samples: Samples, positions: Tensor, view: Literal["train", "plain"], epoch: int = 0) -> Batch:
        """The samples at these positions as a batch on the device."""
        index = samples.index[positions]
        labels = samples.pool.labels[index]
        stored = samples.pool.inputs
        if samples.pool.features or self.features is not None:
            given = samples.pool.features or stored.is_floating_point()  # drawn, or what a memory keeps of images
            x = stored[index] if given else self.features.read(samples.pool, index)  # type: ignore[union-attr]
            x = x.to(self.device)
            return Batch(x=x, y=labels.to(self.device), raw=x, labels=labels, index=index, epoch=epoch)
        raw = stored[index]
        x, y = self.transform(raw, labels, view, index if samples.pool in self._own_captions else None)
        return Batch(x=x, y=y, raw=raw, labels=labels, index=index, epoch=epoch)

    def transform(
        self, raw: Tensor, labels: Tensor, view: Literal["train", "plain"], rows: Tensor | None = None
    ) -> tuple[Any, Tensor]:
        """Model inputs and targets, on the device. Features are inputs as they are. rows: in a pool whose samples have
        captions of their own."""
        if self.features is not None:
            return raw.to(self.device), labels.to(self.device)
        generator = self._random.generator("augment") if view == "train" else None
        return self.objective.inputs(raw.to(self.device), labels.to(self.device), view, generator, rows)

    def batches(self, samples: Samples, batch_size: int, view: Literal["train", "plain"]) -> Iterator[Batch]:
        for positions in torch.arange(len(samples)).split(batch_size):
            fault_point("batches")
            yield self.batch(samples, positions, view)

    # -- guarded -------------------------------------------------------------------------------------------------

    def memory(self, size: int, policy: str) -> Memory:
        from clbench.memory import Memory

        if self.features is None:
            self._declared("stores_samples", "keeps samples in a memory")
        else:
            self._declared("stores_features", "keeps features in a memory")
        return Memory(size, policy, keeps_rows=bool(self._own_captions))

    def exemplars(self, size: int) -> Exemplars:
        from clbench.exemplars import Exemplars

        self._declared("stores_samples", "keeps exemplars")
        return Exemplars(size)

    def replay(self, memory: Memory, n: int, view: Literal["train", "plain"]) -> Batch | None:
        if len(memory) == 0 or n == 0:
            return None
        rows = memory.sample(self.ranks.meant(n), self.generator("memory"))
        self.remembered(len(rows.labels))
        x, y = self.transform(rows.raw, rows.labels, view, rows.rows)
        gone = torch.full((len(rows.labels),), -1, dtype=torch.int64)
        extra = {key: value.to(self.device) for key, value in rows.extra.items()}
        return self.ranks.share(Batch(x=x, y=y, raw=rows.raw, labels=rows.labels, index=gone, extra=extra))

    def seen_samples(self) -> Samples:
        self._declared("sees_all_data", "reads the data of earlier tasks")
        return Samples.union([task.train for task in self.stream.tasks[: self.task + 1]])

    def all_samples(self) -> Samples:
        self._declared("sees_all_data", "reads the data of all tasks")
        return Samples.union([task.train for task in self.stream.tasks])

    def earlier_samples(self) -> dict[str, Samples]:
        self._declared_to_keep("reads the training data of earlier tasks")
        return self.kept.earlier(self.task)

    def selection_samples(self) -> dict[str, Samples]:
        self._declared_to_keep("reads the validation data of the tasks seen")
        return self.kept.selection(self.task)

    def bytes_of_kept_samples(self) -> int:
        """Bytes of the tasks' data that the strategy reads again in later tasks."""
        return 0 if self.needs.sees_all_data else self.kept.bytes(self.task)

    def is_last_task(self) -> bool:
        self._declared("knows_horizon", "asks which task is the last")
        return self.task == len(self.stream.tasks) - 1

    def horizon(self) -> int:
        self._declared("knows_horizon", "asks how many tasks there are")
        return len(self.stream.tasks)

    def _declared(self, need: str, use: str) -> None:
        if not getattr(self.needs, need):
            raise RunFailed(f"the strategy {use} without declaring it: add `{need}=True` to its `needs`")

    def _declared_to_keep(self, use: str) -> None:
        if not self.needs.sees_all_data:
            self._declared("stores_samples", use)
            self._declared("task_boundaries", use)

    # -- free ----------------------------------------------------------------------------------------------------

    def generator(self, concern: str) -> torch.Generator:
        return self._random.generator(f"strategy.{concern}")

    def sample_losses(self, samples: Samples) -> Tensor:
        """float32 [n] on the CPU; eval mode, without gradients. Its FLOPs are those of training."""
        losses = [torch.empty(0)]
        order = self._order_of_losses(samples)
        with in_eval_mode(self.model), torch.no_grad(), self.counted():
            for batch in self.batches(samples if order is None else samples.subset(order), self._together(), "plain"):
                losses.append(self.objective.losses(self.model(batch.x), batch.y).float().cpu())
        found = torch.cat(losses)
        return found if order is None else torch.empty_like(found).index_copy_(0, order, found)

    def _together(self) -> int:
        """How many samples go through the model at once where losses are of single samples, or of a batch."""
        return self.stream.training.batch_size if self.objective.couples_samples else 64

    def _order_of_losses(self, samples: Samples) -> Tensor | None:
        """A random order where a sample's loss depends on its batch: in the stored one a batch may be of one class."""
        if not self.objective.couples_samples:
            return None
        return torch.randperm(len(samples), generator=self.generator("batches-of-losses"))

    def snapshot(self, name: str) -> nn.Module:
        return self.snapshots.take(name, self.model, self.built)

    def squared_gradients(self, samples: Samples, labels: str, limit: int | None) -> dict[str, Tensor]:
        from clbench.gradients import squared_gradients

        if limit is not None and limit < len(samples):
            chosen = torch.randperm(len(samples), generator=self.generator("fisher-samples"))[:limit]
            samples = samples.subset(chosen)
        elif (order := self._order_of_losses(samples)) is not None:
            samples = samples.subset(order)
        batches = self.batches(samples, self._together(), "plain")
        return squared_gradients(self.model, self.objective, batches, labels, self.generator("fisher-labels"))


def _pools(stream: Stream) -> set[Pool]:
    """Those of its tasks, evaluation sets and pre-training data."""
    pools = {task.train.pool for task in stream.tasks} | {s.data.pool for s in stream.eval_sets}
    return pools if stream.pretraining is None else pools | {stream.pretraining.pool}


class UnboundedTask:
    """A task as a strategy without `task_boundaries` sees it: data that arrive, and nothing about the task."""

    def __init__(self, task: Task) -> None:
        self.train = task.train

    def __getattr__(self, name: str) -> Any:
        raise RunFailed(
            f"the strategy reads task.{name} without declaring it: add `task_boundaries=True` to its `needs`"
        )
