"""Reading the published archives. Nothing in them is unpickled, run, or extracted to a path they choose.

Formats: CIFAR binary version (www.cs.toronto.edu/~kriz/cifar.html), MNIST IDX (yann.lecun.com/exdb/mnist),
Tiny ImageNet as in Stanford's CS231n.
"""

from __future__ import annotations

import gzip
import tarfile
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clbench.errors import UserError

CIFAR_PIXELS = 3 * 32 * 32


@dataclass
class Contents:
    """What an archive holds: split -> (images, labels), class names, and more for info.json."""

    splits: dict[str, tuple[Any, np.ndarray]]
    class_names: list[str]
    info: dict[str, Any]


def read_cifar10(files: list[Path]) -> Contents:
    """cifar-10-binary.tar.gz: records of one label byte and 3072 pixels, red, green and blue planes."""
    with _tar(files[0]) as archive:
        train = b"".join(_member(archive, f"data_batch_{number}.bin") for number in range(1, 6))
        test, names = _member(archive, "test_batch.bin"), _lines(_member(archive, "batches.meta.txt"))
    splits = {"train": _records(train, 1, files[0]), "test": _records(test, 1, files[0])}
    return Contents({name: (x, y[:, 0]) for name, (x, y) in splits.items()}, names, {"image_size": "32x32 RGB PNG"})


def read_cifar100(files: list[Path]) -> Contents:
    """cifar-100-binary.tar.gz: records of a coarse and a fine label byte and 3072 pixels. Fine labels are kept."""
    with _tar(files[0]) as archive:
        data = {split: _member(archive, f"{split}.bin") for split in ("train", "test")}
        fine, coarse = (_lines(_member(archive, f"{kind}_label_names.txt")) for kind in ("fine", "coarse"))
    splits = {split: _records(content, 2, files[0]) for split, content in data.items()}
    pairs = {(int(low), int(high)) for _, y in splits.values() for high, low in y}
    superclass = {fine[low]: coarse[high] for low, high in sorted(pairs)}
    info = {"image_size": "32x32 RGB PNG", "superclass_of": superclass}
    return Contents({name: (x, y[:, 1]) for name, (x, y) in splits.items()}, fine, info)


def read_mnist(files: list[Path]) -> Contents:
    """Four gzip files in IDX format: train images, train labels, test images, test labels."""
    arrays = [_idx(path) for path in files]
    splits = {"train": (arrays[0], arrays[1]), "test": (arrays[2], arrays[3])}
    for split, (x, y) in splits.items():
        if x.ndim != 3 or y.ndim != 1 or len(x) != len(y):
            raise _unreadable(files[0], f"{split} images and labels do not match")
    names = [str(label) for label in range(10)]
    return Contents(splits, names, {"image_size": "28x28 greyscale PNG"})


def read_fashion_mnist(files: list[Path]) -> Contents:
    """As MNIST; class names as its authors give them (github.com/zalandoresearch/fashion-mnist)."""
    contents = read_mnist(files)
    contents.class_names = [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ]
    return contents


def read_tiny_imagenet(files: list[Path]) -> Contents:
    """tiny-imagenet-200.zip: JPEGs by WordNet id, kept as they are. Test labels are unpublished."""
    top = "tiny-imagenet-200"
    try:
        with zipfile.ZipFile(files[0]) as archive:
            wnids = archive.read(f"{top}/wnids.txt").decode().split()
            words = dict(line.split("\t", 1) for line in _lines(archive.read(f"{top}/words.txt")))
            index = {wnid: label for label, wnid in enumerate(wnids)}
            members = sorted(name for name in archive.namelist() if name.upper().endswith(".JPEG"))
            train = [name for name in members if name.startswith(f"{top}/train/")]
            listed = _lines(archive.read(f"{top}/val/val_annotations.txt"))
            annotations = [line.split("\t") for line in listed]
            splits: dict[str, tuple[Any, np.ndarray]] = {
                "train": (
                    [archive.read(name) for name in train],
                    np.array([index[name.split("/")[2]] for name in train]),
                ),
                "val": (
                    [archive.read(f"{top}/val/images/{row[0]}") for row in annotations],
                    np.array([index[row[1]] for row in annotations]),
                ),
            }
    except (OSError, KeyError, IndexError, ValueError, zipfile.BadZipFile) as error:
        raise _unreadable(files[0], str(error)) from None
    names = [words.get(wnid, wnid) for wnid in wnids]
    repeated = {name for name, times in Counter(names).items() if times > 1}
    names = [f"{name} ({wnid})" if name in repeated else name for name, wnid in zip(names, wnids, strict=True)]
    return Contents(splits, names, {"image_size": "64x64 JPEG", "wnids": wnids})


def _records(data: bytes, label_bytes: int, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, 3, 32, 32] and int64 [N, label_bytes]."""
    width = label_bytes + CIFAR_PIXELS
    if not data or len(data) % width:
        raise _unreadable(path, f"{len(data)} bytes are no whole number of records")
    table = np.frombuffer(data, np.uint8).reshape(-1, width)
    return table[:, label_bytes:].reshape(-1, 3, 32, 32), table[:, :label_bytes].astype(np.int64)


def _idx(path: Path) -> np.ndarray:
    """An array of unsigned bytes: magic 0, 0, 8, dimensions; then each size (big-endian uint32); then the data."""
    try:
        data = gzip.decompress(path.read_bytes())
        if data[:3] != b"\0\0\x08":
            raise ValueError("it is no IDX file of bytes")
        dimensions = data[3]
        shape = np.frombuffer(data, ">u4", dimensions, 4).astype(np.int64)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, IndexError, ValueError) as error:
        raise _unreadable(path, str(error)) from None


def _tar(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:gz")
    except (OSError, tarfile.TarError, EOFError) as error:
        raise _unreadable(path, str(error)) from None


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    """The contents of the file of this name, in whatever folder of the archive."""
    path = Path(str(archive.name))
    try:
        found = next(member for member in archive.getmembers() if Path(member.name).name == name)
        file = archive.extractfile(found)
        if file is None:
            raise StopIteration
        return file.read()
    except StopIteration:
        raise _unreadable(path, f"it has no file {name}") from None
    except (OSError, tarfile.TarError, EOFError) as error:
        raise _unreadable(path, str(error)) from None


def _lines(data: bytes) -> list[str]:
    return [line.strip("\r") for line in data.decode("utf-8").split("\n") if line.strip()]


def _unreadable(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is not the archive it should be ({reason}); remove it and fetch it again")
