"""What a run costs: seconds, samples, counted FLOPs, bytes."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from clbench.engine.attention_flops import attention_formulas
from clbench.engine.step_memory import StepBytes

FLOPS_VERSION = 2
"""1: without the attention of fused kernels on CPUs, without what hooks after the backward pass compute, and from the
second step of each phase alone."""


class FlopCount(TorchDispatchMode):
    """Counts the FLOPs of the operators run under it: matrix products and convolutions by torch's formulas, attention
    by those of `attention_flops`, whichever kernel computes it. Element-wise operators count nothing.

    Unlike torch's FlopCounterMode it never decomposes an operator, and it asks for no other kernel: counting changes no
    number.
    """

    def __init__(self) -> None:
        super().__init__()
        from torch.utils.flop_counter import flop_registry

        self.flops = 0
        self._formulas = flop_registry
        self._attention = attention_formulas()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        operator = func._overloadpacket
        if operator in self._attention:
            self.flops += self._attention[operator](*args, **(kwargs or {}))
        elif operator in self._formulas:
            self.flops += self._formulas[operator](*args, **(kwargs or {}), out_val=out)
        return out


class Meters:
    """Running totals; saved in checkpoints, so that a resumed run's cost is the whole run's.

    FLOPs of training are counted, hooks included, on the steps 0, 1, 2, 4, 8, ... of each phase and on those with a
    size of batch that is new in it; other steps cost what the latest counted one of their size did. Those of hooks
    outside steps are counted whole; those of evaluation are counted on the first chunk of each boundary evaluation and
    multiplied up to the next. Memory is measured on the steps that are counted: `memory` is that of the one that needed
    most.
    """

    def __init__(self) -> None:
        self.totals: dict[str, float] = {
            "seconds_evaluate": 0.0,
            "seconds_trace": 0.0,
            "seconds_checkpoints": 0.0,
            "flops_train": 0,
            "flops_evaluate": 0,
            "samples_train": 0,
            "samples_remembered": 0,
            "samples_of_other_sources": 0,
            "samples_evaluate": 0,
            "steps": 0,
            "steps_branch": 0,
            "stored_bytes": 0,
        }
        self.flops_per_step: dict[str, float] = {}
        self.flops_per_evaluation: float | None = None
        self.memory: StepBytes | None = None
        self.step_count: FlopCount | None = None
        self._counting = False
        self._started = time.perf_counter()
        self._loop_started: float | None = None
        self._before = {"total": 0.0, "loop": 0.0}

    def counts(self, step: int, key: str) -> bool:
        """Whether a step of a phase, 0-based, is one to count. key: of the phase and the size of the batch."""
        return step & (step - 1) == 0 or key not in self.flops_per_step

    def start_loop(self) -> None:
        """Set-up is over; training begins or goes on."""
        self._loop_started = time.perf_counter()

    def add(self, key: str, amount: float) -> None:
        self.totals[key] += amount

    def total_seconds(self) -> float:
        """Wall seconds so far, earlier sittings of a resumed run included."""
        return self._before["total"] + time.perf_counter() - self._started

    def loop_seconds(self) -> float:
        """The same without set-up: training, evaluation and checkpoints."""
        here = time.perf_counter() - self._loop_started if self._loop_started is not None else 0.0
        return self._before["loop"] + here

    @contextmanager
    def seconds(self, *keys: str) -> Iterator[None]:
        """Add the block's wall seconds to these totals."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            for key in keys:
                self.totals[key] += spent

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time that passes inside is not the run's."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self._started += spent
            if self._loop_started is not None:
                self._loop_started += spent

    @contextmanager
    def counted(self, key: str) -> Iterator[None]:
        """Add the FLOPs run inside the block; inside another such block they are counted already."""
        if self._counting:
            yield
            return
        self._counting = True
        try:
            with FlopCount() as count:
                yield
        finally:
            self._counting = False
        if self.step_count is not None:  # of every step it is counted as it comes
            self.step_count.flops -= count.flops
        self.totals[key] += count.flops

    def measured(self, found: StepBytes) -> None:
        """A step's memory."""
        if self.memory is None or found.total > self.memory.total:
            self.memory = found

    def state(self) -> dict[str, Any]:
        before = {"total": self.total_seconds(), "loop": self.loop_seconds()}
        return {
            "totals": self.totals,
            "per_step": self.flops_per_step,
            "per_evaluation": self.flops_per_evaluation,
            "memory": None if self.memory is None else asdict(self.memory),
            "before": before,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.totals.update(state["totals"])
        self.flops_per_step = state["per_step"]
        self.flops_per_evaluation = state["per_evaluation"]
        self.memory = StepBytes(**state["memory"]) if state.get("memory") else None
        self._before = state["before"]

    def summary(self) -> dict[str, Any]:
        """The cost part of a record; `seconds_train` is what evaluation and checkpoints leave of the loop."""
        t = self.totals
        train = max(0.0, self.loop_seconds() - t["seconds_evaluate"] - t["seconds_checkpoints"])
        counts = {key: int(value) for key, value in t.items() if not key.startswith("seconds")}
        seconds = {key: value for key, value in t.items() if key.startswith("seconds")}
        return {
            "seconds_total": self.total_seconds(),
            "seconds_train": train,
            **seconds,
            **counts,
            "samples_per_second": t["samples_train"] / train if train > 0 else None,
            "trace_share": t["seconds_trace"] / self.total_seconds(),
            "peak_memory_bytes": peak_memory_bytes(),
            "flops_version": FLOPS_VERSION,
            **({} if self.memory is None else self.memory.as_cost()),
        }


class StepCount(FlopCount):
    """Counts a part of a step under way, for itself and for steps like it that follow. parts: equal ones, elsewhere."""

    def __init__(self, meters: Meters, key: str, parts: int) -> None:
        super().__init__()
        self._meters, self._key, self._parts = meters, key, parts

    def __enter__(self) -> StepCount:
        self._meters.step_count = self
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._meters.step_count = None
        flops = self.flops * self._parts
        self._meters.flops_per_step[self._key] += flops
        self._meters.add("flops_train", flops)


def peak_memory_bytes() -> int:
    """Largest resident size of this process, or of the GPU allocator where one is used."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
