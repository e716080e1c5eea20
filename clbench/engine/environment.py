"""The machine and settings a run's bytes depend on: chosen, applied, recorded, and compared on resuming."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from clbench import machine
from clbench.engine.cost import FlopCount
from clbench.engine.freed_memory import keep_freed_memory
from clbench.engine.uncompiled import keep_compiler_out
from clbench.errors import UserError
from clbench.spec import RunSpec

PACKAGES = ("clbench", "torch", "numpy", "timm", "transformers", "peft", "safetensors")


class Environment:
    """Device, precision, threads and memory format of a run, resolved from its specification."""

    def __init__(self, spec: RunSpec) -> None:
        if spec.device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: no GPU is visible to torch; use --device cpu")
        on_gpu = spec.device == "cuda" or (spec.device == "auto" and torch.cuda.is_available())
        self.device = torch.device("cuda" if on_gpu else "cpu")
        fields = machine_fields(spec, on_gpu)
        self.precision: str = fields["precision"]
        self.channels_last: bool = fields["channels_last"]
        self.compile = spec.compile
        self.devices = spec.devices
        self.sync_bn = spec.sync_bn and spec.devices > 1
        self.threads = spec.threads or machine.threads(spec.devices)

    def apply(self) -> None:
        """Set threads, numpy's included; on a CPU, what becomes of freed memory; on a GPU, deterministic algorithms."""
        torch.set_num_threads(self.threads)
        threadpool_limits(self.threads, user_api="blas")
        if not self.compile:
            keep_compiler_out(FlopCount, "__torch_dispatch__")
            keep_compiler_out(torch.optim.Optimizer, "add_param_group", "zero_grad", "state_dict")
        if self.device.type == "cpu":
            keep_freed_memory()
        else:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.backends.cudnn.benchmark = False

    def resolved(self) -> dict[str, Any]:
        """The fields of a specification that were left to this machine, as it chose them."""
        return {
            "device": self.device.type,
            "precision": self.precision,
            "threads": self.threads,
            "channels_last": self.channels_last,
        }

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of every loss and prediction."""
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def conditions(self) -> dict[str, Any]:
        """What byte-identity is promised for."""
        return {
            "device": self.device.type,
            "precision": self.precision,
            "threads": self.threads,
            "channels_last": self.channels_last,
            "compile": self.compile,
            "versions": package_versions(),
        }

    def describe(self) -> dict[str, Any]:
        """The environment part of a record."""
        gpu = torch.cuda.get_device_name() if self.device.type == "cuda" else None
        return {
            **self.conditions(),
            "devices": self.devices,
            "sync_bn": self.sync_bn,
            "python": platform.python_version(),
            "platform": f"{platform.system()}-{platform.machine()}",
            "processor": processor(),
            "gpu": gpu,
        }


def machine_fields(spec: RunSpec, on_gpu: bool) -> dict[str, Any]:
    """Device, precision and memory format of a specification on a machine with or without a GPU for it."""
    precision = ("bf16" if on_gpu else "fp32") if spec.precision == "auto" else spec.precision
    quicker = on_gpu or precision == "bf16"  # in fp32 on a CPU it depends on the model
    return {
        "device": "cuda" if on_gpu else "cpu",
        "precision": precision,
        "channels_last": quicker if spec.channels_last is None else spec.channels_last,
    }


def package_versions(names: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of the packages that numbers depend on."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """The name of this machine's processor."""
    try:
        with Path("/proc/cpuinfo").open() as lines:
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
