"""Classes of one image set, task by task: the recipe behind the split streams."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from clbench.config import setting
from clbench.errors import UserError
from clbench.stream import Augmentation, ClassMap, EvalSet, Recipe, Stream, Task, Training

from .blurry import blurred, blurry_classes
from .choosing import hold_out, limited
from .class_order import arrival_order
from .cutting import cut, task_sizes
from .identity import content_hash, order_hash
from .image_config import ImageConfig
from .image_data import ImageData, Rows, numbering, read_images, samples
from .pretraining import overlap


class SplitConfig(ImageConfig):
    """How the classes are cut into tasks. A class belongs to one task, its home; test images stay at home."""

    tasks: int = setting(
        5, "tasks of (nearly) equal size, not counting the first where base is set", source="the stream", ge=1
    )
    base: int = setting(0, "classes of a larger first task (B50-5x10: base=50, tasks=5); 0: none", source="none", ge=0)
    sizes: list[int] | None = setting(
        None, "classes of each task, instead of tasks and base, as in [3,5,2]", source="clbench: unset"
    )
    scenario: Literal["class", "task"] = setting(
        "class",
        "class: told apart from all classes seen; task: within the task, whose index is given",
        source="van de Ven and Tolias, 2019",
    )
    disjoint: float = setting(
        1.0, "share of the classes that occur in their own task only; 1: no blur", source="clbench: no blur", ge=0, le=1
    )
    blur: float = setting(
        0.1, "share of the images of the other classes that spread over all tasks", source="Si-Blurry, 2023", ge=0, le=1
    )


@dataclass
class Part:
    """What one task gets: classes at home in it, rows of the training and of the test data (source numbering)."""

    home: list[int]
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Split(Recipe):
    """Classes of an image set, a few at a time. Subclasses name the set and what suits it."""

    class Config(SplitConfig):
        """See `SplitConfig`."""

    set_name: ClassVar[str] = ""
    channels: ClassVar[Literal[1, 3] | None] = None
    augmentation: ClassVar[Augmentation] = Augmentation()
    training: ClassVar[Training] = Training()
    default_model: ClassVar[str] = "micro-vit"
    feature_model: ClassVar[str] = "micro-vit"

    def build(self) -> Stream:
        c: SplitConfig = self.config
        data = read_images(self.source(), self.data_root, c.size, c.channels or self.channels, c.resize)
        sizes = self.sizes(len(data.class_names))
        order = self.arrival(data.class_names)
        parts = self._parts(data, cut(order, sizes))
        present = [_classes(part, data.train.y, order) for part in parts]
        arrived = list(dict.fromkeys(source for classes in present for source in classes))
        label_of = numbering(arrived, len(data.class_names))
        train, test = data.train.pool(label_of), data.test.pool(label_of)
        tasks, sets, seen = [], [], set[int]()
        for index, (part, sources) in enumerate(zip(parts, present, strict=True)):
            classes = _labels(sources, label_of)
            tasks.append(
                Task(
                    index=index,
                    name=f"task{index}",
                    train=samples(train, part.train),
                    validation=samples(train, part.validation) if len(part.validation) else None,
                    classes=classes,
                    new_classes=tuple(label for label in classes if label not in seen),
                )
            )
            sets.append(EvalSet(f"task{index}", samples(test, part.test), index, _labels(part.home, label_of)))
            seen.update(classes)
        augmentation = c.augmentation(self.augmentation)
        mean, std = data.statistics
        return Stream(
            name=self.name,
            objective="classification",
            tasks=tuple(tasks),
            eval_sets=tuple(sets),
            content=self._content(data, sizes, augmentation),
            order=_order(data, parts),
            input_shape=data.shape,
            scenario=c.scenario,
            classes=ClassMap(tuple(data.class_names[source] for source in arrived), tuple(arrived)),
            mean=mean,
            std=std,
            augmentation=augmentation,
            training=replace(self.training, epochs=1) if c.online else self.training,
            default_model=self.default_model,
            feature_model=self.feature_model,
            single_pass=c.online,
            pretraining_overlap=self.pretraining_overlap or overlap([data.name]),
        )

    def source(self) -> str:
        """The name or path of the set."""
        return self.set_name

    def arrival(self, class_names: list[str]) -> list[int]:
        """Source numbers of the classes in the order in which they come."""
        return arrival_order(len(class_names), self.order_seed)

    def sizes(self, n_classes: int) -> list[int]:
        """The number of classes of each task."""
        c: SplitConfig = self.config
        if c.sizes is not None and (c.base or c.tasks not in (len(c.sizes), self.Config.model_fields["tasks"].default)):
            raise UserError(f"{self.name}: sizes={c.sizes} says it all; leave out tasks and base")
        if c.scenario == "task" and c.disjoint < 1:
            raise UserError(f"{self.name}: scenario=task needs classes with one task each; leave out disjoint")
        return task_sizes(n_classes, c.tasks, c.base, c.sizes)

    def _parts(self, data: ImageData, groups: list[list[int]]) -> list[Part]:
        c: SplitConfig = self.config
        parts = []
        for home in groups:
            rows = limited(_of(data.train, home), data.train.y, data.train.keys, c.train_per_class, c.train_per_task)
            train, validation = hold_out(rows, data.train.y, data.train.keys, c.validation, data.class_names)
            test = limited(_of(data.test, home), data.test.y, data.test.keys, c.test_per_class, c.test_per_task)
            _no_empty_class(home, data, train, test)
            parts.append(Part(home, train, validation, test))
        if c.disjoint < 1:
            moving = blurry_classes(len(data.class_names), c.disjoint, self.order_seed)
            rows_of_tasks = [part.train for part in parts]
            mixed = blurred(rows_of_tasks, data.train.y, data.train.keys, moving, c.blur, self.order_seed)
            for part, rows in zip(parts, mixed, strict=True):
                part.train = rows
        return parts

    def _content(self, data: ImageData, sizes: list[int], augmentation: Augmentation) -> str:
        c: SplitConfig = self.config
        parameters: dict[str, Any] = {
            "recipe": ["split", self.version],
            "data": data.fingerprint,
            "shape": data.shape,
            "classes": sorted(data.class_names),
            "sizes": sizes,
            "scenario": c.scenario,
            "online": c.online,
            "validation": c.validation,
            "limits": [c.train_per_class, c.test_per_class, c.train_per_task, c.test_per_task],
            "blur": [c.disjoint, c.blur] if c.disjoint < 1 else None,
            "statistics": data.statistics,
            "augmentation": augmentation.as_list(),
        }
        return content_hash(parameters)


def _of(rows: Rows, classes: list[int]) -> np.ndarray:
    return np.flatnonzero(np.isin(rows.y, classes))


def _no_empty_class(home: list[int], data: ImageData, train: np.ndarray, test: np.ndarray) -> None:
    for kind, rows in (("training", data.train.y[train]), ("test", data.test.y[test])):
        missing = sorted(set(home) - set(rows.tolist()))
        if missing:
            raise UserError(
                f"{data.name}: class {data.class_names[missing[0]]!r} has no {kind} rows; add images or raise the limit"
            )


def _classes(part: Part, y: np.ndarray, order: list[int]) -> list[int]:
    """Classes in a task's training data, those at home first, each kind in the order of arrival."""
    present = set(y[part.train].tolist())
    return [c for c in part.home if c in present] + [c for c in order if c in present and c not in part.home]


def _labels(sources: list[int], label_of: np.ndarray) -> tuple[int, ...]:
    return tuple(sorted(int(label_of[source]) for source in sources))


def _order(data: ImageData, parts: list[Part]) -> str:
    return order_hash(
        [
            {
                "classes": [data.class_names[source] for source in part.home],
                "train": data.train.keys[part.train],
                "validation": data.train.keys[part.validation],
                "test": data.test.keys[part.test],
            }
            for part in parts
        ]
    )
