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
    """A named domain: numbers of its rows among all domains' training and test rows, int64."""

    name: str
    train: np.ndarray
    test: np.ndarray


@dataclass
class Domains:
    """All domains in their listed order, and the rows they are parts of; labels count in `class_names`.

    `held_out`: evaluated, never trained on. `identity`: what they are made of. `overlap`: see `Stream`.
    """

    class_names: list[str]
    train: Rows
    test: Rows
    domains: list[Domain]
    held_out: list[Domain]
    statistics: Statistics
    identity: dict[str, Any]
    overlap: str = ""


def side_by_side(names: Sequence[str], train: Sequence[Rows], test: Sequence[Rows]) -> tuple[Rows, Rows, list[Domain]]:
    """The domains' own rows laid one after another, and where each domain then is."""
    places = [
        [start + np.arange(len(rows.y)) for start, rows in zip(_starts(parts), parts, strict=True)]
        for parts in (train, test)
    ]
    domains = [Domain(name, *rows) for name, *rows in zip(names, *places, strict=True)]
    return _joined(train), _joined(test), domains


class DomainIncremental(Recipe):
    """One task a domain, all classes in each; the head starts with all outputs. `order_seed` permutes them."""

    class Config(ImageConfig):
        """See `ImageConfig`."""

    augmentation: ClassVar[Augmentation] = Augmentation()
    training: ClassVar[Training] = Training()
    default_model: ClassVar[str] = "micro-vit"
    feature_model: ClassVar[str] = "micro-vit"

    @abstractmethod
    def domains(self) -> Domains:
        """Read the data."""

    def build(self) -> Stream:
        c: ImageConfig = self.config
        found = self.domains()
        order = arrival_order(len(found.domains), self.order_seed)
        train_pool, test_pool = _pool(found.train), _pool(found.test)
        y, keys = found.train.y, found.train.keys
        tasks: list[Task] = []
        sets: list[EvalSet] = []
        made: list[dict[str, np.ndarray]] = []
        for index, listed in enumerate(order):
            domain = found.domains[listed]
            used = self.limited(found.train, "train", domain.train)
            test = self.limited(found.test, "test", domain.test)
            train, validation = hold_out(used, y, keys, c.validation, found.class_names)
            classes = _classes(y[train])
            seen = {label for task in tasks for label in task.classes}
            tasks.append(
                Task(
                    index=index,
                    name=domain.name,
                    train=samples(train_pool, train),
                    validation=samples(train_pool, validation) if len(validation) else None,
                    classes=classes,
                    new_classes=tuple(label for label in classes if label not in seen),
                )
            )
            sets.append(EvalSet(domain.name, samples(test_pool, test), index, _classes(found.test.y[test])))
            made.append({"train": keys[train], "validation": keys[validation], "test": found.test.keys[test]})
        for domain in found.held_out:
            test = self.limited(found.test, "test", domain.test)
            sets.append(EvalSet(domain.name, samples(test_pool, test), None, _classes(found.test.y[test])))
        augmentation = c.augmentation(self.augmentation)
        mean, std = found.statistics
        channels, height, width = found.train.x.shape[1:]
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
            feature_model=self.feature_model,
            single_pass=c.online,
            pretraining_overlap=self.pretraining_overlap or found.overlap,
        )

    def limited(self, rows: Rows, split: Literal["train", "test"], among: np.ndarray) -> np.ndarray:
        """Those of the row numbers `among` that the limits keep, int64."""
        c: ImageConfig = self.config
        limits = (c.train_per_class, c.train_per_task) if split == "train" else (c.test_per_class, c.test_per_task)
        return limited(among, rows.y, rows.keys, *limits)

    def _content(self, found: Domains, augmentation: Augmentation) -> str:
        c: ImageConfig = self.config
        return content_hash(
            {
                "recipe": ["domains", self.version],
                "domains": found.identity,
                "shape": found.train.x.shape[1:],
                "classes": sorted(found.class_names),
                "online": c.online,
                "validation": c.validation,
                "limits": [c.train_per_class, c.test_per_class, c.train_per_task, c.test_per_task],
                "statistics": found.statistics,
                "augmentation": augmentation.as_list(),
            }
        )


def _classes(y: np.ndarray) -> tuple[int, ...]:
    return tuple(int(label) for label in np.unique(y))


def _starts(parts: Sequence[Rows]) -> np.ndarray:
    lengths = [len(part.y) for part in parts]
    return np.cumsum([0, *lengths[:-1]])


def _joined(parts: Sequence[Rows]) -> Rows:
    """All rows, part after part; a single part is not copied."""
    if len(parts) == 1:
        return parts[0]
    x, y, keys = (np.concatenate(each) for each in zip(*((p.x, p.y, p.keys) for p in parts), strict=True))
    return Rows(x, y, keys)


def _pool(rows: Rows) -> Pool:
    fingerprint = f"{rows.x.shape[1:]}-{digest(rows.keys, ordered=True)}"
    return Pool(torch.from_numpy(rows.x), torch.from_numpy(rows.y), fingerprint)
