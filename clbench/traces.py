"""One run's evaluation table as arrays: each set's score over the steps, and how old sets change after every switch.

For drawing many runs: columns are read and grouped as arrays, 1 ms a run. Rows were checked when they were written
(`clbench.table`); here only what would break the arithmetic is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clbench.errors import UserError

Array = NDArray[Any]
TABLE = "evaluations.parquet"
WHOLE = ("step", "tasks_seen")
NAMES = ("eval_set", "kind", "metric", "weights")
HELD_OUT, ADAPTED = -1, -2
READ = (*WHOLE, *NAMES, "value", "belongs_to")


class Line(NamedTuple):
    """Values at increasing steps; both [points], steps int64, values finite float64."""

    steps: Array
    values: Array


@dataclass
class Trace:
    """A run, in its primary metric and the weights that the metrics use.

    start: step before training. ends: steps at which the tasks end. owners: set -> index of its task, None where it is
    held out. scores: set -> raw values over all steps; of several at one step, the last. changes: switch -> mean over
    the old tasks' sets of s * (value - value at the switch), over the steps since it, 0 at the switch (s = 1 where
    higher is better, else -1: below 0 is worse). held_out_changes: the same for held-out sets, those left out that the
    stream as a whole adapts to. roles: set -> role, of the sets that have one.
    """

    start: int
    ends: tuple[int, ...]
    owners: dict[str, int | None]
    scores: dict[str, Line]
    changes: dict[int, Line]
    held_out_changes: dict[int, Line]
    roles: dict[str, str] = field(default_factory=dict)


def read_trace(folder: Path, direction: str) -> Trace:
    """The trace of the run in `folder`; direction: `higher` or `lower`.

    Raises UserError where its table is missing, is not one, or says contradictory things.
    """
    path = Path(folder) / TABLE
    columns = _read(path)
    start, ends = _task_ends(columns, path)
    names, owners = _sets(columns)
    order = {name: i for i, name in enumerate(owners)}
    chosen = _primary(columns)
    place = np.array([order[name] for name in names])
    rows = {
        "step": columns["step"][chosen],
        "seen": columns["tasks_seen"][chosen],
        "set": place[columns["eval_set"][0][chosen]],
        "value": columns["value"][0][chosen],
        "scored": columns["value"][1][chosen],
        "trace": _equals(columns["kind"], "trace")[chosen],
    }
    roles = columns["roles"]
    groups = [_group(owner, roles.get(name)) for name, owner in owners.items()]
    changes, held_out = _changes(rows, start, ends, groups, 1.0 if direction == "higher" else -1.0)
    return Trace(start, ends, owners, _scores(rows, list(owners)), changes, held_out, roles)


def _group(owner: int | None, role: str | None) -> int:
    """A set's task, or what stands for none."""
    return owner if owner is not None else ADAPTED if role == "adaptation" else HELD_OUT


def _read(path: Path) -> dict[str, Any]:
    """Whole columns as int64, names as (codes, values), numbers as (float64, whether there is one).

    By way of buffers: `to_numpy` of pyarrow imports pandas (0.3 s, 60 MB).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise UserError(f"{path} is missing: the run cannot be drawn; repeat it with its config.yaml")
    try:
        file = pq.ParquetFile(path, read_dictionary=list(NAMES), page_checksum_verification=True)
        asked = [*READ, "role"] if "role" in file.schema_arrow.names else list(READ)
        table = file.read(columns=asked, use_threads=False).combine_chunks()
        if table.num_rows == 0:
            raise UserError(f"{path}: has no rows; nothing was measured")
        columns: dict[str, Any] = {name: np.from_dlpack(table.column(name).chunk(0)) for name in WHOLE}
        for name in NAMES:
            chunk = table.column(name).chunk(0)
            columns[name] = (np.from_dlpack(chunk.indices), chunk.dictionary.to_pylist())
        for name in ("value", "belongs_to"):
            chunk = table.column(name).cast(pa.float64()).chunk(0)
            known = np.from_dlpack(chunk.is_valid().cast(pa.uint8())).astype(bool)
            values = np.frombuffer(chunk.buffers()[1], np.float64)[chunk.offset : chunk.offset + len(chunk)]
            columns[name] = (np.where(known, values, np.nan), known)
        columns["roles"] = _roles(table, *columns["eval_set"]) if "role" in asked else {}
    except (pa.ArrowException, OSError, ValueError, KeyError, AttributeError, TypeError, BufferError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: is not a readable evaluation table ({reason})") from None
    return columns


def _roles(table: Any, codes: Array, names: list[str]) -> dict[str, str]:
    """Of the sets that have one; all rows of a set have the same."""
    values = table.column("role").chunk(0)
    found, first = np.unique(codes, return_index=True)
    roles = {names[code]: values[i].as_py() for code, i in zip(found.tolist(), first.tolist(), strict=True)}
    return {name: role for name, role in roles.items() if role}


def _equals(column: tuple[Array, list[str]], name: str) -> Array:
    codes, values = column
    return codes == values.index(name) if name in values else np.zeros(len(codes), dtype=bool)


def _primary(columns: dict[str, Any]) -> Array:
    """Rows of the metric named first and the weights that the metrics use (`clbench.metrics.view.weight_groups`)."""
    codes = columns["metric"][0]
    boundary, seen = _equals(columns["kind"], "boundary"), columns["tasks_seen"]
    deployed, trained, annealed = (
        (codes == codes[0]) & _equals(columns["weights"], weights) for weights in ("deploy", "train", "anneal")
    )
    plain = deployed if deployed.any() else trained
    ends = [set(seen[boundary & rows].tolist()) for rows in (annealed, trained, deployed)]
    forks = boundary & np.isin(seen, list(ends[0] & ends[1] - ends[2]))
    return (plain & ~forks) | (annealed & forks)


def _task_ends(columns: dict[str, Any], path: Path) -> tuple[int, tuple[int, ...]]:
    """From the boundary rows; of a log without any, from the first row of each number of tasks seen."""
    main = ~_equals(columns["weights"], "anneal")
    boundary = _equals(columns["kind"], "boundary") & main
    steps, seen = columns["step"], columns["tasks_seen"]
    levels, where = np.unique(seen[boundary], return_index=True)
    at = dict(zip(levels.tolist(), steps[boundary][where].tolist(), strict=True))
    start = at.pop(0, 0)
    if at:
        if sorted(at) != list(range(1, len(at) + 1)):
            raise UserError(f"{path}: boundary rows are missing between tasks; `clbench metrics {path}` says which")
        return start, tuple(at[k] for k in sorted(at))
    last = int(seen[main].max()) if main.any() else 0
    return start, tuple(int(steps[main & (seen > task)].min()) for task in range(last))


def _sets(columns: dict[str, Any]) -> tuple[list[str], dict[str, int | None]]:
    """Names by code; set -> task, by task, held-out ones last, in order of appearance within each."""
    codes, names = columns["eval_set"]
    owner, owned = columns["belongs_to"]
    _, first = np.unique(codes, return_index=True)
    found = {names[codes[i]]: int(owner[i]) if owned[i] else None for i in sorted(first.tolist())}
    return names, dict(sorted(found.items(), key=lambda item: (item[1] is None, item[1] or 0)))


def _scores(rows: dict[str, Array], names: list[str]) -> dict[str, Line]:
    """The set's trace, or its boundary rows where it was not traced."""
    traced = np.zeros(len(names), dtype=bool)
    traced[rows["set"][rows["trace"] & rows["scored"]]] = True
    kept = np.flatnonzero((rows["trace"] == traced[rows["set"]]) & rows["scored"] & np.isfinite(rows["value"]))
    kept = kept[np.lexsort((rows["seen"][kept], rows["step"][kept], rows["set"][kept]))]
    sets, steps, values = rows["set"][kept], rows["step"][kept], rows["value"][kept]
    last = np.append((sets[1:] != sets[:-1]) | (steps[1:] != steps[:-1]), True)[: len(kept)]
    sets, steps, values = sets[last], steps[last], values[last]
    bounds = np.searchsorted(sets, np.arange(len(names) + 1)).tolist()
    return {
        name: Line(steps[low:high], values[low:high])
        for name, low, high in zip(names, bounds[:-1], bounds[1:], strict=True)
        if high > low
    }


def _changes(
    rows: dict[str, Array], start: int, ends: tuple[int, ...], owners: list[int], sign: float
) -> tuple[dict[int, Line], dict[int, Line]]:
    tasks = len(ends)
    begins = np.array([start, *ends])
    reference = np.full((tasks + 1, len(owners)), np.nan)
    known = np.zeros_like(reference, dtype=bool)
    seen, sets, steps = rows["seen"], rows["set"], rows["step"]
    begun = begins[np.minimum(seen, tasks)]
    in_run = seen <= tasks
    for chosen in (~rows["trace"] & in_run, rows["trace"] & in_run & (steps == begun)):
        reference[seen[chosen], sets[chosen]] = rows["value"][chosen]
        known[seen[chosen], sets[chosen]] = rows["scored"][chosen]
    inside = np.flatnonzero(rows["trace"] & rows["scored"] & (seen < tasks) & (steps > begun))
    inside = inside[known[seen[inside], sets[inside]]]
    change = sign * (rows["value"][inside] - reference[seen[inside], sets[inside]])
    owner = np.array(owners)[sets[inside]]
    since = steps[inside] - begun[inside]
    old, held_out = (owner >= 0) & (owner < seen[inside]), owner == HELD_OUT
    first, second = (_means(seen[inside][kept], since[kept], change[kept]) for kept in (old, held_out))
    return first, second


def _means(switches: Array, since: Array, change: Array) -> dict[int, Line]:
    """Switch -> mean change at each number of steps since it, over the sets scored there."""
    if not len(switches):
        return {}
    width = int(since.max()) + 1
    keys, group = np.unique(switches * width + since, return_inverse=True)
    means = np.bincount(group, weights=change) / np.bincount(group)
    keys, means = keys[np.isfinite(means)], means[np.isfinite(means)]
    lines = {}
    for switch in np.unique(keys // width).tolist():
        low, high = np.searchsorted(keys, [switch * width, (switch + 1) * width])
        steps = np.append(0, keys[low:high] - switch * width)
        lines[switch] = Line(steps, np.append(0.0, means[low:high]))
    return lines
