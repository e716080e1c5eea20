"""Small sets and a cache of their own for every test of the data layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clbench.data.layout import write_image_set

NAMES = ["ant", "bee", "cat"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("CLBENCH_CACHE", str(folder))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "sets"


def pictures(n: int, side: int = 8, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, channels, side, side), dtype=np.uint8)


@pytest.fixture
def tiny(root: Path) -> Path:
    """ROOT/images/tiny: 12 train and 6 test images of 8x8 in three classes."""
    folder = root / "images" / "tiny"
    write_image_set(folder, "train", pictures(12), np.arange(12) % 3, NAMES)
    write_image_set(folder, "test", pictures(6, seed=1), np.arange(6) % 3, NAMES)
    return folder
