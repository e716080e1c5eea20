"""Finding training samples, or their features, in what a strategy keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clbench.conformance.digest import is_container
from clbench.samples import Samples
from clbench.state import Stateful

DEEPEST = 6


class Rows:
    """A set of known vectors, recognised by their values in whatever type and shape they are kept."""

    def __init__(self) -> None:
        self._known: dict[int, set[bytes]] = {}

    def add(self, rows: Tensor) -> None:
        """Vectors: everything but the first dimension. Constant ones say nothing and are left out."""
        for row in _as_rows(rows, rows[0].numel() if len(rows) else 1):
            if row.min() != row.max():
                self._known.setdefault(row.size, set()).add(row.tobytes())

    def count(self, value: Any, but: Rows | None = None) -> int:
        """How many known vectors stand in a value (tensors, arrays, and what holds them), `but` another set's."""
        found = set()
        for tensor in tensors_in(value, DEEPEST):
            for size, known in self._known.items():
                if any(tensor.shape[i:].numel() == size for i in range(tensor.dim() + 1)):
                    found |= {row.tobytes() for row in _as_rows(tensor, size)} & known
        return len(found - but._all() if but else found)

    def _all(self) -> set[bytes]:
        return set().union(*self._known.values())


def tensors_in(value: Any, depth: int) -> Iterator[Tensor]:
    """Every tensor, array and list of numbers in a value, as tensors; of `Samples` their own rows of the pool."""
    if depth == 0 or value is None or isinstance(value, (str, bool, int, float, type)):
        return
    if isinstance(value, Tensor):
        yield value.detach()
    elif isinstance(value, np.ndarray):
        if value.dtype.kind in "fiub":
            yield torch.as_tensor(value.astype(np.float64))
    elif isinstance(value, Samples):
        yield value.raw(torch.arange(len(value)))
    elif isinstance(value, nn.Module):
        yield from (t.detach() for t in value.state_dict().values())
    elif isinstance(value, (bytes, bytearray)):
        yield torch.tensor(list(value))
    else:
        items = _items(value)
        if items and all(isinstance(item, (int, float)) for item in items):
            yield torch.tensor(items, dtype=torch.float64)
            return
        for item in items:
            yield from tensors_in(item, depth - 1)


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if is_container(value) or isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, Stateful):
        return list(value.state_dict().values())
    return list(vars(value).values()) if hasattr(value, "__dict__") and not callable(value) else []


def _as_rows(tensor: Tensor, size: int) -> np.ndarray:
    """float64 [n, size]."""
    plain = tensor.detach().cpu()
    return np.ascontiguousarray(plain.reshape(-1, size).double().numpy())
