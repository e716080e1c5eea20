"""Streams of concepts from any collection of image sets: the recipe behind fomo and mtil."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

from clbench.captions import Captions
from clbench.errors import UserError
from clbench.samples import Pool
from clbench.stream import Augmentation, ClassMap, EvalSet, PoolMixture, Recipe, Stream, Task, Training

from .fomo_arrival import Arrived, arrive
from .fomo_concepts import Concept, Limits, concepts_of
from .fomo_config import FomoConfig
from .fomo_file import digest_of
from .fomo_report import task_reports
from .fomo_roles import roles
from .fomo_rows import Rows, all_rows
from .fomo_source import SourceSet, read_sets
from .fomo_texts import texts_of
from .identity import content_hash, order_hash
from .image_data import samples
from .pretraining import overlap
from .row_keys import digest

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CARVE = 0.2


class Fomo(Recipe):
    """Concepts (classes with captions) of many image sets, a few at a time: FoMo-in-Flux from sets of your own.

    Every batch is made of pre-training data, the task's and earlier tasks' (`mixture`). Evaluated are the sets adapted
    to and sets held out, each among its own classes, before training and after every task. AdamW at 1e-4 with weight
    decay 0.05 suits the embedded model (clbench: a fifth of the rate it was trained with); batches of 128, warm-up over
    a tenth and a cosine to a thousandth in every task, gradients clipped at 1, as in FoMo-in-Flux (arXiv 2408.14471).
    """

    class Config(FomoConfig):
        """See `FomoConfig`."""

    training: ClassVar[Training] = Training(
        optimizer="adamw",
        lr=1e-4,
        weight_decay=0.05,
        batch_size=128,
        epochs=3,
        schedule="rewarm-cosine:warmup=0.1,floor=0.001",
        clip=1.0,
    )
    default_model: ClassVar[str] = "micro-clip"

    @cached_property
    def settings(self) -> FomoConfig:
        """The settings, settled."""
        return self.settle(self.config)

    def settle(self, config: FomoConfig) -> FomoConfig:
        """Settings that follow from others filled in."""
        return config

    def sets(self) -> list[SourceSet]:
        """The sets in their roles."""
        c = self.settings
        wanted = roles(self.name, c.sets, c.held_out, c.pretraining)
        return read_sets(self.name, wanted, self.data_root, c.size, c.years)

    def build(self) -> Stream:
        c = self.settings
        sets = self.sets()
        concepts = concepts_of(
            sets,
            Limits(c.max_concepts, c.train_per_concept, c.test_per_concept, c.pool_per_concept),
            carve=self._carve(sets),
            validation=c.validation,
            pool_held_out=c.pool_held_out,
        )
        arrived = arrive(self.name, c, sets, concepts, self.order_seed, self.default_model)
        labels = {id(concept): label for label, concept in enumerate(arrived.all)}
        rows = all_rows([concept for concept in concepts if id(concept) in labels])
        pool = rows.pool(labels)
        captions = texts_of(arrived.all, rows, c.captions, self._retrieval(sets))
        mixture = self._mixture(pool, rows, arrived)
        stream = Stream(
            name=self.name,
            objective="contrastive",
            tasks=tuple(self._tasks(pool, rows, arrived, labels)),
            eval_sets=tuple(self._eval_sets(pool, rows, arrived, labels)),
            content=self._content(rows, arrived, captions),
            order=self._order(rows, arrived),
            input_shape=(3, c.size, c.size),
            classes=ClassMap(captions.concepts, tuple(range(len(captions.concepts)))),
            initial_classes=len(captions.concepts),
            mean=CLIP_MEAN,
            std=CLIP_STD,
            augmentation=Augmentation(crop=c.crop),
            training=self.training,
            default_model=self.default_model,
            captions=captions,
            contrast=c.contrast(),
            pretraining=samples(pool, rows.train_of(arrived.all, "pretraining", "held-out")),
            mixture=mixture,
            pretraining_overlap=overlap([each.name for each in sets if each.role != "pretraining"]),
        )
        return _noted(stream, arrived)

    # -- roles and the mixture -----------------------------------------------------------------------------------

    def _carve(self, sets: list[SourceSet]) -> float:
        c = self.settings
        if c.carve is not None:
            return c.carve
        made = c.stream_file is not None or c.pool_held_out or any(each.role == "pretraining" for each in sets)
        return CARVE if c.pool_share and not made else 0.0

    def _mixture(self, pool: Pool, rows: Rows, arrived: Arrived) -> PoolMixture | None:
        c = self.settings
        before = samples(pool, rows.train_of(arrived.all, "pretraining", "held-out"))
        if c.pool_share and not len(before):
            raise UserError(
                f"{self.name}: mixture={c.mixture} draws from a pre-training pool, and there is none: name "
                "pretraining=[...], carve=0.2, or mixture=[0,0.5,0.5]"
            )
        if c.mixture[1] == 1:
            return None
        shares = (c.mixture[0], c.mixture[1], c.mixture[2])
        return PoolMixture(shares, before if c.pool_share else None, c.buffer)

    def _retrieval(self, sets: list[SourceSet]) -> frozenset[str]:
        """Names of the sets that are scored by retrieval."""
        names = frozenset(self.settings.retrieval)
        for name in names:
            each = next((each for each in sets if each.name == name and each.role != "pretraining"), None)
            if each is None:
                raise UserError(f"{self.name}: retrieval names {name}, which is no evaluated set of the stream")
            if "test" not in each.captions:
                raise UserError(
                    f"{self.name}: {name} has no captions of its images to be retrieved: add a column `caption`, or "
                    "captions.json"
                )
        return names

    # -- parts of the stream -------------------------------------------------------------------------------------

    def _tasks(self, pool: Pool, rows: Rows, arrived: Arrived, labels: dict[int, int]) -> list[Task]:
        tasks = []
        for index, concepts in enumerate(arrived.tasks):
            validation = rows.of(concepts, "validation")
            classes = tuple(labels[id(concept)] for concept in concepts)
            tasks.append(
                Task(
                    index=index,
                    name=self.task_name(index, concepts),
                    train=samples(pool, rows.of(concepts, "train")),
                    validation=samples(pool, validation) if len(validation) else None,
                    classes=classes,
                    new_classes=classes,
                )
            )
        return tasks

    def task_name(self, index: int, concepts: list[Concept]) -> str:
        """A task's name: its number."""
        return f"task{index}"

    def _eval_sets(self, pool: Pool, rows: Rows, arrived: Arrived, labels: dict[int, int]) -> list[EvalSet]:
        """One a set, then one a task, whose images have the classes of their sets for candidates."""
        adapted, held_out = _by_set(arrived.adapted), _by_set(arrived.held_out)
        retrieval, found = frozenset(self.settings.retrieval), list[EvalSet]()
        for role, sets in (("adaptation", adapted), ("held-out", held_out)):
            for name, concepts in sets.items():
                found.append(
                    EvalSet(
                        name=name if role == "adaptation" or name not in adapted else f"{name} (held out)",
                        data=samples(pool, rows.of(concepts, "test")),
                        belongs_to=None,
                        classes=tuple(sorted(labels[id(concept)] for concept in concepts)),
                        kind="retrieval" if name in retrieval else "classification",
                        role=role,  # type: ignore[arg-type]
                    )
                )
        for index, concepts in enumerate(arrived.tasks):
            scored = [concept for concept in concepts if concept.source.name not in retrieval]
            if not scored:
                continue
            touched = {concept.source.name for concept in scored}
            candidates = [labels[id(concept)] for name in touched for concept in adapted[name]]
            data = samples(pool, rows.of(scored, "test"))
            found.append(EvalSet(f"task{index}", data, index, classes=tuple(sorted(candidates))))
        return found

    # -- identity ------------------------------------------------------------------------------------------------

    def _content(self, rows: Rows, arrived: Arrived, captions: Captions) -> str:
        c = self.settings
        texts = dict(zip(captions.concepts, captions.texts, strict=True))
        parameters: dict[str, Any] = {
            "recipe": ["fomo", self.version],
            "size": c.size,
            "concepts": sorted(f"{concept.role}:{concept.key}" for concept in arrived.all),
            "rows": digest(rows.keys),
            "captions": [c.captions, sorted([key, *said] for key, said in texts.items())],
            "own_captions": sorted(captions.of_row.items()),
            "order": c.ordering if c.stream_file is None else digest_of([each.key for each in arrived.adapted]),
            "tasks": len(arrived.tasks),
            "mixture": [c.mixture, c.buffer],
            "scored": [c.label_space, c.prompts, c.recall_at, sorted(c.retrieval)],
            "augmentation": Augmentation(crop=c.crop).as_list(),
            "statistics": [CLIP_MEAN, CLIP_STD],
        }
        return content_hash(parameters)

    def _order(self, rows: Rows, arrived: Arrived) -> str:
        return order_hash(
            [
                {"concepts": [each.key for each in concepts], "train": rows.keys[rows.of(concepts, "train")]}
                for concepts in arrived.tasks
            ]
        )


def _by_set(concepts: list[Concept]) -> dict[str, list[Concept]]:
    """Concepts by their set's name, sets by name."""
    found: dict[str, list[Concept]] = {}
    for concept in concepts:
        found.setdefault(concept.source.name, []).append(concept)
    return dict(sorted(found.items()))


def _noted(stream: Stream, arrived: Arrived) -> Stream:
    """The stream with a note: which concepts, in which order, and how the sets mix in the tasks."""
    keys = [concept.key for concept in arrived.adapted]
    reports = task_reports(stream)
    mean = sum(report.divergence for report in reports) / len(reports)
    notes = (
        f"{len(keys)} concepts of {len(_by_set(arrived.adapted))} sets in {len(arrived.tasks)} tasks, "
        f"{len(_by_set(arrived.held_out))} sets held out, {len(arrived.pool)} concepts in the pre-training pool; "
        f"order sha256 {digest_of(keys)}; sets a task "
        f"{min(r.sets for r in reports)} to {max(r.sets for r in reports)}, divergence of their mix {mean:.3f} bits"
    )
    return replace(stream, notes=notes)
