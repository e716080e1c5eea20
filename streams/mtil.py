"""MTIL and X-TAIL: one data set after another, for models of images and texts."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from clbench.config import setting
from clbench.errors import UserError
from clbench.samples import Pool
from clbench.stream import Task, Training

from .fomo import Fomo
from .fomo_arrival import Arrived
from .fomo_concepts import Concept
from .fomo_config import FomoConfig
from .fomo_rows import Rows
from .fomo_source import Role, SourceSet, read_sets

ORDER_I = [
    "aircraft",
    "caltech101",
    "cifar100",
    "dtd",
    "eurosat",
    "flowers102",
    "food101",
    "mnist",
    "oxford_pet",
    "stanford_cars",
    "sun397",
]
"""Alphabetical, as ZSCL (Zheng et al. 2023) runs it."""

ORDER_II = [ORDER_I[place] for place in (9, 6, 7, 8, 5, 10, 0, 1, 3, 4, 2)]
"""ZSCL's second order: cars, food, digits, pets, flowers, scenes, aircraft, objects, textures, satellite, CIFAR-100."""

MTIL = "ZSCL (Zheng et al. 2023, arXiv 2303.06628)"
XTAIL = "X-TAIL (Xu et al. 2024, arXiv 2406.18868)"


class Mtil(Fomo):
    """Eleven image sets, one a task, each classified among its own classes (MTIL), or ten among all classes (X-TAIL).

    A set is a name of the data root, or a folder of `folder`. Other sets can take the place of the eleven. Every set is
    evaluated before training and after every task, those to come as well. AdamW at 1e-5 in batches of 64, a cosine
    after a tenth of warm-up, without weight decay, as ZSCL's code for ViT-B/16; its 1000 steps a task are
    `--set steps=1000`.
    """

    class Config(FomoConfig):
        sets: list[str] = setting([], "sets in the place of the eleven, in order I", source=MTIL)
        order: Literal["I", "II"] = setting("I", "I: alphabetical; II: ZSCL's other order of the eleven", source=MTIL)
        protocol: Literal["mtil", "x-tail"] = setting(
            "mtil",
            "mtil: all images, an image's set is known; x-tail: 16 images of a class, classified among the classes of "
            "all sets, without cifar100",
            source=f"{MTIL}; {XTAIL}",
        )
        folder: str | None = setting(None, "a folder with one folder for each set; none: the data root", source="none")
        shots: int | None = setting(
            None, "training images of a class; none: all, 16 with x-tail", source=f"{MTIL}; {XTAIL}", ge=1
        )
        ordering: str = setting("listed", "the order of classes (see fomo)", source=MTIL)
        held_out: list[str] | None = setting([], "further sets that are never trained on", source="none")
        captions: Literal["primer", "templates", "rich", "attr"] = setting(
            "primer", "primer: one template a set (see fomo)", source=MTIL
        )
        mixture: list[float] = setting(
            [0.0, 1.0, 0.0], "shares of every batch: pre-training pool, task, earlier tasks", source=MTIL
        )
        size: int = setting(224, "side of the square images in pixels", source=MTIL, ge=1)

    training: ClassVar[Training] = Training(
        optimizer="adamw",
        lr=1e-5,
        weight_decay=0.0,
        batch_size=64,
        epochs=1,
        schedule="rewarm-cosine:warmup=0.1,floor=0",
    )
    default_model: ClassVar[str] = "open_clip:ViT-B-16/openai"

    def settle(self, config: FomoConfig) -> FomoConfig:
        assert isinstance(config, Mtil.Config)
        cross = config.protocol == "x-tail"
        shots = config.shots or (16 if cross else None)
        limit = config.train_per_concept if shots is None else shots
        space = "union" if cross else config.label_space
        return config.model_copy(update={"train_per_concept": limit, "label_space": space})

    def sets(self) -> list[SourceSet]:
        c = self.settings
        assert isinstance(c, Mtil.Config)
        if c.sets and c.order == "II":
            raise UserError(f"{self.name}: order=II is one of the eleven sets; list your own sets in their order")
        names = c.sets or (ORDER_I if c.order == "I" else ORDER_II)
        if c.protocol == "x-tail" and not c.sets:
            names = [name for name in names if name != "cifar100"]
        where = "" if c.folder is None else f"{c.folder.rstrip('/')}/"
        wanted: list[tuple[str, Role]] = [(f"{where}{name}", "adaptation") for name in names]
        wanted += [(name, "held-out") for name in c.held_out or []]
        wanted += [(name, "pretraining") for name in c.pretraining]
        return read_sets(self.name, wanted, self.data_root, c.size, c.years)

    def _tasks(self, pool: Pool, rows: Rows, arrived: Arrived, labels: dict[int, int]) -> list[Task]:
        """Tasks of equal names, where sets come in several, are numbered."""
        tasks = super()._tasks(pool, rows, arrived, labels)
        names = [task.name for task in tasks]
        return [
            replace(task, name=f"{name} ({names[: i + 1].count(name)})") if names.count(name) > 1 else task
            for i, (name, task) in enumerate(zip(names, tasks, strict=True))
        ]

    def task_name(self, index: int, concepts: list[Concept]) -> str:
        """A task's name: its set's."""
        return concepts[0].source.name
