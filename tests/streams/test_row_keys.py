"""Keys of rows: equal for equal rows, different otherwise, whatever the shape."""

from __future__ import annotations

import numpy as np
import pytest

from clbench.streams.row_keys import digest, reordered, row_keys


def pictures(n: int, side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, side, side), dtype=np.uint8)


@pytest.mark.parametrize("side", [1, 3, 8, 32])
def test_keys_follow_their_rows(side: int) -> None:
    x, y = pictures(300, side), np.arange(300) % 3
    keys = row_keys(x, y, ["a", "b", "c"])
    order = np.random.default_rng(1).permutation(300)
    assert keys.dtype == np.uint64
    assert (row_keys(x[order], y[order], ["a", "b", "c"]) == keys[order]).all()
    assert len(np.unique(keys)) == 300


def test_one_pixel_or_the_class_changes_the_key() -> None:
    x = np.zeros((3 * 64 + 2, 3, 8, 8), np.uint8)
    for pixel in range(3 * 64):
        x[pixel].reshape(-1)[pixel] = 128
    y = np.zeros(len(x), np.int64)
    y[-1] = 1
    assert len(np.unique(row_keys(x, y, ["a", "b"]))) == len(x)


def test_the_class_counts_by_name_and_not_by_number() -> None:
    x, y = pictures(10, 4), np.arange(10) % 2
    assert (row_keys(x, y, ["a", "b"]) == row_keys(x, 1 - y, ["b", "a"])).all()


def test_many_rows_are_hashed_in_pieces_like_few() -> None:
    x = pictures(700, 32)
    y = np.zeros(700, np.int64)
    alone = [row_keys(x[i : i + 1], y[:1], ["a"])[0] for i in (0, 170, 171, 699)]
    assert row_keys(x, y, ["a"])[[0, 170, 171, 699]].tolist() == alone


def test_digests_and_purposes() -> None:
    keys = row_keys(pictures(50, 4), np.zeros(50, np.int64), ["a"])
    assert digest(keys) == digest(keys[::-1])
    assert digest(keys, ordered=True) != digest(keys[::-1], ordered=True)
    assert digest(keys) != digest(keys[:-1])
    orders = [np.argsort(reordered(keys, purpose)).tolist() for purpose in ("limit", "validation", "limit")]
    assert orders[0] == orders[2] != orders[1]
