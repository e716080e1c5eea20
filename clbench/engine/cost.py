"""What a run costs: seconds, samples, counted FLOPs, bytes."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class FlopCount(TorchDispatchMode):
    """Counts the FLOPs of the operators run under it (matrix products, convolutions, attention: torch's formulas).

    Unlike torch's FlopCounterMode it never decomposes an operator, so counting changes no number.
    """

    def __init__(self) -> None:
        super().__init__()
        from torch.utils.flop_counter import flop_registry

        self.flops = 0
        self._formulas = flop_registry

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = self._formulas.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


class Meters:
    """Running totals; saved in checkpoints, so that a resumed run's cost is the whole run's.

    FLOPs of training are counted on the second step of each phase (the first, where there is one only) and multiplied;
    those of hooks outside steps are counted whole; those of evaluation are counted on the first chunk of each boundary
    evaluation and multiplied up to the next.
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
        self._counting = False
        self._started = time.perf_counter()
        self._loop_started: float | None = None
        self._before = {"total": 0.0, "loop": 0.0}

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
        self.totals[key] += count.flops

    def state(self) -> dict[str, Any]:
        before = {"total": self.total_seconds(), "loop": self.loop_seconds()}
        return {
            "totals": self.totals,
            "per_step": self.flops_per_step,
            "per_evaluation": self.flops_per_evaluation,
            "before": before,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.totals.update(state["totals"])
        self.flops_per_step = state["per_step"]
        self.flops_per_evaluation = state["per_evaluation"]
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
        }


def peak_memory_bytes() -> int:
    """Largest resident size of this process, or of the GPU allocator where one is used."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
