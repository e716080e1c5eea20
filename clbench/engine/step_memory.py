"""Memory that one training step needs, counted in tensors: the same on every machine.

What an allocator or the operating system reports depends on caches, other work and the device. This is what the step
cannot do without: weights, gradients, the optimiser's tensors, and what the forward pass saves for the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

PARTS = ("parameters", "gradients", "optimizer", "activations")


@dataclass(frozen=True)
class StepBytes:
    """Bytes at one step. parameters: of the model and of frozen copies that are kept (teachers); gradients: of what is
    trained; optimizer: its tensors, of one number (step counts) left out; activations: the most that was saved for
    backward passes at a time, every storage once, weights left out."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.activations

    def as_cost(self) -> dict[str, int]:
        """For a record's cost."""
        parts = {f"memory_{name}_bytes": getattr(self, name) for name in PARTS}
        return {"memory_deterministic_bytes": self.total, **parts}


def step_bytes(models: Iterable[nn.Module], slots: Mapping[Any, Mapping[str, Any]], activations: int) -> StepBytes:
    """After a step: its gradients still in place. models: the one that is trained, and its frozen copies; slots: the
    optimiser's state by parameter; activations: `Activations.peak`."""
    parameters = {id(p): p for model in models for p in model.parameters()}.values()
    gradients = [p.grad for p in parameters if p.grad is not None]
    tensors = [t for state in slots.values() for t in state.values() if isinstance(t, Tensor) and t.dim() > 0]
    return StepBytes(_bytes(parameters), _bytes(gradients), _bytes(tensors), activations)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


class Activations:
    """While `measured`, follows what autograd saves: `peak` is the most bytes of distinct storages alive at a time.

    Storages of the given modules' parameters and buffers do not count. Nothing that is computed changes.
    """

    def __init__(self, models: Iterable[nn.Module]) -> None:
        self.peak = 0
        self._bytes = 0
        self._users: dict[int, int] = {}
        tensors = [t for model in models for t in (*model.parameters(), *model.buffers())]
        self._weights = {_storage(t) for t in tensors}

    @contextmanager
    def measured(self) -> Iterator[None]:
        with saved_tensors_hooks(self._pack, _unpack), _aside_for_transforms(self._pack, _unpack):
            yield

    def _pack(self, tensor: Tensor) -> _Saved | Tensor:
        storage = _storage(tensor)
        if storage in self._weights:
            return tensor
        if storage not in self._users:
            self._bytes += tensor.untyped_storage().nbytes()
            self.peak = max(self.peak, self._bytes)
        self._users[storage] = self._users.get(storage, 0) + 1
        return _Saved(tensor, self)

    def release(self, tensor: Tensor) -> None:
        """Autograd needs it no longer."""
        storage = _storage(tensor)
        self._users[storage] -= 1
        if not self._users[storage]:
            del self._users[storage]
            self._bytes -= tensor.untyped_storage().nbytes()


class _Saved:
    """A saved tensor; it keeps the storage alive, so that no other can take its place in the count."""

    def __init__(self, tensor: Tensor, owner: Activations) -> None:
        self.tensor, self._owner = tensor, owner

    def __del__(self) -> None:
        self._owner.release(self.tensor)


def _unpack(saved: _Saved | Tensor) -> Tensor:
    return saved.tensor if isinstance(saved, _Saved) else saved


def _storage(tensor: Tensor) -> int:
    """What tells a live storage from others: meta tensors have no address."""
    return int(tensor.untyped_storage()._cdata)


@contextmanager
def _aside_for_transforms(pack: Any, unpack: Any) -> Iterator[None]:
    """torch.func refuses to work under such hooks: take them off while it does."""
    graph: Any = torch.autograd.graph
    autograd: Any = torch._C._autograd
    original = graph.disable_saved_tensors_hooks

    @contextmanager
    def disabled(message: str) -> Iterator[None]:
        top = autograd._top_saved_tensors_default_hooks(True)
        ours = top is not None and top[0] == pack
        if ours:
            autograd._pop_saved_tensors_default_hooks()
        try:
            with original(message):
                yield
        finally:
            if ours:
                autograd._push_saved_tensors_default_hooks(pack, unpack)

    graph.disable_saved_tensors_hooks = disabled
    try:
        yield
    finally:
        graph.disable_saved_tensors_hooks = original
