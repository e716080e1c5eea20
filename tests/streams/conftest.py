"""Small image sets and builders for the tests of image streams."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clbench.config import parse_config
from clbench.data.layout import write_image_set
from clbench.registry import load_recipe
from clbench.stream import Stream

Build = Callable[..., Stream]
WriteSet = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """`build(name, order_seed=0, root=None, **settings)`: a stream as a user would get it."""

    def make(name: str, order_seed: int = 0, root: Path | None = None, **settings: Any) -> Stream:
        recipe = load_recipe(name)
        config = parse_config(recipe.Config, settings, name)
        return recipe(name, config, order_seed=order_seed, data_root=root or tmp_path).build()

    return make


@pytest.fixture
def write_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteSet:
    """`write_set(name, classes, ...)`: random images in the layout; returns the data root it was written under.

    `shuffle` is the seed of the order of rows on disk; the images themselves depend on `seed` alone.
    """
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))

    def write(
        name: str,
        classes: Sequence[str] = ("ant", "bee", "cat", "dog", "elk"),
        *,
        train: int = 20,
        test: int = 6,
        side: int = 6,
        seed: int = 0,
        shuffle: int = 0,
        root: Path | None = None,
    ) -> Path:
        root = root or tmp_path
        for split, per_class in (("train", train), ("test", test)):
            random = np.random.default_rng([seed, per_class])
            y = np.arange(per_class * len(classes)) % len(classes)
            x = random.integers(0, 256, (len(y), 3, side, side), dtype=np.uint8)
            rows = np.random.default_rng(shuffle).permutation(len(y))
            write_image_set(root / "images" / name, split, x[rows], y[rows], list(classes))
        return root

    return write


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets; the test is skipped without one."""
    if not os.environ.get("CLBENCH_DATA"):
        pytest.skip("CLBENCH_DATA names no folder of data sets")
    return Path(os.environ["CLBENCH_DATA"])
