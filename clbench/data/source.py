"""Image sets as they lie on disk: splits, encoded rows and labels. Nothing is decoded here."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from clbench.data.info import read_info
from clbench.errors import UserError

SPLIT_NAMES = ("train", "test", "val", "validation", "valid")
# What may stand in for a split that a set does not have. Validation never falls back to test data.
STAND_INS = {
    "test": ("val", "validation", "valid"),
    "val": ("validation", "valid"),
    "validation": ("val", "valid"),
}


class ImageSource(ABC):
    """A set in one of the two layouts. Rows are numbered from 0 in each split."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """What the set is called: its folder's name."""
        return self.path.resolve().name

    @cached_property
    def info(self) -> dict[str, Any]:
        return read_info(self.path)

    @property
    @abstractmethod
    def splits(self) -> list[str]:
        """Names of the splits present, `train` first."""

    @abstractmethod
    def rows(self, split: str) -> Iterator[tuple[bytes, str]]:
        """(encoded image, where it is) row by row; empty bytes where a row has none."""

    @abstractmethod
    def labels(self, split: str) -> np.ndarray:
        """int64 [N], as stored."""

    @abstractmethod
    def count(self, split: str) -> int:
        """Number of rows, without reading them."""

    @abstractmethod
    def digest(self, split: str) -> str:
        """A hash that changes whenever the split's files do."""

    @abstractmethod
    def _names(self) -> list[str] | None:
        """Class names kept in the data themselves."""

    def resolve(self, split: str) -> str:
        """The split to read when `split` is asked for: itself, or a stand-in for it. Else `UserError`."""
        for name in (split, *STAND_INS.get(split, ())):
            if name in self.splits:
                return name
        present = ", ".join(self.splits) or "none"
        raise UserError(f"{self.path} has no split {split!r} (it has {present}); add {split}.parquet or {split}/")

    @property
    def reference(self) -> str:
        """The split that defaults are taken from: `train` where there is one."""
        return self.splits[0]

    @cached_property
    def class_names(self) -> list[str]:
        """From info.json, else from the data, else the labels 0 ... largest label as text."""
        names = self.info.get("class_names") or self._names()
        if names is not None:
            return [_readable(name, self.path) for name in names]
        labels = self.labels(self.reference)
        return [str(label) for label in range(int(labels.max(initial=-1)) + 1)]

    @property
    def named(self) -> bool:
        """Whether anything says what the classes are called."""
        return bool(self.info.get("class_names") or self._names())

    def checked_labels(self, split: str) -> np.ndarray:
        """int64 [N], every one a known class and every class present. Raises `UserError` otherwise."""
        labels, where = self.labels(split), f"{self.path}, split {split}"
        if not len(labels):
            raise UserError(f"{where}: no rows; a split needs at least one image")
        classes = len(self.class_names)
        bad = np.flatnonzero((labels < 0) | (labels >= classes))
        if len(bad):
            row = int(bad[0])
            raise UserError(
                f"{where}, row {row}: label {labels[row]} is out of range, "
                f"there are class names for 0 to {classes - 1}; correct the label or class_names in info.json"
            )
        empty = np.flatnonzero(np.bincount(labels, minlength=classes) == 0)
        if len(empty):
            label = int(empty[0])
            others = f", nor have {len(empty) - 1} others" if len(empty) > 1 else ""
            raise UserError(
                f"{where}: class {self.class_names[label]!r} (label {label}) has no images{others}; "
                "add images or drop the class"
            )
        return labels


def _readable(name: str, path: Path) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{path}: the name of class {name!r} is not UTF-8; rename its folder") from None
    return name


def open_source(path: Path) -> ImageSource:
    """Parquet files directly inside (or in `data/`) make a Parquet set; otherwise it is an image folder."""
    from clbench.data.image_folder import FolderSource
    from clbench.data.parquet import ParquetSource, parquet_files

    if not path.is_dir():
        raise UserError(f"{path} is not a folder; an image set is one with train.parquet or train/CLASS/*.png")
    return ParquetSource(path) if parquet_files(path) else FolderSource(path)


def rank_split(names: list[str], share: float) -> set[str]:
    """The names that make the test side: the rounded share (at least one) with the smallest blake2b hashes.

    It depends on the names alone, so every machine splits alike. A single name stays on the training side.
    """
    if len(names) < 2:
        return set()

    def by_hash(name: str) -> bytes:
        return hashlib.blake2b(name.encode("utf-8", "surrogateescape")).digest()

    return set(sorted(names, key=by_hash)[: max(1, round(share * len(names)))])


def ordered_splits(names: set[str]) -> list[str]:
    known = [name for name in SPLIT_NAMES if name in names]
    return known + sorted(names - set(known))
