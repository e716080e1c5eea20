"""Small image sets in the form in which the real ones are published. Every image is of one colour, its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

Colour = tuple[int, int, int]
BIRDS = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]


@dataclass
class Row:
    """What a list says of an image, and its colour."""

    colour: Colour
    label: int = 0
    bird: str = ""
    wnid: str = ""
    training: str = ""
    file: str = ""


def _colours() -> Iterator[Colour]:
    return ((n % 251, n // 251, 77) for n in count(1))


def _save(path: Path, colour: Colour, size: tuple[int, int] = (8, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, format="PNG")  # without loss, whatever the file is called


def cub200(folder: Path, birds: list[str] | None = None, per_class: int = 3) -> list[Row]:
    """CUB_200_2011: of each class, every third image is test data."""
    colours, rows = _colours(), []
    birds = birds or BIRDS
    for label, bird in enumerate(birds, 1):
        for i in range(per_class):
            row = Row(next(colours), label, bird, training="0" if i % 3 == 1 else "1", file=f"{bird}/B_{i}_{label}.png")
            _save(folder / "images" / row.file, row.colour)
            rows.append(row)
    lists = {
        "images.txt": [row.file for row in rows],
        "image_class_labels.txt": [str(row.label) for row in rows],
        "train_test_split.txt": [row.training for row in rows],
        "classes.txt": birds,
    }
    for name, values in lists.items():
        (folder / name).write_text("".join(f"{n} {value}\n" for n, value in enumerate(values, 1)))
    return rows


def cars_devkit(
    folder: Path, classes: int = 4, train: int = 6, test: int = 5
) -> tuple[list[str], dict[str, list[Row]]]:
    """Stanford Cars: cars_train/, cars_test/, devkit/ and the labels of the test images."""
    colours = _colours()
    names = [f"Maker {n} Model/{n} 2012" for n in range(classes)]
    rows = {
        split: [Row(next(colours), i % classes, file=f"{i + 1:05}.jpg") for i in range(n)]
        for split, n in (("train", train), ("test", test))
    }
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(names, dtype=object)})
    for split, place in (
        ("train", "devkit/cars_train_annos.mat"),
        ("test", "cars_test_annos_withlabels.mat"),
    ):
        for row in rows[split]:
            _save(folder / f"cars_{split}" / row.file, row.colour)
        savemat(folder / place, {"annotations": _struct(rows[split])})
    return names, rows


def cars_one_list(folder: Path, names: list[str], rows: dict[str, list[Row]]) -> None:
    """The same images as car_ims/ and cars_annos.mat."""
    kind = [("relative_im_path", object), ("class", object), ("test", object)]
    entries, number = [], count(1)
    for split, these in rows.items():
        for row in these:
            file = f"car_ims/{next(number):06}.jpg"
            _save(folder / file, row.colour)
            entries.append((file, row.label + 1, int(split == "test")))
    table = {"annotations": np.array(entries, dtype=kind), "class_names": np.array(names, dtype=object)}
    savemat(folder / "cars_annos.mat", table)


def _struct(rows: list[Row]) -> np.ndarray:
    kind = [("bbox_x1", object), ("class", object), ("fname", object)]
    return np.array([(3, row.label + 1, row.file) for row in rows], dtype=kind)


def imagenet_r(
    folder: Path, wnids: tuple[str, ...] = ("n01443537", "n01484850", "n02106662"), per_class: int = 5
) -> dict[str, dict[str, list[Row]]]:
    """ImageNet-R unpacked, L2P's lists (a fifth of each class is test data) and CODA-Prompt's (another fifth)."""
    colours = _colours()
    lists: dict[str, dict[str, list[Row]]] = {name: {"train": [], "test": []} for name in ("l2p", "coda")}
    for label, wnid in enumerate(wnids):
        for i in range(per_class):
            row = Row(next(colours), label, wnid=wnid, file=f"imagenet-r/{wnid}/art_{i}.jpg")
            _save(folder / row.file, row.colour)
            lists["l2p"]["test" if i % 5 == 0 else "train"].append(row)
            lists["coda"]["test" if i % 5 == 2 else "train"].append(row)
    for name, split in (("train_list.txt", "train"), ("val_list.txt", "test")):
        (folder / name).write_text("".join(f"{row.file} {row.label}\n" for row in lists["l2p"][split]))
    for split, rows in lists["coda"].items():
        lines = ["data:", *(f"- data/{row.file}" for row in rows), "targets:", *(f"- {row.label}" for row in rows)]
        (folder / f"imagenet-r_{split}.yaml").write_text("\n".join(lines) + "\n")
    return lists


def core50(folder: Path, frames: int = 2, side: int = 8, runs: int = 0) -> None:
    """CORe50: red is the session, green the object, blue the frame; `runs` published orders of classes."""
    for session in range(1, 12):
        for number in range(1, 51):
            for frame in range(frames):
                file = f"s{session}/o{number}/C_{session:02}_{number:02}_{frame:03}.png"
                _save(folder / "core50_128x128" / file, (session, number, frame), (side, side))
    for run in range(runs):
        order = np.random.RandomState(run).permutation(50) + 1
        place = folder / "batches_filelists" / "NC_inc" / f"run{run}"
        place.mkdir(parents=True)
        for batch, objects in enumerate([order[:10], *order[10:].reshape(8, 5)]):
            first = 0 if batch == 0 else 5 + 5 * batch
            lines = [f"s{s}/o{o}/C_{s:02}_{o:02}_000.png {first + i}" for s in (1, 2) for i, o in enumerate(objects)]
            (place / f"train_batch_{batch:02}_filelist.txt").write_text("\n".join(lines) + "\n")
