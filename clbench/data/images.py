"""Image sets in memory: one uint8 array, its labels and its fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clbench.data import cache
from clbench.data.decode import decode, short_side
from clbench.data.fingerprint import content_fingerprint
from clbench.data.info import declared_size
from clbench.data.official import open_set
from clbench.data.progress import progress
from clbench.data.source import ImageSource
from clbench.errors import UserError

VERSION = 1  # of the decoding rules: a change makes old cache entries unreachable
LARGEST_DEFAULT = 224  # pixels; larger images are kept only when `size` asks for them
CHUNK = 256  # rows decoded together
THREADS_FROM = 16_384  # mean encoded bytes a row; below it threads cost more than they bring


@dataclass
class ImageSet:
    """One split of a set. `x` uint8 [N, C, H, W] (mapped copy-on-write where cached), `y` int64 [N] in 0..K-1.

    `info` is info.json as read; `fingerprint` see `clbench.data.fingerprint.content_fingerprint`; `cache_key` names the
    entry of `clbench.data.cache` that holds it, if any.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    class_names: list[str]
    info: dict[str, Any]
    fingerprint: str
    cache_key: str | None = None


def load_images(
    name_or_path: str | Path,
    split: str,
    root: str | Path | None = None,
    *,
    size: int | None = None,
    channels: Literal[1, 3] | None = None,
    resize: int | None = None,
) -> ImageSet:
    """Load a split, square at `size` pixels, RGB unless `channels=1`; decoded once, then read from the cache.

    The square is the centre of the image, whose short side is resized to `resize` first (none: to `size`).

    `size` defaults to what info.json states, else to the most common short side of the training split, and
    then to 224 at most. Rows keep their order on disk. Raises `UserError` for anything wrong with the set.
    """
    if size is not None and size < 1:
        raise UserError(f"the image size must be at least 1 pixel, not {size}")
    if channels not in (None, 1, 3):
        raise UserError(f"images have 1 or 3 channels, not {channels}")
    if resize is not None and (size is None or resize < size):
        raise UserError(f"resize={resize} needs a size that is no larger, not {size}")
    source = open_set(name_or_path, root)
    split = source.resolve(split)
    key = _key(source, split, size, channels or 3, resize)
    stored = cache.load(key) if key else None
    if stored is None:
        stored = _decode_split(source, split, size, channels or 3, key, resize)
    x, y, meta = stored
    return ImageSet(source.name, x, y, meta["class_names"], source.info, meta["fingerprint"], key)


def _key(source: ImageSource, split: str, size: int | None, channels: int, resize: int | None) -> str | None:
    """Hash of everything the decoded split depends on; None without a cache."""
    if cache.cache_dir() is None:
        return None
    from PIL import __version__ as pillow

    wanted = [size, declared_size(source.info) if size is None else None, channels]
    data = [source.digest(split), source.digest(source.reference)]
    parts = [VERSION, pillow, LARGEST_DEFAULT, wanted, source.info.get("class_names"), data]
    if resize is not None and resize != size:
        parts.append(resize)
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _decode_split(
    source: ImageSource, split: str, size: int | None, channels: int, key: str | None, resize: int | None
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    y = source.checked_labels(split)
    side = size or min(declared_size(source.info) or _common_short_side(source), LARGEST_DEFAULT)
    shape = (len(y), channels, side, side)
    writer = cache.Writer()
    try:
        x = writer.array(shape)
        _fill(x, source, split, side, channels, resize)
        names = np.array(source.class_names, dtype=object)[y]
        meta = {"class_names": source.class_names, "fingerprint": content_fingerprint(x, names.tolist())}
        if key:
            writer.finish(key, x, y, meta)
    except MemoryError:
        gigabytes = np.prod(shape, dtype=np.float64) / 1e9
        raise UserError(
            f"{source.path}, split {split}: {shape[0]} images of {side}x{side} need {gigabytes:.1f} GB, more "
            "than there is; ask for a smaller size, or give CLBENCH_CACHE a folder with room to map them"
        ) from None
    finally:
        writer.discard()
    return (cache.load(key) if key else None) or (x, y, meta)


def _fill(x: np.ndarray, source: ImageSource, split: str, side: int, channels: int, resize: int | None) -> None:
    rows = source.rows(split)
    with (
        ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool,
        progress(source.path.name, len(x)) as advance,
    ):

        def decoded(row: tuple[bytes, str]) -> np.ndarray:
            try:
                return decode(row[0], side, channels, resize)
            except ValueError as error:
                raise UserError(
                    f"{source.path}, split {split}, {row[1]}: unusable image ({error}); replace it"
                ) from None

        for start in range(0, len(x), CHUNK):
            chunk = list(islice(rows, CHUNK))
            threaded = sum(len(data) for data, _ in chunk) > THREADS_FROM * len(chunk)
            images: Iterator[np.ndarray] = pool.map(decoded, chunk) if threaded else map(decoded, chunk)
            for row, image in enumerate(images, start):
                x[row] = image
            advance(len(chunk))


def _common_short_side(source: ImageSource) -> int:
    """The most common short side of the reference split; of equally common ones the largest."""
    sides: Counter[int] = Counter()
    for data, where in source.rows(source.reference):
        try:
            sides[short_side(data)] += 1
        except ValueError as error:
            raise UserError(
                f"{source.path}, split {source.reference}, {where}: unusable image ({error}); replace or drop it"
            ) from None
    return max(sides, key=lambda side: (sides[side], side))
