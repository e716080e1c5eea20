"""Optimisers over named parameters: slots are saved and carried by parameter name."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from clbench.phase import Optimizer, OptimizerState

Slots = dict[str, dict[str, Tensor]]


def build_optimizer(how: Optimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """A torch optimiser; every group keeps its own peak learning rate in `peak_lr`."""
    kind: Any = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[how.name]
    settings: dict[str, Any] = {"lr": how.lr, "weight_decay": how.weight_decay}
    settings |= {"momentum": how.momentum} if how.name == "sgd" else {"betas": how.betas}
    optimizer: torch.optim.Optimizer = kind(groups, **settings)
    for group in optimizer.param_groups:
        group["peak_lr"] = group["lr"]
    return optimizer


def update(optimizer: torch.optim.Optimizer) -> None:
    """One step of the optimiser, without torch's wrappers (profiler, hooks, breaks for its compiler)."""
    with torch.no_grad():
        inspect.unwrap(type(optimizer).step)(optimizer)


def slots_of(optimizer: torch.optim.Optimizer, names: dict[Any, str]) -> Slots:
    """The optimiser's tensors, by parameter name."""
    return {
        names[p]: {slot: value for slot, value in state.items() if isinstance(value, Tensor)}
        for p, state in optimizer.state.items()
    }


def set_slots(
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, Parameter],
    slots: Slots,
    policy: OptimizerState = "keep",
) -> None:
    """Put slots back by name. New rows of a grown parameter start at zero; keep-moments restarts the step count."""
    present = {p for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in parameters.items():
        if parameter not in present or not slots.get(name):
            continue
        optimizer.state[parameter] = {
            slot: _fitted(slot, value, parameter, policy) for slot, value in slots[name].items()
        }


def _fitted(slot: str, value: Tensor, parameter: Parameter, policy: OptimizerState) -> Tensor:
    if slot == "step":
        return torch.zeros_like(value) if policy == "keep-moments" else value.clone()
    if value.shape == parameter.shape:
        return value.clone().to(parameter.device)
    grown = torch.zeros_like(parameter)
    grown[tuple(slice(size) for size in value.shape)] = value.to(parameter.device)
    return grown
