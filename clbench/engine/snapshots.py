"""Frozen copies of the model (teachers): taken by strategies, saved and rebuilt by the engine."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn


def freeze(model: nn.Module) -> nn.Module:
    """A copy in eval mode, without gradients."""
    frozen = copy.deepcopy(model).eval()
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    return frozen


class Snapshots:
    """Snapshots by name. Each remembers after how many `build`s it was taken: its structure is the model's then."""

    def __init__(self) -> None:
        self._models: dict[str, nn.Module] = {}
        self._built: dict[str, int] = {}

    def take(self, name: str, model: nn.Module, built: int) -> nn.Module:
        self._models[name] = freeze(model)
        self._built[name] = built
        return self._models[name]

    def get(self, name: str) -> nn.Module | None:
        return self._models.get(name)

    def models(self) -> list[nn.Module]:
        """All of them."""
        return list(self._models.values())

    def copy(self) -> Snapshots:
        """The same models under the same names: what is taken later is not in it."""
        other = Snapshots()
        other._models, other._built = dict(self._models), dict(self._built)
        return other

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint: `name/tensor`."""
        return {f"{name}/{key}": t for name, m in self._models.items() for key, t in m.state_dict().items()}

    def state(self) -> dict[str, Any]:
        return dict(self._built)

    def rebuild(self, saved: dict[str, Any], model: nn.Module, built: int) -> None:
        """While builds are replayed: copy the structure for the snapshots taken after this many."""
        for name, at in saved.items():
            if at == built:
                self.take(name, model, built)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put saved values into the rebuilt snapshots."""
        for name, model in self._models.items():
            prefix = f"{name}/"
            model.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})

    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.tensors().values())
