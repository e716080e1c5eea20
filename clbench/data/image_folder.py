"""Image folders: SPLIT/CLASS/image, or CLASS/image with a split made from the file names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from clbench.data.source import SPLIT_NAMES, ImageSource, ordered_splits, rank_split
from clbench.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
TEST_SHARE = 0.2  # of each class, where the folder has no splits of its own


class FolderSource(ImageSource):
    """Classes are the sub-folders in alphabetical order, or as info.json orders them."""

    @cached_property
    def _listing(self) -> dict[str, list[tuple[str, Path]]]:
        """Split -> (class, file), sorted by class and path."""
        split_folders = [path for path in _folders(self.path) if path.name in SPLIT_NAMES]
        if split_folders:
            return {folder.name: _class_files(folder) for folder in split_folders}
        if not _folders(self.path):
            raise UserError(
                f"{self.path} is no image set: it has neither Parquet files nor folders; "
                "put images in train/CLASS/ and test/CLASS/, or in CLASS/"
            )
        listing: dict[str, list[tuple[str, Path]]] = {"train": [], "test": []}
        for folder in _folders(self.path):
            files = {path.relative_to(self.path).as_posix(): path for path in _images(folder)}
            test = rank_split(list(files), TEST_SHARE)
            for name, path in files.items():
                listing["test" if name in test else "train"].append((folder.name, path))
        return listing

    @property
    def splits(self) -> list[str]:
        return ordered_splits(set(self._listing))

    def rows(self, split: str) -> Iterator[tuple[bytes, str]]:
        for _, path in self._listing[split]:
            try:
                yield path.read_bytes(), str(path.relative_to(self.path))
            except OSError as error:
                raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions") from None

    def files(self, split: str) -> list[Path]:
        """The file of every row."""
        return [path for _, path in self._listing[split]]

    def labels(self, split: str) -> np.ndarray:
        index = {name: label for label, name in enumerate(self.class_names)}
        for name, path in self._listing[split]:
            if name not in index:
                raise UserError(f"{path.parent}: folder {name!r} is not in class_names of info.json; rename or add it")
        return np.array([index[name] for name, _ in self._listing[split]], np.int64)

    def count(self, split: str) -> int:
        return len(self._listing[split])

    def digest(self, split: str) -> str:
        """Hash of the listing: relative path, size and time of change of every file."""
        total = hashlib.sha256()
        for _, path in self._listing[split]:
            state = path.stat()
            entry = (path.relative_to(self.path).as_posix(), state.st_size, state.st_mtime_ns)
            total.update(repr(entry).encode("utf-8", "surrogateescape"))
        return total.hexdigest()

    def _names(self) -> list[str]:
        split_folders = [path for path in _folders(self.path) if path.name in SPLIT_NAMES]
        return sorted({path.name for place in split_folders or [self.path] for path in _folders(place)})


def _class_files(folder: Path) -> list[tuple[str, Path]]:
    return [(place.name, path) for place in _folders(folder) for path in _images(place)]


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )
