"""Train mode, eval mode, and train mode with BatchNorm statistics frozen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Mode = Literal["train", "eval", "frozen_norms"]


def set_mode(model: nn.Module, mode: Mode) -> None:
    """Put the whole model into a mode.

    "frozen_norms" is train mode, except that BatchNorm layers use and keep their running statistics. Layers
    that have no running statistics (LayerNorm, GroupNorm) behave the same in all modes.
    """
    if mode not in ("train", "eval", "frozen_norms"):
        raise ValueError(f"mode {mode!r}: use train, eval or frozen_norms")
    model.train(mode != "eval")
    if mode == "frozen_norms":
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; every module is put back to its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def running_statistics(model: nn.Module) -> list[Tensor]:
    """Running means and variances that a training step changes: those of BatchNorm layers in train mode."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    return [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None]


def has_batch_statistics(model: nn.Module) -> bool:
    """Whether a sample's outputs depend on the others of its batch, in train mode."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())
