"""What an Avalanche strategy keeps between tasks, found by looking through its plugins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .avalanche_data import Pools

PASSING = {
    "model", "optimizer", "experience", "evaluator", "clock", "dataloader", "adapted_dataset", "mbatch", "mb_output",
    "loss", "current_eval_stream", "_eval_streams", "replay_loader", "mb_x", "mb_y",
}  # fmt: skip


class Held:
    """The tensors and samples that a strategy's plugins hold, for the count of stored bytes and the state's hash.

    They are written, and never read back: a strategy that holds any is not resumed from a checkpoint.
    """

    def __init__(self, strategy: Any, pools: Pools) -> None:
        self._strategy = strategy
        self._pools = pools

    def state_dict(self) -> dict[str, Any]:
        """Tensors by the place they were found at; samples as their stored rows and labels."""
        seen = {id(self._strategy.model), *(id(p) for p in self._strategy.model.parameters())}
        return dict(_held(self._strategy, "", seen, self._pools))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to put back."""


def _held(thing: Any, place: str, seen: set[int], pools: Pools) -> Iterator[tuple[str, Tensor]]:
    if id(thing) in seen or isinstance(thing, (str, bytes, int, float, bool, type(None))):
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield place, thing.detach()
    elif isinstance(thing, nn.Module):
        for name, value in thing.state_dict().items():
            yield f"{place}.{name}", value
    elif hasattr(thing, "_flat_data") and hasattr(thing, "sample_ids"):
        yield from _rows(thing, place, pools)
    elif isinstance(thing, Mapping):
        for key, value in thing.items():
            yield from _held(value, f"{place}[{key}]", seen, pools)
    elif isinstance(thing, (list, tuple)):
        for number, value in enumerate(thing):
            yield from _held(value, f"{place}[{number}]", seen, pools)
    elif type(thing).__module__.startswith("avalanche") and hasattr(thing, "__dict__"):
        for name, value in vars(thing).items():
            if name not in PASSING:
                yield from _held(value, f"{place}.{name}", seen, pools)


def _rows(data: Any, place: str, pools: Pools) -> Iterator[tuple[str, Tensor]]:
    """The stored rows of a data set made of parts of tasks, and what it keeps beside each."""
    if not len(data):
        return
    rows, labels = zip(*(pools.row(int(i)) for i in data.sample_ids), strict=True)
    yield f"{place}.raw", torch.stack(rows)
    yield f"{place}.labels", torch.stack(labels)
    if hasattr(data, "logits"):
        yield f"{place}.logits", torch.stack([torch.as_tensor(row) for row in data.logits])
