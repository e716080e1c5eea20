"""The two hashes of a stream: what it holds, and in which order it brings it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from .row_keys import digest


def content_hash(parameters: Mapping[str, Any]) -> str:
    """32 hexadecimal digits: hash of fingerprints, class names and everything the stream was built with."""
    return _hash(parameters)


def order_hash(tasks: Sequence[Mapping[str, Any]]) -> str:
    """32 hexadecimal digits: hash of the tasks in order. Arrays of row keys count as multisets."""
    return _hash([{k: digest(v) if isinstance(v, np.ndarray) else v for k, v in task.items()} for task in tasks])


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()
