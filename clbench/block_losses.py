"""The loss of every evaluation block of a run of language modelling, and paired differences between two runs.

Two runs of one stream are evaluated on the same blocks. Blocks differ in difficulty far more than models do, so the
standard error of a difference is taken over the blocks' differences, not from two means.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from clbench.errors import UserError
from clbench.files import write_atomically
from clbench.record import Record, read_record
from clbench.table import EvaluationTable, Row

FILE = "block_losses.npz"
TABLE = "evaluations.parquet"
PREFERRED = ("deploy", "anneal", "train")
"""Which weights an evaluation speaks of, as in the metrics: at a fork those of the anneal."""
ROUNDING = 1e-9


@dataclass(frozen=True)
class BlockLosses:
    """What one run's file holds: an entry for every time that a set was scored, in the order of the table.

    step, tasks_seen, n: int64 [E]; eval_set, kind, weights: text [E]; all as in the evaluation table. losses: float32
    [sum of n], in nats per token, entry after entry; within one, blocks in the order of the set.
    """

    step: NDArray[np.int64]
    tasks_seen: NDArray[np.int64]
    eval_set: NDArray[np.str_]
    kind: NDArray[np.str_]
    weights: NDArray[np.str_]
    n: NDArray[np.int64]
    losses: NDArray[np.float32]

    def of(self, entry: int) -> NDArray[np.float32]:
        """float32 [n]: the losses of an entry."""
        end = int(self.n[: entry + 1].sum())
        return self.losses[end - int(self.n[entry]) : end]

    def find(self, eval_set: str, step: int | None = None, weights: str | None = None) -> int | None:
        """The entry of a set's evaluation at this step (None: the set's last one), or None where there is none.

        The whole set before its subset, the state after a task's end before that of its last step. weights: `deploy`,
        `anneal` or `train`; None: the first of these that there is, as the metrics have it.
        """
        mine = self.eval_set == eval_set
        if step is None:
            step = int(self.step[mine].max()) if mine.any() else -1
        mine &= self.step == step
        for kind in ("boundary", "trace"):
            for name in PREFERRED if weights is None else (weights,):
                found = np.flatnonzero(mine & (self.kind == kind) & (self.weights == name))
                if len(found):
                    return int(found[np.argmax(self.tasks_seen[found])])
        return None


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a - b in nats per token over `n` blocks, and its standard error (0 for a single block)."""

    mean: float
    se: float
    n: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def paired_difference(
    run_a: Path, run_b: Path, eval_set: str, step: int | None = None, weights: str | None = None
) -> PairedDifference:
    """How much higher the loss of run a is than that of run b on a set: mean and standard error over its blocks.

    step, weights: which evaluation, as for `BlockLosses.find`; without a step the last one of each run. Raises
    UserError where a run's folder holds no losses, for runs of different data, where one of them did not score the
    set then, and where they scored different samples of it.
    """
    return _summary(_differences(run_a, run_b, eval_set, step, weights))


def pooled_difference(pairs: Sequence[tuple[Path, Path]], eval_set: str) -> PairedDifference:
    """The same after the last task, of every block's difference averaged over pairs of runs (a, b) of several seeds.

    Blocks are what is sampled: the seeds' differences on one block are not independent. Raises UserError as
    `paired_difference` does.
    """
    return _summary(np.mean([_differences(a, b, eval_set, None, None) for a, b in pairs], axis=0))


def _differences(run_a: Path, run_b: Path, eval_set: str, step: int | None, weights: str | None) -> NDArray[np.float64]:
    found = [_chosen(Path(run), eval_set, step, weights) for run in (run_a, run_b)]
    (record_a, sample_a, a), (record_b, sample_b, b) = found
    if record_a["stream"]["content"] != record_b["stream"]["content"]:
        raise UserError(f"{run_b} has other data than {run_a}: their blocks cannot be paired")
    if sample_a != sample_b or len(a) != len(b):
        raise UserError(f"{run_a} and {run_b} scored different samples of {eval_set!r} there: choose a task's end")
    return a.astype(np.float64) - b.astype(np.float64)


def _summary(difference: NDArray[np.float64]) -> PairedDifference:
    se = float(difference.std(ddof=1)) / math.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return PairedDifference(float(difference.mean()), se, len(difference))


def read_block_losses(folder: Path) -> BlockLosses:
    """The losses of the run in `folder`. Raises UserError where there are none, or not those of the run's table."""
    path = Path(folder) / FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            found = BlockLosses(**{name: file[name] for name in BlockLosses.__dataclass_fields__})
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: only runs of language modelling keep losses; archives leave them out"
        ) from None
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not _is_of(found, EvaluationTable.read(Path(folder) / TABLE).rows):
        raise UserError(f"{path} is not of its table ({TABLE}): its means are not those of the rows")
    return found


def write_block_losses(folder: Path, rows: Sequence[Row], losses: NDArray[np.float32]) -> None:
    """rows: those of the table that losses were kept of. losses: as in `BlockLosses`. Equal content, equal bytes."""
    content = io.BytesIO()
    np.savez_compressed(
        content,
        step=np.array([row.step for row in rows], np.int64),
        tasks_seen=np.array([row.tasks_seen for row in rows], np.int64),
        eval_set=np.array([row.eval_set for row in rows], np.str_),
        kind=np.array([row.kind for row in rows], np.str_),
        weights=np.array([row.weights for row in rows], np.str_),
        n=np.array([row.n for row in rows], np.int64),
        losses=losses,
    )
    write_atomically(folder / FILE, content.getvalue())


def _chosen(
    folder: Path, eval_set: str, step: int | None, weights: str | None
) -> tuple[Record, str, NDArray[np.float32]]:
    """A run's record, which sample of the set was scored, and its losses."""
    record, losses = read_record(folder), read_block_losses(folder)
    entry = losses.find(eval_set, step, weights)
    if entry is None:
        when = "" if step is None else f" at step {step}"
        raise UserError(f"{folder} has no losses of {eval_set!r}{when} (its sets: {', '.join(_names(record))})")
    return record, _sample(record, losses, entry), losses.of(entry)


def _sample(record: Record, losses: BlockLosses, entry: int) -> str:
    """All blocks, those that the stream fixes, or those of an upstream's continual evaluation."""
    sizes = {found["name"]: found["samples"] for found in record["stream"]["eval_sets"]}
    if losses.n[entry] == sizes[str(losses.eval_set[entry])]:
        return "all"
    upstream: dict[str, Any] = record.get("upstream") or {}
    return str(upstream["key"]) if losses.step[entry] < upstream.get("steps", 0) else "stream"


def _names(record: Record) -> list[str]:
    return [entry["name"] for entry in record["stream"]["eval_sets"]]


def _is_of(found: BlockLosses, rows: Sequence[Row]) -> bool:
    values = {row.key: row.value for row in reversed(rows)}
    metric = rows[0].metric
    if int(found.n.sum()) != len(found.losses):
        return False
    for entry in range(len(found.n)):
        key = (int(found.step[entry]), int(found.tasks_seen[entry]), str(found.eval_set[entry]))
        value = values.get((*key, str(found.kind[entry]), metric, str(found.weights[entry])))
        mean = float(found.of(entry).astype(np.float64).mean()) if found.n[entry] else None
        if value is None or mean is None or not np.isclose(mean, value, rtol=ROUNDING, atol=0.0, equal_nan=True):
            return False
    return True
