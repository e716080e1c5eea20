"""What the lists of published image sets say: which file belongs to which split and class.

Each reader takes the set's folder, as `clbench.data.official` finds it, and raises `UserError` (one line) where a list
or an image is missing. Rows are in the order of the lists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clbench.errors import UserError

Rows = list[tuple[str, Path]]

CORE50_TEST = (3, 7, 10)
CORE50_TRAIN = (1, 2, 4, 5, 6, 8, 9, 11)
CORE50_CATEGORIES = (
    "plug adapter",
    "mobile phone",
    "scissors",
    "light bulb",
    "can",
    "glasses",
    "ball",
    "marker",
    "cup",
    "remote control",
)
CORE50_NAMES = [f"{category} {number}" for category in CORE50_CATEGORIES for number in range(1, 6)]


@dataclass(frozen=True)
class Listing:
    """Class names by label, and for each split its rows: (class name, file)."""

    class_names: list[str]
    splits: dict[str, Rows]


def cub200(folder: Path) -> Listing:
    """CUB-200-2011: `images.txt`, `image_class_labels.txt`, `train_test_split.txt` (1: training), `classes.txt`."""
    place = _inside(folder, "CUB_200_2011", "images.txt")
    files, labels = _numbered(place / "images.txt"), _numbered(place / "image_class_labels.txt")
    training = _numbered(place / "train_test_split.txt")
    names = _numbered(place / "classes.txt")
    splits: dict[str, Rows] = {"train": [], "test": []}
    for number, file in files.items():
        for path, table in (("image_class_labels.txt", labels), ("train_test_split.txt", training)):
            if number not in table:
                raise UserError(f"{place / path} says nothing of image {number} of images.txt; unpack the set anew")
        label = labels[number]
        if label not in names:
            raise UserError(f"{place / 'image_class_labels.txt'}: class {label} is not in classes.txt")
        row = (names[label], _existing(place / "images" / file))
        splits["train" if training[number] == "1" else "test"].append(row)
    return Listing(list(names.values()), splits)


def cars196(folder: Path) -> Listing:
    """Stanford Cars, in either of its two publications.

    `cars_annos.mat` with `car_ims/` (one list with a test flag), or `devkit/` with `cars_train/` and `cars_test/`,
    where the test labels are in `cars_test_annos_withlabels.mat`, a file of its own.
    """
    if (folder / "cars_annos.mat").is_file():
        table = _matlab(folder / "cars_annos.mat")
        names = _names(table, folder / "cars_annos.mat")
        splits: dict[str, Rows] = {"train": [], "test": []}
        for entry in table["annotations"]:
            row = (_named(names, entry["class"], folder), _existing(folder / str(entry["relative_im_path"])))
            splits["test" if int(entry["test"]) else "train"].append(row)
        return Listing(names, splits)
    devkit = folder / "devkit"
    names = _names(_matlab(devkit / "cars_meta.mat"), devkit / "cars_meta.mat")
    labelled = "cars_test_annos_withlabels.mat"
    lists = {
        "train": (devkit / "cars_train_annos.mat", folder / "cars_train"),
        "test": (folder / labelled if (folder / labelled).is_file() else devkit / labelled, folder / "cars_test"),
    }
    splits = {
        split: [
            (_named(names, entry["class"], path), _existing(images / str(entry["fname"])))
            for entry in _matlab(path)["annotations"]
        ]
        for split, (path, images) in lists.items()
    }
    return Listing(names, splits)


def imagenet_r_l2p(folder: Path) -> Listing:
    """ImageNet-R, L2P's split: `train_list.txt` and `val_list.txt`, lines `imagenet-r/WNID/FILE LABEL`."""
    lists = {"train": folder / "train_list.txt", "test": folder / "val_list.txt"}
    return _imagenet_r(folder, {split: [line.split()[0] for line in _lines(path)] for split, path in lists.items()})


def imagenet_r_coda(folder: Path) -> Listing:
    """ImageNet-R, CODA-Prompt's split: `imagenet-r_train.yaml` and `imagenet-r_test.yaml`, lists of paths in `data`."""
    found = {}
    for split in ("train", "test"):
        path, inside, files = folder / f"imagenet-r_{split}.yaml", False, []
        for line in _lines(path):  # 1 MB of one item a line: a YAML parser takes a minute for it
            if line.startswith("- "):
                files += [line[2:].strip()] if inside else []
            else:
                inside = line.startswith("data:")
        if not files:
            raise UserError(f"{path} lists no files below `data:`; fetch it again")
        found[split] = files
    return _imagenet_r(folder, found)


def core50(folder: Path) -> Listing:
    """CORe50: `sS/oO/C_SS_OO_FFF.png`; sessions 3, 7 and 10 are the test data. Rows are sorted by session and object.

    Classes are the 50 objects; five in a row are of one category.
    """
    place = _inside(folder, "core50_128x128", "s1")
    splits: dict[str, Rows] = {}
    for split, sessions in (("train", CORE50_TRAIN), ("test", CORE50_TEST)):
        splits[split] = []
        for session in sessions:
            if not (place / f"s{session}").is_dir():
                raise UserError(f"{place} has no folder s{session}; unpack all of core50_128x128.zip")
            for number, name in enumerate(CORE50_NAMES, 1):
                files = sorted((place / f"s{session}" / f"o{number}").glob("*.png"))
                splits[split] += [(name, path) for path in files]
    return Listing(CORE50_NAMES, splits)


def core50_runs(folder: Path, run: int) -> list[list[str]]:
    """Class names of each task of a published order of CORe50-NC: `batches_filelists/NC_inc/runR/train_batch_BB_...`.

    Within a task, in the order of the lists' labels.
    """
    place = folder / "batches_filelists" / "NC_inc" / f"run{run}"
    lists = sorted(place.glob("train_batch_*_filelist.txt"))
    if not lists:
        raise UserError(
            f"no {place / 'train_batch_00_filelist.txt'}; fetch batches_filelists.zip from "
            f"https://vlomonaco.github.io/core50/data/ and unpack it in {folder}, or leave out run"
        )
    tasks = []
    for path in lists:
        objects: dict[int, int] = {}
        for line in _lines(path):
            found = re.search(r"s\d+/o(\d+)/\S+\s+(\d+)$", line)
            if not found or not 1 <= int(found[1]) <= len(CORE50_NAMES):
                raise UserError(f"{path}: {line!r} is not `sS/oO/FILE LABEL`")
            objects[int(found[1])] = int(found[2])
        tasks.append(
            [CORE50_NAMES[number - 1] for number in sorted(objects, key=lambda number: (objects[number], number))]
        )
    return tasks


def _imagenet_r(folder: Path, lists: dict[str, list[str]]) -> Listing:
    """Rows by the last two parts of each path, which are the same in all lists: the WordNet identifier and the file."""
    place = folder / "imagenet-r" if (folder / "imagenet-r").is_dir() else folder
    splits: dict[str, Rows] = {split: [] for split in lists}
    placed: dict[tuple[str, str], str] = {}
    for split, files in lists.items():
        for file in files:
            name, _, image = file.rpartition("/")
            key = (name.rpartition("/")[2], image)
            if placed.setdefault(key, split) != split:
                raise UserError(
                    f"{folder}: {'/'.join(key)} is in the lists of both splits; they do not belong together"
                )
            splits[split].append((key[0], _existing(place / key[0] / key[1])))
    return Listing(sorted({name for name, _ in placed}), splits)


def _inside(folder: Path, archive: str, mark: str) -> Path:
    """The folder itself, or the one that the archive unpacks to."""
    return folder / archive if (folder / archive / mark).exists() else folder


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"{path} is in the set's lists, but there is no such file; unpack all of the set")
    return path


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"there is no {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error})") from None
    return [line for line in text.splitlines() if line.strip()]


def _numbered(path: Path) -> dict[str, str]:
    """`NUMBER VALUE` lines."""
    found = {}
    for line in _lines(path):
        number, _, value = line.strip().partition(" ")
        if not value:
            raise UserError(f"{path}: {line!r} is not `NUMBER VALUE`")
        found[number] = value.strip()
    return found


def _matlab(path: Path) -> Any:
    from scipy.io import loadmat

    if not path.is_file():
        raise UserError(f"there is no {path}")
    try:
        found = loadmat(path, squeeze_me=True)
    except Exception as error:  # SciPy's reader raises ValueError, TypeError, zlib.error, ...
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())}); fetch it again") from None
    annotations = found.get("annotations")
    if annotations is not None:
        found["annotations"] = annotations.reshape(-1)
        if "class" not in (annotations.dtype.names or ()):
            raise UserError(f"{path} has no classes; fetch cars_test_annos_withlabels.mat")
    return found


def _names(table: Any, path: Path) -> list[str]:
    if "class_names" not in table:
        raise UserError(f"{path} has no class_names; fetch it again")
    return [str(name) for name in table["class_names"].reshape(-1)]


def _named(names: list[str], number: Any, path: Path) -> str:
    if not 1 <= int(number) <= len(names):
        raise UserError(f"{path}: class {number} is not one of the {len(names)} named")
    return names[int(number) - 1]
