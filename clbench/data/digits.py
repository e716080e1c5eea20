"""The digits that come with scikit-learn: real handwriting that needs no download.

E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998: 1797 images of 8x8 pixels.
The file is read from the installed package without importing it, which would cost half a second.
"""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from clbench.data.fingerprint import content_fingerprint
from clbench.data.images import ImageSet
from clbench.errors import UserError

ROWS, SIDE, LEVELS = 1797, 8, 16
TEST_EVERY = 4


def load_digits(split: str) -> ImageSet:
    """`train` (1,352 images) or `test` (445); x is uint8 [N, 1, 8, 8].

    The file's grey levels v in 0..16 become (255 v + 8) // 16: 0 stays 0, 16 becomes 255, and
    v = (16 u + 127) // 255 gives them back. Of each class, in file order, every fourth image is for testing.
    """
    if split not in ("train", "test"):
        raise UserError(f"the digits have no split {split!r}; they have train and test")
    levels, y = _read(_file())
    chosen = np.zeros(len(y), bool)
    for label in range(10):
        chosen[np.flatnonzero(y == label)[TEST_EVERY - 1 :: TEST_EVERY]] = True
    rows = np.flatnonzero(chosen == (split == "test"))
    x = ((levels[rows].astype(np.int64) * 255 + LEVELS // 2) // LEVELS).astype(np.uint8)
    x = x.reshape(-1, 1, SIDE, SIDE)
    names = [str(label) for label in range(10)]
    info = {
        "name": "Digits (UCI, scikit-learn)",
        "kind": "image classification",
        "class_names": names,
        "num_classes": 10,
        "image_size": "8x8 greyscale",
        "licence": "CC BY 4.0 (UCI Machine Learning Repository)",
    }
    y = y[rows]
    return ImageSet("digits", x, y, names, info, content_fingerprint(x, [names[label] for label in y]))


def _file() -> Path:
    spec = find_spec("sklearn")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    raise UserError("the digits come with scikit-learn, which is not installed; run `pip install scikit-learn`")


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Grey levels uint8 [1797, 64] and labels int64 [1797]."""
    try:
        lines = gzip.decompress(path.read_bytes()).decode("ascii").split()
        table = np.array([[int(value) for value in line.split(",")] for line in lines])
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); install scikit-learn again") from None
    if table.shape != (ROWS, SIDE * SIDE + 1) or table.min() < 0 or table[:, :-1].max() > LEVELS:
        raise UserError(f"{path} does not hold {ROWS} digits of 8x8 pixels; install scikit-learn again")
    return table[:, :-1].astype(np.uint8), table[:, -1].astype(np.int64)
