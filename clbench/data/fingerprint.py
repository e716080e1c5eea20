"""Hashes of what a data set contains, whatever its order on disk and wherever it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from clbench.data.text import Document

DIGEST = 16  # bytes


def content_fingerprint(x: np.ndarray, y_names: Sequence[str]) -> str:
    """Hash of the multiset of (decoded row, class name); 32 hexadecimal digits.

    `x` is any array [N, ...]; its row shape and dtype are part of the hash. `y_names` has one class name a
    row. Row order and label numbering do not matter, duplicates count.
    """
    if len(x) != len(y_names):
        raise ValueError(f"{len(x)} rows and {len(y_names)} class names")
    suffixes = {name: _framed(name) for name in set(y_names)}
    rows: list[bytes] = []
    for row, name in zip(np.ascontiguousarray(x), y_names, strict=True):
        digest = hashlib.blake2b(row.data, digest_size=DIGEST)
        digest.update(suffixes[name])
        rows.append(digest.digest())
    return _combine(rows, f"{x.shape[1:]} {x.dtype.str}")


def text_fingerprint(documents: Sequence[Document]) -> str:
    """Hash of the multiset of documents: text, year, timestamp and language, but not the document's name."""
    rows: list[bytes] = []
    for document in documents:
        digest = hashlib.blake2b(_framed(document.text), digest_size=DIGEST)
        digest.update(repr((document.year, document.timestamp, document.lang)).encode())
        rows.append(digest.digest())
    return _combine(rows, "text")


def _framed(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return encoded + len(encoded).to_bytes(8, "little")


def _combine(rows: list[bytes], header: str) -> str:
    total = hashlib.blake2b(header.encode(), digest_size=DIGEST)
    total.update(b"".join(sorted(rows)))
    return total.hexdigest()
