"""Digests of a strategy's attributes: what changed, whatever it is made of."""

from __future__ import annotations

import sys
from collections import deque
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clbench.strategy import Strategy

DEEPEST = 6
OF_THE_ENGINE = frozenset({"config", "state", "_services"})


def own_attributes(strategy: Strategy) -> dict[str, Any]:
    """What a strategy keeps where the engine does not save it: on itself, on its class, or in its module.

    Keys are names as in `self.count`, `MyMethod.cache` or `my_method.CACHE`. Of classes and modules, only values that
    can be changed in place or counted up.
    """
    kept = {f"self.{name}": value for name, value in vars(strategy).items() if name not in OF_THE_ENGINE}
    for kind in type(strategy).__mro__:
        module = sys.modules.get(kind.__module__)
        if kind is Strategy or module is None:
            break
        kept |= {f"{kind.__name__}.{name}": value for name, value in vars(kind).items() if _may_change(name, value)}
        label = Path(getattr(module, "__file__", None) or kind.__module__).stem
        kept |= {f"{label}.{name}": value for name, value in vars(module).items() if _may_change(name, value)}
    return kept


def _may_change(name: str, value: Any) -> bool:
    holders = (Tensor, np.ndarray, list, dict, set, deque, int, float, torch.Generator)
    return not name.startswith("__") and isinstance(value, holders)


def attribute_digests(strategy: Strategy) -> dict[str, str]:
    """Hex digest of each attribute that the engine does not save; parts of the model are left out: they are saved."""
    own = own_attributes(strategy)
    if not own:
        return {}
    model = strategy._services._model
    saved = {id(part) for part in (*model.modules(), *model.parameters(), *model.buffers())} if model else set()
    return {name: digest(value, saved) for name, value in own.items()}


def is_container(value: Any) -> bool:
    """Whether looking at the items of a value changes nothing: a data loader draws random numbers when it is read."""
    if isinstance(value, (list, tuple, deque)):
        return True
    return hasattr(value, "__iter__") and hasattr(value, "__len__") and not hasattr(value, "__dict__")


def digest(value: Any, leave_out: set[int] | None = None) -> str:
    """Hex digest of a value, by what it holds."""
    hasher = blake2b(digest_size=12)
    _feed(hasher, value, leave_out or set(), DEEPEST)
    return hasher.hexdigest()


def _feed(hasher: Any, value: Any, leave_out: set[int], depth: int) -> None:
    hasher.update(type(value).__name__.encode())
    if id(value) in leave_out or depth == 0:
        return
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous()
        hasher.update(str((plain.dtype, tuple(plain.shape))).encode())
        hasher.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, np.ndarray):
        hasher.update(str((value.dtype, value.shape)).encode() + value.tobytes())
    elif isinstance(value, torch.Generator):
        hasher.update(value.get_state().numpy().tobytes())
    elif isinstance(value, nn.Module):
        _feed(hasher, value.state_dict(), leave_out, depth - 1)
    elif value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        hasher.update(repr(value).encode())
    elif isinstance(value, dict):
        for key, item in value.items():
            hasher.update(repr(key).encode())
            _feed(hasher, item, leave_out, depth - 1)
    elif isinstance(value, (set, frozenset)):
        hasher.update(repr(sorted(map(repr, value))).encode())
    elif is_container(value):
        for item in value:
            _feed(hasher, item, leave_out, depth - 1)
    elif hasattr(value, "__dict__") and not callable(value):
        _feed(hasher, vars(value), leave_out, depth - 1)
