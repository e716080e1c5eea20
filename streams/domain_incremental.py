"""The same classes in every task, the look changes: the recipe behind the domain streams."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from clbench.samples import Pool
from clbench.stream import Augmentation, ClassMap, EvalSet, Recipe, Stream, Task, Training

from .choosing import hold_out, limited
from .class_order import arrival_order
from .identity import content_hash, order_hash
from .image_config import ImageConfig
from .image_data import Rows, samples
from .normalisation import Statistics
from .row_keys import digest


@dataclass
class Domain:
    """A named domain: its own images, or another's under a transform. Labels count in the stream's class names."""

    name: str
    train: Rows
    test: Rows


@dataclass
class Domains:
    """All domains in their listed order. `held_out`: evaluated, never trained on. `identity`: what they are made of."""

    class_names: list[str]
    domains: list[Domain]
    held_out: list[Domain]
    statistics: Statistics
    identity: dict[str, Any]


class DomainIncremental(Recipe):
    """One task a domain, all classes in each; the head starts with all outputs. `order_seed` permutes them."""

    class Config(ImageConfig):
        """See `ImageConfig`."""

    augmentation: ClassVar[Augmentation] = Augmentation()
    training: ClassVar[Training] = Training()
    default_model: ClassVar[str] = "slim-resnet18"

    @abstractmethod
    def domains(self) -> Domains:
        """Read the data."""

    def build(self) -> Stream:
        c: ImageConfig = self.config
        found = self.domains()
        order = arrival_order(len(found.domains), self.order_seed)
        train_pool = _joined([domain.train for domain in found.domains])
        test_pool = _joined([domain.test for domain in [*found.domains, *found.held_out]])
        train_starts = _starts([domain.train for domain in found.domains])
        test_starts = _starts([domain.test for domain in [*found.domains, *found.held_out]])
        tasks: list[Task] = []
        sets: list[EvalSet] = []
        made: list[dict[str, np.ndarray]] = []
        for index, listed in enumerate(order):
            domain = found.domains[listed]
            used, test = self.limited(domain.train, "train"), self.limited(domain.test, "test")
            train, validation = hold_out(used, domain.train.y, domain.train.keys, c.validation, found.class_names)
            classes = _classes(domain.train.y[train])
            seen = {label for task in tasks for label in task.classes}
            tasks.append(
                Task(
                    index=index,
                    name=domain.name,
                    train=samples(train_pool, train + train_starts[listed]),
                    validation=samples(train_pool, validation + train_starts[listed]) if len(validation) else None,
                    classes=classes,
                    new_classes=tuple(label for label in classes if label not in seen),
                )
            )
            sets.append(_eval_set(domain, index, test_pool, test, test_starts[listed]))
            keys = domain.train.keys
            made.append({"train": keys[train], "validation": keys[validation], "test": domain.test.keys[test]})
        for place, domain in enumerate(found.held_out, len(found.domains)):
            sets.append(_eval_set(domain, None, test_pool, self.limited(domain.test, "test"), test_starts[place]))
        augmentation = c.augmentation(self.augmentation)
        mean, std = found.statistics
        channels, height, width = found.domains[0].train.x.shape[1:]
        return Stream(
            name=self.name,
            objective="classification",
            tasks=tuple(tasks),
            eval_sets=tuple(sets),
            content=self._content(found, augmentation),
            order=order_hash(made),
            input_shape=(channels, height, width),
            scenario="domain",
            classes=ClassMap(tuple(found.class_names), tuple(range(len(found.class_names)))),
            initial_classes=len(found.class_names),
            mean=mean,
            std=std,
            augmentation=augmentation,
            training=replace(self.training, epochs=1) if c.online else self.training,
            default_model=self.default_model,
            single_pass=c.online,
        )

    def limited(self, rows: Rows, split: Literal["train", "test"]) -> np.ndarray:
        """Numbers of the rows that the limits keep, int64."""
        c: ImageConfig = self.config
        limits = (c.train_per_class, c.train_per_task) if split == "train" else (c.test_per_class, c.test_per_task)
        return limited(np.arange(len(rows.y)), rows.y, rows.keys, *limits)

    def _content(self, found: Domains, augmentation: Augmentation) -> str:
        c: ImageConfig = self.config
        return content_hash(
            {
                "recipe": ["domains", self.version],
                "domains": found.identity,
                "shape": found.domains[0].train.x.shape[1:],
                "classes": sorted(found.class_names),
                "online": c.online,
                "validation": c.validation,
                "limits": [c.train_per_class, c.test_per_class, c.train_per_task, c.test_per_task],
                "statistics": found.statistics,
                "augmentation": [augmentation.pad, augmentation.flip],
            }
        )


def _eval_set(domain: Domain, task: int | None, pool: Pool, rows: np.ndarray, start: int) -> EvalSet:
    return EvalSet(domain.name, samples(pool, rows + start), task, _classes(domain.test.y[rows]))


def _classes(y: np.ndarray) -> tuple[int, ...]:
    return tuple(int(label) for label in np.unique(y))


def _starts(parts: Sequence[Rows]) -> np.ndarray:
    lengths = [len(part.y) for part in parts]
    return np.cumsum([0, *lengths[:-1]])


def _joined(parts: Sequence[Rows]) -> Pool:
    """One pool of all rows, part after part; a single part is not copied."""
    x = parts[0].x if len(parts) == 1 else np.concatenate([part.x for part in parts])
    keys = np.concatenate([part.keys for part in parts])
    labels = np.concatenate([part.y for part in parts])
    fingerprint = f"{x.shape[1:]}-{digest(keys, ordered=True)}"
    return Pool(torch.from_numpy(x), torch.from_numpy(labels), fingerprint)
