"""Avalanche's benchmarks as streams: `avalanche:SplitFMNIST`, `avalanche:PermutedMNIST`, ..."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import create_model

from clbench.data.root import data_root
from clbench.errors import UserError, did_you_mean
from clbench.extras import import_extra
from clbench.samples import Pool
from clbench.signature import signature_fields
from clbench.stream import ClassMap, EvalSet, Recipe, Stream, Task, Training

from .identity import content_hash, order_hash
from .image_data import samples
from .normalisation import statistics
from .row_keys import digest, row_keys

EXTRA = "avalanche"
# the order of classes is --order-seed's, transforms are the engine's, and classes are numbered as they arrive
GIVEN = {
    "train_transform", "eval_transform", "dataset_root", "seed", "shuffle", "class_ids_from_zero_in_each_exp",
    "class_ids_from_zero_from_first_exp",
}  # fmt: skip
SETS = {
    "SplitMNIST": "mnist", "PermutedMNIST": "mnist", "RotatedMNIST": "mnist", "SplitFMNIST": "fashion_mnist",
    "SplitCIFAR10": "cifar10", "SplitCIFAR100": "cifar100", "SplitTinyImageNet": "tiny_imagenet",
}  # fmt: skip
SMALL = 1024  # pixels of an image that a perceptron suits


@dataclass
class Part:
    """The rows of one experience: uint8 [N, C, H, W], labels as Avalanche numbers them [N], and its task label."""

    x: np.ndarray
    y: np.ndarray
    task: int


class AvalancheBenchmark(Recipe):
    """A benchmark of Avalanche 0.6, by its function's name: avalanche:SplitMNIST, avalanche:SplitFMNIST, ...

    Names are those of avalanche.benchmarks.classic; a function's plain arguments are settings, n_experiences above all.
    Its images are read once, without transforms; classes are numbered in the order in which they arrive. With
    `return_task_id=true` the stream is task-incremental; where every experience has the same classes it is
    domain-incremental. `--order-seed N` is Avalanche's `seed`; 0 stands for `shuffle=False`, or for seed 0 where the
    seed makes the images (permutations). The data lie in, or are downloaded by Avalanche to, DATA/avalanche.
    """

    function: ClassVar[Any] = None
    arguments: ClassVar[dict[str, str]] = {}

    @classmethod
    def member(cls, name: str) -> type[Recipe]:
        """The recipe of this benchmark. Raises UserError where there is none, or Avalanche is not installed."""
        return _member(name)

    def build(self) -> Stream:
        trained, tested = self._parts()
        classes = [sorted(set(part.y.tolist())) for part in trained]
        arrived = list(dict.fromkeys(label for present in classes for label in present))
        unknown = sorted({label for part in tested for label in part.y.tolist()} - set(arrived))
        if unknown:
            raise UserError(f"{self.name}: class {unknown[0]} occurs in test data only")
        scenario = _scenario(trained, classes)
        names = [str(label) for label in arrived]
        train, train_rows, train_keys = _pool(trained, arrived, names)
        test, test_rows, test_keys = _pool(tested, arrived, names)
        tasks, sets, seen = [], [], set[int]()
        for index, (rows, test_of) in enumerate(zip(train_rows, test_rows, strict=True)):
            present = _labels(train, rows)
            new = tuple(label for label in present if label not in seen)
            tasks.append(Task(index, f"task{index}", samples(train, rows), classes=present, new_classes=new))
            sets.append(EvalSet(f"task{index}", samples(test, test_of), index, _labels(test, test_of)))
            seen.update(present)
        shape = tuple(train.inputs.shape[1:])
        mean, std = statistics(SETS.get(self.function.__name__, ""), {}, shape[0])
        data = {"train": digest(train_keys), "test": digest(test_keys)}
        return Stream(
            name=self.name,
            objective="classification",
            tasks=tuple(tasks),
            eval_sets=tuple(sets),
            content=content_hash(
                {
                    "recipe": ["avalanche", self.version, self.function.__name__, self.config.model_dump(mode="json")],
                    "data": data,
                    "shape": shape,
                    "scenario": scenario,
                    "statistics": [mean, std],
                }
            ),
            order=order_hash(
                [
                    {"classes": [names[k] for k in task.classes], "train": train_keys[r], "test": test_keys[t]}
                    for task, r, t in zip(tasks, train_rows, test_rows, strict=True)
                ]
            ),
            input_shape=shape,
            scenario=scenario,
            classes=ClassMap(tuple(names), tuple(arrived)),
            initial_classes=len(arrived) if scenario == "domain" else 0,
            mean=mean,
            std=std,
            training=Training(),
            default_model="mlp" if shape[0] * shape[1] * shape[2] <= SMALL else "slim-resnet18",
        )

    def _parts(self) -> tuple[list[Part], list[Part]]:
        root = data_root(self.data_root) / "avalanche"
        given: dict[str, Any] = {
            "train_transform": None,
            "eval_transform": None,
            "dataset_root": root / SETS.get(self.function.__name__, self.function.__name__.lower()),
            "seed": self.order_seed,
            "shuffle": self.order_seed > 0,
        }
        accepted = inspect.signature(self.function).parameters
        own = {argument: getattr(self.config, field) for field, argument in self.arguments.items()}
        try:
            with redirect_stdout(StringIO()):
                made = self.function(**own, **{name: value for name, value in given.items() if name in accepted})
            streams = made.train_stream, made.test_stream
            read = tuple([_part(each) for each in stream] for stream in streams)
        except UserError as error:
            raise UserError(f"{self.name}: {error}") from None
        except Exception as error:
            message = " ".join(str(error).split())
            raise UserError(
                f"{self.name}: Avalanche cannot build it: {type(error).__name__}: {message} "
                f"(its data belong in {given['dataset_root']}, in the form in which it downloads them)"
            ) from None
        if len(read[0]) != len(read[1]):
            raise UserError(
                f"{self.name} has {len(read[0])} training and {len(read[1])} test experiences; a stream needs a test "
                "set for each task"
            )
        return read[0], read[1]


def _part(made: Any) -> Part:
    data = made.dataset.eval()
    rows = [data[position] for position in range(len(data))]
    if not rows:
        raise UserError(f"experience {made.current_experience} has no samples")
    images = [_image(row[0]) for row in rows]
    if any(image.shape != images[0].shape for image in images):
        raise UserError("its images are of several sizes; clbench cuts streams from images of one size")
    return Part(np.stack(images), np.array([int(row[1]) for row in rows], np.int64), int(made.task_labels[0]))


def _image(value: Any) -> np.ndarray:
    """uint8 [C, H, W] of a PIL image, or of a tensor of such values or of values in [0, 1]."""
    if not isinstance(value, torch.Tensor):
        array = np.asarray(value)
        return np.ascontiguousarray(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))
    if value.is_floating_point():
        scaled = value * 255
        if value.min() < 0 or value.max() > 1 or not torch.allclose(scaled, scaled.round(), atol=1e-3):
            raise UserError("its images are not made of 8-bit pixels; clbench needs them before any normalisation")
        value = scaled.round()
    return value.to(torch.uint8).numpy()


def _scenario(parts: Sequence[Part], classes: Sequence[Sequence[int]]) -> Literal["class", "task", "domain"]:
    if len({part.task for part in parts}) > 1:
        return "task"
    return "domain" if len(parts) > 1 and all(each == classes[0] for each in classes) else "class"


def _pool(
    parts: Sequence[Part], arrived: Sequence[int], names: Sequence[str]
) -> tuple[Pool, list[np.ndarray], np.ndarray]:
    """All rows in one pool, the numbers of each part's rows, and all rows' keys."""
    label_of = np.zeros(max(arrived) + 1, np.int64)
    label_of[list(arrived)] = np.arange(len(arrived))
    x = np.concatenate([part.x for part in parts])
    y = label_of[np.concatenate([part.y for part in parts])]
    keys = row_keys(x, y, names)
    starts = np.cumsum([0, *(len(part.y) for part in parts)])
    rows = [np.arange(start, end) for start, end in pairwise(starts)]
    fingerprint = f"{x.shape[1:]}-{digest(keys, ordered=True)}"
    return Pool(torch.from_numpy(x), torch.from_numpy(y), fingerprint), rows, keys


def _labels(pool: Pool, rows: np.ndarray) -> tuple[int, ...]:
    return tuple(sorted(set(pool.labels[torch.from_numpy(rows)].tolist())))


@cache
def _member(name: str) -> type[Recipe]:
    classic = import_extra("avalanche.benchmarks.classic", EXTRA)
    known = {
        key: value
        for key, value in vars(classic).items()
        if inspect.isfunction(value) and value.__module__.startswith("avalanche") and key[0].isupper()
    }
    if name not in known:
        raise UserError(f"Avalanche has no benchmark {name!r}{did_you_mean(name, known)} ({', '.join(sorted(known))})")
    taken = set(Recipe.Config.model_fields)
    fields, arguments = signature_fields(known[name], GIVEN, taken, f"avalanche:{name}", "Avalanche's signature")
    config = create_model("Config", __base__=Recipe.Config, **fields)  # type: ignore[call-overload]
    doc = (inspect.getdoc(known[name]) or name).strip()
    members = {"Config": config, "function": staticmethod(known[name]), "arguments": arguments}
    return type(name, (AvalancheBenchmark,), {**members, "__module__": __name__, "__doc__": doc})
