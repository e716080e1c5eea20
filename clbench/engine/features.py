"""Features of a frozen backbone: computed once for a sample, ever, and kept on disk for all runs that share them.

The key is everything the values depend on: the pool's bytes in order, the backbone as specified (with the seed where
its weights are drawn from it), precision, memory format, device and package versions. Where everything asked for is
cached the backbone is not even built.
"""

from __future__ import annotations

import fcntl
import json
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clbench.engine.environment import Environment
from clbench.engine.evaluation import chunks
from clbench.models.modes import in_eval_mode
from clbench.objectives import Objective
from clbench.samples import Pool

VERSION = 1


class Features:
    """Reads features of a pool's rows, float32 [B, d]; computes what is missing, in chunks of 32 to 64 rows."""

    def __init__(
        self,
        identity: dict[str, Any],
        model: Callable[[], Any],
        objective: Objective,
        environment: Environment,
        folder: Path | None,
        extract: Callable[[Any, Tensor], Tensor] = lambda model, x: model.features(x),
    ) -> None:
        self.computed = 0
        self._identity = identity
        self._model = model
        self._extract = extract
        self._objective = objective
        self._environment = environment
        self._folder = folder
        self._pools: dict[Pool, _Cached] = {}

    def read(self, pool: Pool, index: Tensor) -> Tensor:
        """Features of these rows of the pool: float32 [len(index), d], on the CPU."""
        cached = self._cached(pool)
        wanted = index.numpy()
        missing = (
            torch.from_numpy(wanted[~cached.done[wanted]]).unique() if cached.values is not None else index.unique()
        )
        if len(missing):
            self._compute(pool, cached, missing)
        assert cached.values is not None
        return torch.from_numpy(cached.values[wanted])

    def width(self, pool: Pool) -> int:
        """d, the length of a feature vector; a sample of the pool is computed where none is known."""
        return self.read(pool, torch.zeros(1, dtype=torch.int64)).shape[1]

    def flush(self) -> None:
        """Write what was computed to disk, atomically. A cache that cannot be written is done without."""
        for cached in self._pools.values():
            cached.write()

    def _cached(self, pool: Pool) -> _Cached:
        if pool not in self._pools:
            key = None
            if self._folder is not None:
                key = sha256(
                    json.dumps([VERSION, _pool_key(pool), self._identity], sort_keys=True).encode()
                ).hexdigest()
            self._pools[pool] = _Cached(len(pool.labels), self._folder / key if self._folder and key else None)
        return self._pools[pool]

    def _compute(self, pool: Pool, cached: _Cached, missing: Tensor) -> None:
        model = self._model()
        with in_eval_mode(model), torch.no_grad():
            for filled, n in chunks(len(missing)):
                index = missing[filled]
                raw = pool.inputs[index].to(self._environment.device)
                x, _ = self._objective.inputs(raw, pool.labels[index].to(raw.device), "plain", None)
                with self._environment.autocast():
                    values = self._extract(model, x)[:n].float().cpu().numpy()
                cached.put(index[:n].numpy(), values)
        self.computed += len(missing)


class _Cached:
    """One pool's features: a copy-on-write map of the file, or an array, and which rows are there."""

    def __init__(self, rows: int, folder: Path | None) -> None:
        self.done = np.zeros(rows, dtype=bool)
        self.values: np.ndarray | None = None
        self._folder = folder
        self._new = False
        if folder is None:
            return
        try:
            done = np.load(folder / "done.npy")
            values = np.load(folder / "values.npy", mmap_mode="c")
        except (OSError, ValueError):
            return
        if done.shape == (rows,) and len(values) == rows:
            self.done, self.values = done, values

    def put(self, index: np.ndarray, values: np.ndarray) -> None:
        if self.values is None:
            self.values = np.zeros((len(self.done), values.shape[1]), dtype=np.float32)
        self.values[index] = values
        self.done[index] = True
        self._new = True

    def write(self) -> None:
        """Add to what other runs have written by now; one run writes at a time."""
        if not self._new or self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._take_over(_Cached(len(self.done), self._folder))
                for name, array in (("values", self.values), ("done", self.done)):
                    partial = self._folder / f".{name}.npy"
                    np.save(partial, array)  # type: ignore[arg-type]
                    partial.replace(self._folder / f"{name}.npy")
            self._new = False
        except OSError:
            self._folder = None

    def _take_over(self, other: _Cached) -> None:
        theirs = (other.done & ~self.done).nonzero()[0]
        if len(theirs) and other.values is not None:
            self.put(theirs, other.values[theirs])


def _pool_key(pool: Pool) -> list[Any]:
    """The pool's fingerprint and shape; a checksum of its bytes where the stream gave no fingerprint."""
    if pool.fingerprint:
        return [pool.fingerprint, list(pool.inputs.shape)]
    data: Any = np.ascontiguousarray(pool.inputs.numpy())
    return [zlib.crc32(memoryview(data).cast("B")), list(data.shape)]
