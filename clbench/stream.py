"""Streams: an ordered sequence of tasks plus the sets they are evaluated on.

A stream file (in `streams/` or anyone's package) holds `Recipe` subclasses; `Recipe.build()` returns a `Stream`.
Classes are numbered in the order in which the stream brings them: a label *is* its position in the head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from clbench.captions import Captions, Contrast
from clbench.config import Config

if TYPE_CHECKING:
    from clbench.samples import Samples

Scenario = Literal["class", "task", "domain"]


@dataclass(frozen=True)
class Task:
    """One task. `classes` are the labels that occur in it; `new_classes` those no earlier task had."""

    index: int
    name: str
    train: Samples
    validation: Samples | None = None
    classes: tuple[int, ...] = ()
    new_classes: tuple[int, ...] = ()


@dataclass(frozen=True)
class EvalSet:
    """A set to be scored. `belongs_to` is its task's index, or None for a held-out set (in no task).

    `classes`: labels that occur in it. `bytes_per_target`: text only, bytes one target token stands for.
    `kind`, `role`: of streams of images with captions. Which score the set gets, and whether it is one of the sets the
    stream adapts to or one held out to measure what was known before; "" where a stream has no such parts.
    """

    name: str
    data: Samples
    belongs_to: int | None
    classes: tuple[int, ...] = ()
    bytes_per_target: float = 1.0
    kind: Literal["classification", "retrieval"] = "classification"
    role: Literal["", "adaptation", "held-out"] = ""


@dataclass(frozen=True)
class ClassMap:
    """Names of the classes by label, and the numbers they had in the source."""

    names: tuple[str, ...]
    original: tuple[int, ...]


@dataclass(frozen=True)
class Augmentation:
    """Training-time augmentation, drawn per sample: random crop after zero padding, crop of random area and shape that
    is resized to the image's size (`crop`: the smallest share of the area; 0: none), horizontal flip."""

    pad: int = 0
    flip: bool = False
    crop: float = 0.0

    def as_list(self) -> list[float]:
        """What is set, for hashes; a stream without `crop` keeps the hash it had before there was one."""
        return [self.pad, self.flip, *([self.crop] if self.crop else [])]


@dataclass(frozen=True)
class Training:
    """What a stream recommends where neither the strategy nor the user says: published or stated in its docs."""

    optimizer: str = "sgd"
    lr: float = 0.03
    momentum: float = 0.0
    weight_decay: float = 0.0
    batch_size: int = 32
    epochs: float = 1.0
    schedule: str = "constant"
    clip: float | None = None


@dataclass(frozen=True)
class PoolMixture:
    """What every batch of a stream is made of, whatever the strategy: shares of pre-training data, of the current task
    and of all earlier tasks.

    shares: of (pretraining, task, buffer), at least 0, summing to 1. pretraining: the data of the first; None where
    their share is 0. capacity: how many samples of earlier tasks may be drawn again, evenly from their classes; None:
    all.
    """

    shares: tuple[float, float, float]
    pretraining: Samples | None = None
    capacity: int | None = None


@dataclass(frozen=True)
class Stream:
    """Tasks in order, evaluation sets, and what identifies them.

    objective: "classification", "language_modeling" or "contrastive" (the key of an `Objective`).
    content: hash of decoded data, labels and construction parameters without the order seed: what may stand on one
    board. order: hash of the tasks' order and make-up: which runs are paired.
    initial_classes: classes known before training (all of them where the label space never grows, else 0).
    mean, std: per channel in [0, 1] units, constants of the source (never computed from later tasks).
    input_shape: (C, H, W) of an image or (context,) of a token block; vocabulary: number of token ids.
    single_pass: each task's data may be seen once ("online"); the engine enforces it.
    pretraining_overlap: which usual pretraining data show the stream's classes; "" where none is known to. A backbone
    pretrained on such data has seen later tasks' concepts.
    captions, contrast: of a contrastive stream: the texts that go with its images, a label being the number of a
    concept; and how they are learned and scored.
    pretraining: data of what a model knows before the stream, where the stream has any. mixture: what every batch of a
    phase with an optimiser is made of, unless the phase has sources of its own; None: the phase's data alone.
    """

    name: str
    objective: str
    tasks: tuple[Task, ...]
    eval_sets: tuple[EvalSet, ...]
    content: str
    order: str
    input_shape: tuple[int, ...]
    scenario: Scenario = "class"
    classes: ClassMap | None = None
    initial_classes: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    vocabulary: int | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    training: Training = field(default_factory=Training)
    default_model: str = "slim-resnet18"
    feature_model: str = "pixels"
    single_pass: bool = False
    notes: str = ""
    pretraining_overlap: str = ""
    captions: Captions | None = None
    contrast: Contrast = field(default_factory=Contrast)
    pretraining: Samples | None = None
    mixture: PoolMixture | None = None


class Recipe(ABC):
    """How a stream is built from its settings. Subclasses: a docstring whose first line is the summary, a `Config`
    with a default and a source for each setting, and `build`.

    `name` is what the user typed. `data_root` is where data sets lie (None: the default, see `clbench.data`).
    `order_seed` permutes classes or tasks; 0 keeps the source's order. Raise `UserError` for bad settings or data.
    `pretraining_overlap`: see `Stream`; `clbench show stream` prints it.
    """

    class Config(Config):
        """No settings."""

    version: ClassVar[int] = 1
    pretraining_overlap: ClassVar[str] = ""

    def __init__(self, name: str, config: Any, *, order_seed: int = 0, data_root: Path | None = None) -> None:
        self.name = name
        self.config = config
        self.order_seed = order_seed
        self.data_root = data_root

    @abstractmethod
    def build(self) -> Stream:
        """Read the data and cut it into tasks."""
