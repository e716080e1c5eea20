"""Image sets that are read from the folders their authors publish: how to get them, and which splits of them there are.

A name may say which of several published splits is meant: `imagenet_r:l2p`, `cub200:folders`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from clbench.data import official_lists
from clbench.data.image_folder import FolderSource
from clbench.data.official_lists import Listing, Rows
from clbench.data.parquet import parquet_files
from clbench.data.root import canonical, data_root, find_set, set_paths
from clbench.data.source import ImageSource, open_source
from clbench.errors import UserError


@dataclass(frozen=True)
class Published:
    """A set as its authors publish it.

    folder: what its archive unpacks to, if that is not the set's own folder. get: what to download from where.
    splits: what may follow the colon -> the reader of that split's lists, and what these lists are. The first is meant
    where nothing follows; None: train/CLASS and test/CLASS folders are read as they are.
    """

    title: str
    folder: str
    get: str
    splits: dict[str, tuple[Callable[[Path], Listing] | None, str]]


FOLDERS = "the folders train/CLASS/ and test/CLASS/"

PUBLISHED = {
    "imagenet_r": Published(
        "ImageNet-R, 200 classes",
        "imagenet-r",
        "fetch imagenet-r.tar from https://people.eecs.berkeley.edu/~hendrycks/ and unpack it",
        {
            "l2p": (
                official_lists.imagenet_r_l2p,
                "train_list.txt and val_list.txt of https://gist.github.com/gqk/e127fe18bf179bdcbdf5e29a8c1ae523",
            ),
            "coda": (
                official_lists.imagenet_r_coda,
                "imagenet-r_train.yaml and imagenet-r_test.yaml of https://github.com/GT-RIPL/CODA-Prompt, "
                "folder dataloaders/splits",
            ),
            "folders": (None, f"{FOLDERS} of the archive linked from https://github.com/sun-hailong/LAMDA-PILOT"),
        },
    ),
    "cub200": Published(
        "CUB-200-2011 birds, 200 classes",
        "CUB_200_2011",
        "fetch CUB_200_2011.tgz from https://data.caltech.edu/records/65de6-vp158 and unpack it",
        {
            "official": (official_lists.cub200, "images.txt and the lists beside it"),
            "folders": (None, FOLDERS),
        },
    ),
    "cars196": Published(
        "Stanford Cars, 196 classes",
        "stanford_cars",
        "fetch cars_train.tgz, cars_test.tgz, car_devkit.tgz and cars_test_annos_withlabels.mat of Stanford Cars "
        "(https://ai.stanford.edu/~jkrause/cars/car_dataset.html, or a mirror: the page is often down) and unpack them",
        {
            "official": (official_lists.cars196, "devkit/ and cars_test_annos_withlabels.mat, or cars_annos.mat"),
            "folders": (None, FOLDERS),
        },
    ),
    "core50": Published(
        "CORe50, 50 objects in 11 sessions",
        "core50_128x128",
        "fetch core50_128x128.zip from https://vlomonaco.github.io/core50/ and unpack it",
        {"official": (official_lists.core50, "the folders s1/o1/ to s11/o50/")},
    ),
}


class PublishedSource(FolderSource):
    """Rows, classes and splits as the set's own lists have them; class folders where `read` is None."""

    def __init__(self, path: Path, name: str, read: Callable[[Path], Listing] | None) -> None:
        super().__init__(path)
        self._set_name = name
        self._read = read

    @property
    def name(self) -> str:
        return self._set_name

    @cached_property
    def _lists(self) -> Listing | None:
        return self._read(self.path) if self._read else None

    @cached_property
    def _listing(self) -> dict[str, Rows]:
        if self._lists is not None:
            return self._lists.splits
        if not (self.path / "train").is_dir():  # class folders alone would be split by file names
            raise UserError(f"there is no {self.path / 'train'}")
        return super()._listing

    def _names(self) -> list[str]:
        return super()._names() if self._lists is None else self._lists.class_names

    def digest(self, split: str) -> str:
        """As of a folder's files, with the class that the lists give each row."""
        classes = "\n".join(name for name, _ in self._listing[split])
        return hashlib.sha256(f"{super().digest(split)}\n{classes}".encode()).hexdigest()


def published(name: str | Path) -> tuple[str, str] | None:
    """(set, split) that a name means, the split "" where none is named; None where it is no published set's name."""
    base, _, split = str(name).partition(":")
    key = next((key for key in PUBLISHED if canonical(key) == canonical(base)), None)
    return (key, split) if key else None


def open_set(name_or_path: str | Path, root: str | Path | None = None) -> ImageSource:
    """A set by name (with `:SPLIT` where a published one has several) or by path. Raises `UserError`."""
    place, known = data_root(root), published(name_or_path)
    if known is None:
        return open_source(find_set(name_or_path, place, "images"))
    key, split = known
    found = PUBLISHED[key]
    if split and split not in found.splits:
        raise UserError(
            f"{key} has no split {split!r}; there are {', '.join(f'{key}:{name}' for name in found.splits)}"
        )
    folder = _find(key, place, split)
    if not split and parquet_files(folder):
        return open_source(folder)
    split = split or next(iter(found.splits))
    read, lists = found.splits[split]
    try:
        source = PublishedSource(folder, f"{key}:{split}", read)
        for side in ("train", "test"):
            source.resolve(side)
    except UserError as error:
        others = [name for name in found.splits if name != split]
        hint = f"; other splits of this set: {', '.join(f'{key}:{name}' for name in others)}" if others else ""
        raise UserError(f"{error} ({key}:{split} needs {lists} in {folder}){hint}") from None
    return source


def how_to_get(key: str, root: Path, split: str = "") -> str:
    """What to download and where to put it: for one split, or for any."""
    lists = [lists for name, (_, lists) in PUBLISHED[key].splits.items() if not split or name == split]
    beside = f", with {' or '.join(lists)}" if key == "imagenet_r" and lists else ""
    return f"{PUBLISHED[key].get} in {root / 'images' / key}{beside}"


def _find(key: str, root: Path, split: str) -> Path:
    wanted = (canonical(key), canonical(PUBLISHED[key].folder))
    for name in wanted:
        for found, path in set_paths(root, "images"):
            if canonical(found) == name:
                return path
    raise UserError(f"no image set {key!r} in {root}; {how_to_get(key, root, split)}")
