"""What is watched during a trial: positions and attributes, use of needs, storage, predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clbench.conformance.altered import COMMON
from clbench.conformance.digest import attribute_digests, digest, own_attributes
from clbench.conformance.storage import Rows
from clbench.conformance.trial import Look
from clbench.engine.cursor import Cursor, Stage
from clbench.engine.saving import final_state_hash
from clbench.pairs import Pairs
from clbench.samples import Batch, Samples
from clbench.stream import Task

if TYPE_CHECKING:
    from clbench.engine.session import Session


class PositionsLook(Look):
    """The places a run passes (`visits`: [name, task, step]) and the strategy's own attributes at each."""

    def attach(self, session: Session) -> None:
        super().attach(session)
        self.notes = {"visits": [], "attributes": {}}

    def stage(self, task: int, name: str) -> None:
        cursor = self.session.cursor
        at_phase = cursor.stage == Stage.PHASE
        self.notes["visits"].append(["phase-begin" if at_phase else name, task, -1])
        self._keep(cursor.step)

    def stepped(self, task: int, step: int, length: int, loss: Tensor | None) -> None:
        self.notes["visits"].append(["phase", task, step - 1])
        self._keep(self.session.cursor.step + 1)

    def _keep(self, step: int) -> None:
        cursor = replace(self.session.cursor, step=step)
        self.notes["attributes"][place(cursor)] = attribute_digests(self.session.strategy)


class ResumedLook(Look):
    """Where a run was taken up, and the strategy's own attributes there."""

    def started(self, session: Session) -> None:
        self.notes = {"at": place(session.resumed_at), "attributes": attribute_digests(session.strategy)}


def place(cursor: Cursor) -> str:
    """A cursor as text."""
    return ".".join(map(str, cursor.as_json()))


class UseLook(Look):
    """Which needs are used: guarded services, fields of tasks, gradients, stored samples and features."""

    def attach(self, session: Session) -> None:
        super().attach(session)
        self.used: set[str] = set()
        self.fields: set[str] = set()
        self.notes = {"stored": [], "optimised": None, "gradients": 0}
        self._latest = Rows()
        self._samples, self._features = Rows(), Rows()
        self._batch = session.services.batch
        self._watch_services(session)
        self._watch_gradients()

    def started(self, session: Session) -> None:
        if session.services.features is None:
            _ = session.services.model  # which says how samples become its inputs
        for task in session.stream.tasks:
            self._know(task)

    def stage(self, task: int, name: str) -> None:
        if name in ("begin_task", "evaluate"):
            self._look_for_samples(task, name)
        self.notes |= {"used": sorted(self.used), "fields": sorted(self.fields)}

    def stepped(self, task: int, step: int, length: int, loss: Tensor | None) -> None:
        active = self.session.active
        if active is not None and active.phase.optimizer is not None:
            self.notes["optimised"] = active.phase.name

    def _know(self, task: Task) -> None:
        services, everything = self.session.services, torch.arange(len(task.train))
        raw = task.train.raw(everything)
        self._samples.add(raw)
        if services.features is not None:
            self._features.add(self._batch(task.train, everything, "plain").x)
            return
        if raw.is_floating_point() or raw.dim() == 4:
            self._samples.add(raw.float() / 255)
        for part in _blocks(self._batch(task.train, everything, "plain")):
            self._samples.add(part)

    def _watch_services(self, session: Session) -> None:
        services = session.services
        declared, view, batch = services._declared, services.view, services.batch

        def noted(need: str, use: str) -> None:
            self.used.add(need)
            declared(need, use)

        def watched(task: Task) -> Task:
            seen = view(task)
            return _WatchedTask.of(task, self.fields) if seen is task else seen

        def latest(*arguments: Any, **keywords: Any) -> Any:
            found = batch(*arguments, **keywords)
            self._latest = Rows()
            for part in (found.raw, *_blocks(found)):
                self._latest.add(part)
            return found

        for name, function in (("_declared", noted), ("view", watched), ("batch", latest)):
            setattr(services, name, function)
        if services.features is None:
            _watch_features(type(session.model), self._features)

    def _watch_gradients(self) -> None:
        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **keywords: Any) -> Any:
                self.notes["gradients"] += 1
                return function(*arguments, **keywords)

            return call

        for holder, name in ((torch.Tensor, "backward"), (torch.autograd, "grad"), (torch.func, "grad")):
            setattr(holder, name, counted(getattr(holder, name)))

    def _current(self, samples: Samples, task: int) -> bool:
        """Whether they are all among the task's training data, which a strategy is given anyway."""
        train = self.session.stream.tasks[task].train
        return samples.pool is train.pool and bool(torch.isin(samples.index, train.index).all())

    def _look_for_samples(self, task: int, stage: str) -> None:
        strategy, services = self.session.strategy, self.session.services
        kept: dict[str, tuple[Any, Rows | None]]
        kept = {f"self.state.{name}": (value, None) for name, value in vars(strategy.state).items()}
        kept |= {name: (value, self._latest) for name, value in own_attributes(strategy).items()}
        if services.model_is_built:
            kept |= {f"the model's {name}": (value, None) for name, value in services.model.state_dict().items()}
        for name, (value, but) in kept.items():
            if isinstance(value, Samples) and (stage == "begin_task" or self._current(value, task)):
                continue  # a name for the task's own data, or for those of the task before, about to be replaced
            for kind, known in (("samples", self._samples), ("features", self._features)):
                count = known.count(value, but)
                if count:
                    self.notes["stored"].append([kind, name, count, task])


def _blocks(batch: Batch) -> list[Tensor]:
    """Of a batch, the inputs and targets that tell samples apart: of pairs the images, since captions are shared."""
    x = batch.x.images if isinstance(batch.x, Pairs) else batch.x
    return [part for part in (x, batch.y) if part is not None and part.dim() > 1]


def _watch_features(kind: type, known: Rows) -> None:
    """Remember what a model's `features` (of a model of pairs: its embeddings of images) gives while it is used."""

    def watched(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def features(model: Any, x: Any) -> Tensor:
            found = original(model, x)
            known.add(found)
            return found

        return features

    for name in ("features", "encode_image"):
        if hasattr(kind, name):
            setattr(kind, name, watched(getattr(kind, name)))


class _WatchedTask(Task):
    """A task that notes which of its fields are read."""

    @classmethod
    def of(cls, task: Task, fields: set[str]) -> _WatchedTask:
        watched = cls(**{name: getattr(task, name) for name in Task.__dataclass_fields__})
        object.__setattr__(watched, "_fields", fields)
        return watched

    def __getattribute__(self, name: str) -> Any:
        if (
            name in Task.__dataclass_fields__
            and name != "train"
            and "_fields" in object.__getattribute__(self, "__dict__")
        ):
            object.__getattribute__(self, "_fields").add(name)
        return object.__getattribute__(self, name)


class PrefixLook(Look):
    """The state's hash when the common tasks are over."""

    def stage(self, task: int, name: str) -> None:
        if name == "evaluate" and task == COMMON - 1:
            self.notes["state"] = final_state_hash(self.session)


class PredictionLook(Look):
    """Predictions: their width at the tasks' ends, whether they move inside tasks, in what order and chunks they
    change."""

    FEW = 32
    ALONE = 24

    def attach(self, session: Session) -> None:
        super().attach(session)
        self.notes = {"widths": [], "moved": False, "unable": None, "orders": {}, "alone": None}
        self._inside: dict[int, str] = {}

    def stage(self, task: int, name: str) -> None:
        if name == "evaluate":
            outputs = self._predict(*self._rows(self.FEW))
            self.notes["widths"].append([task, list(outputs.shape), self.session.n_classes()])
        elif name == "end_task":
            self._look_inside(task)
        elif name == "done":
            self._compare_orders()

    def stepped(self, task: int, step: int, length: int, loss: Tensor | None) -> None:
        self._look_inside(task)

    def _look_inside(self, task: int) -> None:
        if self.notes["moved"] or self.notes["unable"]:
            return
        try:
            now = digest(self._predict(*self._rows(self.FEW)))
        except Exception as error:
            self.notes["unable"] = " ".join(f"{type(error).__name__}: {error}".split())
            return
        self.notes["moved"] = self._inside.setdefault(task, now) != now

    def _compare_orders(self) -> None:
        samples, n = self._rows(None)
        if n < 2 * self.FEW:
            return
        expected = self._predict(samples, n)
        shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(1))
        ways = {
            "reversed": (torch.arange(n).flip(0), 64),
            "shuffled": (shuffled, 64),
            "in chunks of 32": (torch.arange(n), 32),
            "shuffled, in chunks of 45": (shuffled, 45),
            "all at once": (torch.arange(n), n),
        }
        for name, (order, size) in ways.items():
            found = torch.empty_like(expected)
            outputs = self._predict(samples, n, order, size)
            same_shape = outputs.shape == expected.shape
            if same_shape:
                found[order] = outputs
            self.notes["orders"][name] = _largest(expected, found) if same_shape else float("inf")
        single = self._predict(samples, self.ALONE, torch.arange(self.ALONE), 1)
        scale = max(1.0, float(expected[expected.isfinite()].abs().max()))
        self.notes["alone"] = [_largest(expected[: self.ALONE], single), scale]

    def _rows(self, limit: int | None) -> tuple[Samples, int]:
        """Test rows, the sets taken in turn, and how many of them."""
        data = [s.data for s in self.session.stream.eval_sets]
        samples = Samples.union(data)
        if limit is not None:
            samples = samples.subset(torch.arange(len(samples))[:: max(1, len(samples) // limit)][:limit])
        return samples, len(samples)

    def _predict(self, samples: Samples, n: int, order: Tensor | None = None, size: int = 64) -> Tensor:
        """Scores of the first n rows in this order, in near-equal chunks of `size` rows or more; random draws alike."""
        session = self.session
        order = torch.arange(n) if order is None else order
        session.random.enter("evaluation", session.step, -1)
        found = []
        with session.evaluator.evaluating(deployed=True):
            for rows in order.tensor_split(max(1, n // size)):
                batch = session.services.batch(samples, rows, "plain")
                with session.environment.autocast():
                    found.append(self._scores(batch.x))
        return torch.cat(found)

    def _scores(self, x: Any) -> Tensor:
        """Of pairs, the embeddings of images and of texts, each asked for by themselves, as evaluation does."""
        predict: Callable[[Any], Any] = self.session.strategy.predict
        if isinstance(x, Pairs):
            return torch.cat([predict(x.only_images()).image, predict(Pairs(None, x.tokens)).text], dim=1)
        scores: Tensor = predict(x)
        return scores


def _largest(a: Tensor, b: Tensor) -> float:
    """The largest difference of two score tensors; infinities in the same place are equal."""
    if a.shape != b.shape:
        return float("inf")
    difference = torch.where(a == b, torch.zeros_like(a), (a - b).abs())
    return float(difference.max()) if difference.numel() else 0.0
