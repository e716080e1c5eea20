"""A task's samples as Avalanche takes them: a data set, and the experience that brings it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from clbench.objectives import Objective
from clbench.samples import Pool, Samples
from clbench.stream import Task

ROWS = 1 << 40


class Pools:
    """The stream's pools by number. They are referred to, not kept."""

    def __init__(self) -> None:
        self._known: list[weakref.ref[Pool]] = []

    def number(self, pool: Pool) -> int:
        """The pool's number; a new one where it is not known yet."""
        for number, known in enumerate(self._known):
            if known() is pool:
                return number
        self._known.append(weakref.ref(pool))
        return len(self._known) - 1

    def row(self, sample_id: int) -> tuple[Tensor, Tensor]:
        """The stored values and the label of a sample."""
        number, row = divmod(sample_id, ROWS)
        pool = self._known[number]()
        assert pool is not None, "the stream outlives the strategies that run on it"
        return pool.inputs[row], pool.labels[row]


class StoredRows(Dataset):
    """(image as stored, label) by position: uint8 [C, H, W] and int."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        row = self.samples.index[position]
        return self.samples.pool.inputs[row], int(self.samples.pool.labels[row])


class AsInput:
    """One stored image as the model gets it: augmented in the "train" view, then normalised. On the CPU."""

    def __init__(
        self, objective: Objective, view: Literal["train", "plain"], generator: Callable[[], torch.Generator]
    ) -> None:
        self._objective = objective
        self._view = view
        self._generator = generator

    def __call__(self, image: Tensor) -> Tensor:
        generator = self._generator() if self._view == "train" else None
        nothing = torch.zeros(1, dtype=torch.int64)
        return self._objective.inputs(image[None], nothing, self._view, generator)[0][0]


def data_set(samples: Samples, pool: int, objective: Objective, generator: Callable[[], torch.Generator]) -> Any:
    """An Avalanche data set that yields (x, y, 0): x float [C, H, W], y the class's place in the head.

    Its transform groups are our views: "train" augments, "eval" does not. The attribute `sample_ids` tells each
    sample's pool and row (`Pools.row`), in whatever data set Avalanche puts it later. pool: the number of the samples'.
    """
    from avalanche.benchmarks.utils import AvalancheDataset, ConstantSequence, DataAttribute
    from avalanche.benchmarks.utils.classification_dataset import TaskAwareSupervisedClassificationDataset
    from avalanche.benchmarks.utils.transform_groups import TransformGroups

    views = {
        "train": (AsInput(objective, "train", generator), None),
        "eval": (AsInput(objective, "plain", generator), None),
    }
    attributes = [
        DataAttribute(samples.labels.tolist(), "targets"),
        DataAttribute(ConstantSequence(0, len(samples)), "targets_task_labels", use_in_getitem=True),
        DataAttribute([pool * ROWS + row for row in samples.index.tolist()], "sample_ids"),
    ]
    plain = AvalancheDataset([StoredRows(samples)], data_attributes=attributes, transform_groups=TransformGroups(views))
    return TaskAwareSupervisedClassificationDataset([plain])


def experience(task: Task, data: Any, seen: set[int]) -> Any:
    """The experience of a task. It knows the classes up to now and nothing of tasks to come.

    seen: classes of earlier tasks.
    """
    from avalanche.benchmarks.scenarios import DatasetExperience, EagerCLStream

    class TaskExperience(DatasetExperience):
        """Some plugins put another data set in the place of the experience's."""

        @property
        def dataset(self) -> Any:
            return self._dataset

        @dataset.setter
        def dataset(self, value: Any) -> None:
            self._dataset = value

    classes = sorted(task.classes)
    made = TaskExperience(dataset=data, current_experience=task.index)
    made.classes_in_this_experience = classes
    made.previous_classes = sorted(seen)
    made.classes_seen_so_far = sorted(seen | set(classes))
    made.future_classes = []
    made.task_label, made.task_labels = 0, [0]
    EagerCLStream("train", [made])
    return made
