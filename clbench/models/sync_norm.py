"""Batch statistics over all devices of a run.

On GPUs timm's and torch's SyncBatchNorm; torch's does not run on the CPU, so there the statistics are summed up here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from clbench.errors import UserError


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with every BatchNorm layer replaced by one that has the statistics of the batches of all processes.

    Parameters, buffers and their names are kept. Raises UserError for a kind of BatchNorm that cannot be replaced.
    """
    if device.type == "cuda":
        from clbench.torchvision_schemas import prepare

        prepare()
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm(model)
    if isinstance(model, _BatchNorm):
        return SynchronisedNorm(model)
    for name, child in model.named_children():
        setattr(model, name, synchronised(child, device))
    return model


class SynchronisedNorm(_BatchNorm):
    """A BatchNorm layer (timm's with an activation included) whose batch is that of all processes.

    Mean and variance of all rows: two sums over the processes forward, and two backward. Every process must call it
    alike. Where all processes have equal rows, mean and variance are those of one, but the running variance counts the
    rows of all: it is smaller by the factor (1 - 1/n) / (1 - 1/(n * processes)), n the rows of one.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        plain = type(norm).forward in {kind.forward for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)}
        with_activation = isinstance(getattr(norm, "act", None), nn.Module) and hasattr(norm, "drop")
        if not (plain or with_activation):
            raise UserError(
                f"--sync-bn: cannot synchronise {type(norm).__name__} layers; leave it out, or use --devices 1"
            )
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        for name, parameter in norm.named_parameters(recurse=False):
            setattr(self, name, parameter)
        for name, buffer in norm.named_buffers(recurse=False):
            setattr(self, name, buffer)
        self.training = norm.training
        self.drop: Any = norm.drop if with_activation else nn.Identity()
        self.act: Any = norm.act if with_activation else nn.Identity()

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, not {input.dim()}")

    def forward(self, x: Tensor) -> Tensor:
        """float [B, C, ...] to the same."""
        if not self.training or not torch.distributed.is_initialized():
            return self.act(self.drop(super().forward(x)))
        dims = [0, *range(2, x.dim())]
        shape = (1, -1, *[1] * (x.dim() - 2))
        rows = torch.tensor([float(x.numel() // x.shape[1])])
        torch.distributed.all_reduce(rows)
        n = rows.item()
        wide = x.float()
        mean = _summed(wide.sum(dims)) / n
        centred = wide - mean.view(shape)
        variance = _summed(centred.square().sum(dims)) / n
        if self.running_mean is not None and self.running_var is not None:
            self._track(mean.detach(), variance.detach() * n / max(n - 1, 1))
        out = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return self.act(self.drop(out.to(x.dtype)))

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


class _Sum(torch.autograd.Function):
    """The sum over processes; so is the gradient's."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)


def _summed(values: Tensor) -> Tensor:
    return _Sum.apply(values)
