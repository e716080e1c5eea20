"""Keys of images by what they show: every choice of rows hangs on them, none on the order of rows on disk."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

CHUNK = 1 << 19  # bytes hashed together: small enough for the processor's cache


def row_keys(x: np.ndarray, y: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """uint64 [N]: a hash of each row's pixels and class name. Equal rows of one class have equal keys.

    x: uint8 [N, ...]; y: int64 [N], positions in `class_names`. Two multiply-shift hashes of 32 bits over the row's
    32-bit words (Dietzfelbinger 1996), joined: rows that differ collide with probability 2**-64.
    """
    weights = _weights(-(-int(np.prod(x.shape[1:])) // 4))
    keys = np.empty(len(x), np.uint64)
    step = max(1, CHUNK // max(1, int(np.prod(x.shape[1:]))))
    for start in range(0, len(x), step):
        words = _words(x[start : start + step])
        high, low = words @ weights[0], words @ weights[1]
        keys[start : start + step] = (high >> np.uint64(32) << np.uint64(32)) | (low >> np.uint64(32))
    names = np.array([salt(name) for name in class_names], np.uint64)
    return mixed(keys ^ names[y])


def mixed(keys: np.ndarray) -> np.ndarray:
    """uint64 to uint64: the finaliser of SplitMix64 (Steele et al. 2014), a bijection."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def salt(text: str) -> np.uint64:
    """64 bits from a text."""
    return np.uint64(int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little"))


def reordered(keys: np.ndarray, purpose: str) -> np.ndarray:
    """Other keys for another purpose: sorting by them is an independent, fixed shuffle."""
    return mixed(keys ^ salt(purpose))


def digest(keys: np.ndarray, *, ordered: bool = False) -> str:
    """32 hexadecimal digits: hash of the keys as a multiset, or in order."""
    values = keys if ordered else np.sort(keys)
    return blake2b(values.astype("<u8").tobytes(), digest_size=16).hexdigest()


def _words(rows: np.ndarray) -> np.ndarray:
    flat = np.ascontiguousarray(rows).reshape(len(rows), -1)
    missing = -flat.shape[1] % 4
    if missing:
        flat = np.pad(flat, ((0, 0), (0, missing)))
    return flat.view("<u4").astype(np.uint64)


def _weights(n: int) -> np.ndarray:
    random = np.random.RandomState(0)
    return random.randint(0, 2**32, (2, n, 2), dtype=np.uint64) @ np.array([2**32, 1], np.uint64)
