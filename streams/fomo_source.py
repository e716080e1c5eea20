"""The image sets a fomo stream is made of: their images, the classes taken, their templates and captions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from clbench.captions import SEPARATOR
from clbench.data.cache import beside
from clbench.data.captions import read_captions
from clbench.data.images import load_images
from clbench.data.official import open_set
from clbench.data.root import canonical
from clbench.errors import UserError

from .fomo_captions import said, templates_of
from .fomo_procedural import generated_set, is_generated, template
from .image_data import ImageData, Rows, read_images
from .normalisation import statistics
from .row_keys import row_keys

Role = Literal["adaptation", "held-out", "pretraining"]
Texts = list[tuple[str, ...]]
PART = re.compile(r"(.+)@(\d+)/(\d+)")
TASK = re.compile(r"task\d+")


@dataclass
class SourceSet:
    """One set in one role.

    name: as concepts say it. classes: the source numbers of those taken. primer, templates: see `concept_texts`.
    descriptions: what is said of a class. captions: of the rows of either split, where the set has any. style: of a
    generated set.
    """

    name: str
    role: Role
    data: ImageData
    classes: list[int]
    primer: str
    templates: tuple[str, ...]
    year: int | None = None
    descriptions: Mapping[str, str] = field(default_factory=dict)
    captions: Mapping[str, Texts] = field(default_factory=dict)
    style: str = ""

    @property
    def trained_on(self) -> str:
        """Which training images these are, of all classes; of a set without any, which test images."""
        train, _, test = self.data.fingerprint.partition("/")
        return train or test

    @cached_property
    def said(self) -> list[str]:
        """The classes' names as captions say them, by source number."""
        return said(self.data.class_names)


def read_sets(
    stream: str, wanted: Sequence[tuple[str, Role]], root: Path | None, size: int, years: Mapping[str, int]
) -> list[SourceSet]:
    """The sets of (name, role) pairs, every image 3 x size x size. Raises UserError.

    A set has one role, unless its parts share its classes out.
    """
    found: list[SourceSet] = []
    given = {canonical(name): year for name, year in years.items()}
    for text, role in wanted:
        each = _read(text, role, root, size)
        each.year = given.get(canonical(each.name), each.year)
        _check_names(stream, each)
        _check_role(stream, text, each, found)
        found.append(each)
    return found


def set_name(text: str) -> str:
    """What is named, without the part of it that is taken."""
    part = PART.fullmatch(text)
    return part[1] if part else text


def _read(text: str, role: Role, root: Path | None, size: int) -> SourceSet:
    name = set_name(text)
    if is_generated(name):
        return _generated(text, role, size)
    source = None if name == "digits" else open_set(name, root)
    captions: dict[str, Texts] = {}
    alone = source is not None and role == "held-out" and "train" not in source.splits
    if source is not None:
        splits = ("train",) if role == "pretraining" else ("test",) if alone else ("train", "test")
        read = {split: read_captions(source, source.resolve(split)) for split in splits}
        captions = {split: texts for split, texts in read.items() if texts is not None}
        if not source.named and not captions:
            raise UserError(
                f"{name} has no class names, and captions are made of them: add class_names to "
                f"{source.path / 'info.json'}"
            )
    if alone or (role == "pretraining" and source is not None):
        data = _one_split(name, "test" if alone else "train", root, size)
    else:
        data = read_images(name, root, size, 3)
    info: dict[str, Any] = {"caption_template": "a handwritten digit {}"} if source is None else source.info
    _check_template(name, info)
    primer, templates = templates_of(info)
    about, year = info.get("class_descriptions"), _year(info.get("year"))
    return SourceSet(
        name=data.name,
        role=role,
        data=data,
        classes=_part(text, len(data.class_names)),
        primer=primer,
        templates=templates,
        year=year,
        descriptions={k: v for k, v in about.items() if isinstance(v, str)} if isinstance(about, dict) else {},
        captions=captions,
    )


def _one_split(name: str, split: Literal["train", "test"], root: Path | None, size: int) -> ImageData:
    """A set of the pool, of which no test images are needed; or one held out that has no others."""
    images = load_images(name, split, root, size=size, channels=3)
    keys = beside(images.cache_key, "row-keys", lambda: row_keys(images.x, images.y, images.class_names))
    rows, none = Rows(images.x, images.y, keys), Rows(images.x[:0], images.y[:0], keys[:0])
    train, test = (rows, none) if split == "train" else (none, rows)
    stats = statistics(images.name, images.info, 3)
    fingerprint = images.fingerprint if split == "train" else f"/{images.fingerprint}"
    return ImageData(images.name, images.class_names, train, test, stats, fingerprint)


def _generated(text: str, role: Role, size: int) -> SourceSet:
    name = set_name(text)
    data = generated_set(name, size)
    primer, templates = templates_of({}, template(name))
    style = name.partition(":")[2]
    return SourceSet(name, role, data, _part(text, len(data.class_names)), primer, templates, style=style)


def _part(text: str, n: int) -> list[int]:
    """The source numbers that the name asks for: all, or every N-th."""
    part = PART.fullmatch(text)
    if part is None:
        return list(range(n))
    first, step = int(part[2]), int(part[3])
    if not 0 <= first < step:
        raise UserError(f"{text}: NAME@I/N takes every N-th class from class I on, with I from 0 to N - 1")
    if first >= n:
        raise UserError(f"{text}: the set has {n} classes, none is taken")
    return list(range(first, n, step))


def _year(stated: object) -> int | None:
    """2014 or "2014"."""
    if isinstance(stated, str) and stated.strip().isdecimal():
        return int(stated)
    return stated if isinstance(stated, int) else None


def _check_template(name: str, info: Mapping[str, Any]) -> None:
    more = info.get("caption_templates")
    for text in (info.get("caption_template"), *(more if isinstance(more, list) else ())):
        if text is not None and not (isinstance(text, str) and "{}" in text):
            raise UserError(f"{name}: the caption template {text!r} in its info.json has no {{}} for the class; add it")


def _check_names(stream: str, each: SourceSet) -> None:
    names = each.data.class_names
    twice = next((names[label] for label in each.classes if names.count(names[label]) > 1), None)
    if twice is not None:
        raise UserError(f"{stream}: a concept twice: {each.name} has two classes {twice!r}; rename one in info.json")
    if SEPARATOR in each.name:
        raise UserError(f"{stream}: {each.name!r}: {SEPARATOR} parts a set's name from a class's; rename the folder")
    if TASK.fullmatch(each.name) and each.role != "pretraining":
        raise UserError(f"{stream}: {each.name} is what the evaluation of a task is called; rename the set's folder")


def _check_role(stream: str, text: str, each: SourceSet, earlier: Sequence[SourceSet]) -> None:
    for other in earlier:
        same_images = each.trained_on == other.trained_on
        if canonical(other.name) != canonical(each.name):
            if same_images and each.role != other.role:
                raise UserError(
                    f"{stream}: {each.name} ({each.role}) and {other.name} ({other.role}) hold the same images: a set "
                    "has one role"
                )
            continue
        if not same_images:
            raise UserError(f"{stream}: two sets are called {each.name}; give their folders different names")
        both = next((label for label in each.classes if label in other.classes), None)
        if both is None:
            continue
        if other.role != each.role:
            raise UserError(
                f"{stream}: {text} is both {other.role} and {each.role}: a set has one role (NAME@0/2 and NAME@1/2 "
                "share its classes out)"
            )
        raise UserError(
            f"{stream}: a concept twice: {each.name}+++{each.data.class_names[both]}; name every set once, folders by "
            "different names"
        )
