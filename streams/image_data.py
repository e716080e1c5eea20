"""Training and test images of one set, each row with a key that says what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from clbench.data.cache import beside
from clbench.data.digits import load_digits
from clbench.data.images import ImageSet, load_images
from clbench.errors import UserError
from clbench.samples import Pool, Samples

from .normalisation import Statistics, statistics
from .row_keys import digest, row_keys


@dataclass
class Rows:
    """x: uint8 [N, C, H, W], perhaps memory-mapped; y: int64 [N], the source's numbers; keys: uint64 [N]."""

    x: np.ndarray
    y: np.ndarray
    keys: np.ndarray

    def pool(self, label_of: np.ndarray) -> Pool:
        """The rows as a pool, labels renumbered by `label_of` (int64, by source number). Images are not copied.

        Its fingerprint is of the rows in their order, since what is stored by position hangs on both.
        """
        fingerprint = f"{self.x.shape[1:]}-{digest(self.keys, ordered=True)}"
        return Pool(torch.from_numpy(self.x), torch.from_numpy(label_of[self.y]), fingerprint)


@dataclass
class ImageData:
    """Both splits of a set. `fingerprint`: of both splits' decoded images and class names, whatever their order."""

    name: str
    class_names: list[str]
    train: Rows
    test: Rows
    statistics: Statistics
    fingerprint: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.x.shape[1:]
        return channels, height, width


def read_images(
    name_or_path: str,
    root: Path | None,
    size: int | None = None,
    channels: Literal[1, 3] | None = None,
    resize: int | None = None,
) -> ImageData:
    """A set of the layout, an image folder, or `digits`, which comes with scikit-learn. Raises `UserError`."""
    if name_or_path == "digits":
        if resize is not None:
            raise UserError("digits have no larger images to crop from; leave out resize")
        train, test = (_fitted(load_digits(split), size, channels) for split in ("train", "test"))
    else:
        train = load_images(name_or_path, "train", root, size=size, channels=channels, resize=resize)
        side = size or train.x.shape[2]
        test = load_images(name_or_path, "test", root, size=side, channels=channels, resize=resize)
    if train.class_names != test.class_names:
        raise UserError(f"{name_or_path}: the classes of the training and test data differ; name them in info.json")
    stats = statistics(train.name, train.info, train.x.shape[1])
    both = f"{train.fingerprint}/{test.fingerprint}"
    return ImageData(train.name, train.class_names, _rows(train), _rows(test), stats, both)


def _rows(images: ImageSet) -> Rows:
    keys = beside(images.cache_key, "row-keys", lambda: row_keys(images.x, images.y, images.class_names))
    return Rows(images.x, images.y, keys)


def _fitted(images: ImageSet, size: int | None, channels: int | None) -> ImageSet:
    """Grey images at another size (bilinear) or repeated over three channels."""
    x = torch.from_numpy(images.x)
    if size is not None and size != x.shape[-1]:
        x = to_uint8(torch.nn.functional.interpolate(x.float(), (size, size), mode="bilinear", antialias=True))
    images.x = x.expand(-1, channels or 1, -1, -1).contiguous().numpy()
    return images


def samples(pool: Pool, rows: np.ndarray) -> Samples:
    """A selection of a pool by row numbers, int64 [n]."""
    return Samples(pool, torch.from_numpy(rows))


def to_uint8(x: Tensor) -> Tensor:
    """Floats in [0, 255] to the nearest uint8."""
    return x.round().clamp(0, 255).to(torch.uint8)


def numbering(order: Sequence[int], n: int) -> np.ndarray:
    """int64 [n]: label by source number, labels counting in `order`; -1 for classes that are not in it."""
    labels = np.full(n, -1, np.int64)
    labels[list(order)] = np.arange(len(order))
    return labels
