"""State: what a strategy remembers between steps, and how it becomes tensors and JSON in a checkpoint.

Allowed values: tensors, numbers, strings, None, lists and dicts of these, and objects with
`state_dict() -> dict` and `load_state_dict(dict)` (memories, class statistics), which must be created again by
`setup` or `build` before their values are loaded.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Stateful(Protocol):
    """An object that saves and loads itself as a dict of allowed values."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class State:
    """A namespace whose attributes are saved: `self.state.means = torch.zeros(10, 64)`."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the strategy's state has no {name!r}: create it in setup()")

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def __contains__(self, name: str) -> bool:
        return name in self.__dict__


def pack(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON; its tensors go into `tensors` under `path`. Raises TypeError for what cannot be saved."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous()
        return {"$tensor": path}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {"$dict": [[key, pack(item, f"{path}.{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [pack(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]
    if isinstance(value, Stateful):
        return {"$object": pack(value.state_dict(), path, tensors)}
    raise TypeError(
        f"{path} is a {type(value).__name__}: state holds tensors, numbers, strings, lists, dicts, memories"
    )


def unpack(packed: Any, tensors: dict[str, Tensor], current: Any = None) -> Any:
    """The value `pack` was given. `current` is what stands there now: objects are loaded in place."""
    if isinstance(packed, list):
        return [unpack(item, tensors) for item in packed]
    if not isinstance(packed, dict):
        return packed
    if "$tensor" in packed:
        return tensors[packed["$tensor"]].clone()
    if "$object" in packed:
        current.load_state_dict(unpack(packed["$object"], tensors))
        return current
    here = current if isinstance(current, dict) else {}
    return {key: unpack(item, tensors, here.get(key)) for key, item in packed["$dict"]}


def stored_bytes(value: Any) -> int:
    """Bytes of all tensors a strategy keeps between tasks."""
    tensors: dict[str, Tensor] = {}
    pack(value, "", tensors)
    return sum(t.numel() * t.element_size() for t in tensors.values())
