"""Concepts: the classes of the sets, one by one, with the images that the limits leave of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from clbench.captions import SEPARATOR
from clbench.errors import UserError

from .choosing import by_key, hold_out, limited
from .fomo_source import Role, SourceSet
from .image_data import Rows
from .keyed import draw

NONE = np.empty(0, np.int64)
FEWEST_TO_CARVE = 3
"""Of fewer classes one would be left, which is always right."""


@dataclass
class Concept:
    """A class of a set: its source number, and rows of the set's training and test data, int64."""

    source: SourceSet
    label: int
    role: Role
    train: np.ndarray = field(default_factory=lambda: NONE)
    validation: np.ndarray = field(default_factory=lambda: NONE)
    test: np.ndarray = field(default_factory=lambda: NONE)

    @property
    def class_name(self) -> str:
        return self.source.data.class_names[self.label]

    @property
    def said(self) -> str:
        """The class's name as captions say it."""
        return self.source.said[self.label]

    @property
    def key(self) -> str:
        return f"{self.source.name}{SEPARATOR}{self.class_name}"


@dataclass(frozen=True)
class Limits:
    """At most so many concepts of a set, and images of a concept; None: all."""

    concepts: int | None = None
    train: int | None = None
    test: int | None = None
    pool: int | None = None


def concepts_of(
    sets: Sequence[SourceSet], limits: Limits, *, carve: float = 0, validation: float = 0, pool_held_out: bool = False
) -> list[Concept]:
    """The concepts of all sets, in their order.

    carve: the share of every adaptation set's classes, those with the smallest draws, that go to the pre-training
    pool: rounded down, but one at least of three classes and more. validation: the share of their images that
    adaptation concepts keep apart. pool_held_out: whether held-out concepts have training rows. Which classes and
    images are taken hangs on the set and the class alone.
    """
    if carve and not any(each.role == "pretraining" or len(each.classes) >= FEWEST_TO_CARVE for each in sets):
        raise UserError(
            f"carve={carve}: no set has {FEWEST_TO_CARVE} classes, of which one could go to the pre-training pool; "
            "name pretraining=[...], or mixture=[0,0.5,0.5] without a pool"
        )
    found: list[Concept] = []
    for each in sets:
        carved, kept = _chosen(each, limits.concepts, carve)
        for label in each.classes:
            if label not in carved and label not in kept:
                continue
            concept = Concept(each, label, "pretraining" if label in carved else each.role)
            _take_test(concept, limits)
            if concept.role != "held-out" or pool_held_out:
                _take_train(concept, limits, validation if concept.role == "adaptation" else 0)
            found.append(concept)
    return found


def _chosen(each: SourceSet, most: int | None, carve: float) -> tuple[set[int], set[int]]:
    """(classes for the pool, classes in the set's own role)."""
    names = each.data.class_names

    def drawn(labels: Sequence[int], purpose: str) -> list[int]:
        return sorted(labels, key=lambda label: draw(0, purpose, each.name, names[label]))

    n = len(each.classes)
    share = carve if each.role == "adaptation" else 0
    least = 1 if share and n >= FEWEST_TO_CARVE else 0
    carved = set(drawn(each.classes, "carve")[: max(least, math.floor(share * n + 1e-9))])
    rest = [label for label in each.classes if label not in carved]
    return carved, set(drawn(rest, "concept")[:most])


def _take_test(concept: Concept, limits: Limits) -> None:
    """Test rows; of the pre-training none are used."""
    rows = concept.source.data.test
    of_class = np.flatnonzero(rows.y == concept.label)
    if concept.role != "pretraining":
        concept.test = _limited(concept, rows, of_class, limits.test, "test")


def _take_train(concept: Concept, limits: Limits, validation: float) -> None:
    data = concept.source.data
    most = limits.train if concept.role == "adaptation" else limits.pool
    rows = _limited(concept, data.train, np.flatnonzero(data.train.y == concept.label), most, "training")
    train, held = hold_out(rows, data.train.y, data.train.keys, validation, data.class_names)
    concept.train, concept.validation = by_key(train, data.train.keys), by_key(held, data.train.keys)


def _limited(concept: Concept, rows: Rows, of_class: np.ndarray, most: int | None, kind: str) -> np.ndarray:
    if not len(of_class):
        raise UserError(f"{concept.source.name}: class {concept.class_name!r} has no {kind} images; add some")
    return limited(of_class, rows.y, rows.keys, most, None)
