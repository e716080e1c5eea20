"""Verifying a run: is its record what its own table and specification say, and does repeating it give the same?

Equal package versions, device class, threads, precision, memory format and processor: every row must be equal bit for
bit. Where one of them differs, equality is not promised, and values within a tolerance are reported as such.
"""

from __future__ import annotations

import math
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from clbench.errors import RunFailed, UserError
from clbench.metrics import compute
from clbench.record import Record, read_record
from clbench.record_schema import schema_faults
from clbench.spec import make_spec, read_spec_file
from clbench.table import COLUMNS, EvaluationTable, Row

Verdict = Literal["identical", "within tolerance", "differs"]

TOLERANCE = 0.02  # of an accuracy, or relative to a loss above 1
ROUNDING = 1e-9  # relative, of the simulated noise floor: numpy's sums are not the same on every processor
CONDITIONS = ("device", "precision", "threads", "channels_last", "compile", "platform", "processor", "gpu")
MEASURED = ("value", "se", "base")


@dataclass
class Verification:
    """What was found. faults: where the record contradicts its own files, or the repetition the record, first ones
    first. changed: conditions that are not those of the record ("torch: was 2.6, is 2.7")."""

    verdict: Verdict
    rows: int
    faults: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    largest_difference: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = ("verdict", "rows", "faults", "changed", "largest_difference")
        return {name: getattr(self, name) for name in names}


def verify(folder: Path) -> Verification:
    """Check the record in `folder` against its table and configuration, then repeat the run and compare.

    A record that contradicts its own files differs, and is not repeated. Raises UserError where a file is missing or
    unreadable, or where the run did not end by itself.
    """
    record = read_record(folder)
    if record.get("status") in ("running", "interrupted", "failed"):
        raise UserError(f"{folder} is {record['status']}: only runs that have ended by themselves can be verified")
    faults = record_faults(folder, record)
    if faults:
        return Verification("differs", 0, faults)
    with tempfile.TemporaryDirectory(prefix="clbench-verify-") as temporary:
        repeated = _repeat(folder, record, Path(temporary))
        return compare_runs(folder, record, repeated, read_record(repeated))


def record_faults(folder: Path, record: Record) -> list[str]:
    """Where a record contradicts its schema, its config.yaml or its evaluations.parquet; empty where it does not."""
    faults = [f"record.json, {fault}" for fault in schema_faults(record)]
    if faults:
        return faults
    spec = make_spec(record["spec"], f"{folder / 'record.json'}: spec")
    if spec.hash() != record["spec_hash"]:
        faults.append("record.json: spec_hash is not the hash of spec: one of them was changed")
    configured = make_spec(read_spec_file(folder / "config.yaml"), f"{folder / 'config.yaml'}")
    if configured.hash() != spec.hash():
        keys = [key for key in type(spec).model_fields if getattr(spec, key) != getattr(configured, key)]
        faults.append(f"config.yaml and record.json differ in {', '.join(keys)}")
    recomputed = compute(
        _table(folder),
        record["stream"]["direction"],
        predicts_between_boundaries=record["strategy"]["needs"]["predicts_between_boundaries"],
    )
    faults += [
        f"record.json: metrics.{place} is {_shown(stated)}; evaluations.parquet gives {_shown(computed)}"
        for place, stated, computed in _json_differences(record["metrics"], recomputed)
    ]
    return faults


def compare_runs(folder: Path, record: Record, repeated: Path, again: Record) -> Verification:
    """The verdict on two runs of one specification, from their tables, metrics, states and conditions."""
    before, after = _table(folder).rows, _table(repeated).rows
    changed = changed_conditions(record, again)
    if record["spec"]["budget"].get("seconds"):
        changed.append("a clock budget: where training stops depends on the machine's speed")
    faults = [f"status was {record['status']}, is {again['status']}"] if record["status"] != again["status"] else []
    for what in ("content", "order"):
        if record["stream"][what] != again["stream"][what]:
            faults.append(f"the stream's {what} hash differs: the data or the recipe have changed")
    for what in ("strategy", "stream"):
        if record[what]["source_hash"] != again[what]["source_hash"]:
            changed.append(f"the {what}'s source has changed since the run")
    different, largest = _row_differences(before, after)
    differs_in_metrics = [
        f"metrics.{place}: was {_shown(old)}, is {_shown(new)}"
        for place, old, new in _json_differences(record["metrics"], again["metrics"])
    ]
    if record["state_hash"] != again["state_hash"]:
        differs_in_metrics.append("the final state (weights, memory, optimiser) has another hash")
    if not (faults or different or differs_in_metrics):
        return Verification("identical", len(before), [], changed)
    near = not faults and len(before) == len(after) and largest <= TOLERANCE
    source_changed = any("source" in line for line in changed)
    verdict: Verdict = "within tolerance" if near and changed and not source_changed else "differs"
    return Verification(verdict, len(before), [*faults, *different, *differs_in_metrics], changed, largest)


def changed_conditions(record: Record, again: Record) -> list[str]:
    """Conditions of byte-identity in which two runs differ, one line each."""
    old, new = record["environment"], again["environment"]
    pairs = {name: (old[name], new[name]) for name in CONDITIONS}
    names = sorted(old["versions"].keys() | new["versions"].keys())
    pairs |= {name: (old["versions"].get(name), new["versions"].get(name)) for name in names}
    return [f"{name}: was {was}, is {now}" for name, (was, now) in pairs.items() if was != now]


def _repeat(folder: Path, record: Record, temporary: Path) -> Path:
    """Run the specification again, as it was resolved then; the new run's folder."""
    from clbench.launch import start_run

    spec = make_spec(read_spec_file(folder / "config.yaml"), f"{folder / 'config.yaml'}")
    was = record["environment"]
    spec.threads, spec.device = was["threads"], was["device"]
    spec.precision, spec.channels_last = was["precision"], was["channels_last"]
    try:
        with _no_tracking():
            return start_run(spec, temporary)[0]
    except RunFailed:
        found = list(temporary.glob("runs/*/*/*/evaluations.parquet"))
        if len(found) != 1:
            raise
        return found[0].parent


@contextmanager
def _no_tracking() -> Iterator[None]:
    before = os.environ.get("CLBENCH_TRACKING")
    os.environ["CLBENCH_TRACKING"] = "off"
    try:
        yield
    finally:
        del os.environ["CLBENCH_TRACKING"]
        if before is not None:
            os.environ["CLBENCH_TRACKING"] = before


def _table(folder: Path) -> EvaluationTable:
    return EvaluationTable.read(folder / "evaluations.parquet")


def _row_differences(before: list[Row], after: list[Row]) -> tuple[list[str], float]:
    """The rows that differ, one line each, and the largest difference of a value (infinite where rows do not match)."""
    lines, largest = [], 0.0
    for number, (old, new) in enumerate(zip(before, after, strict=False), 1):
        columns = [name for name in COLUMNS if not _same_bits(getattr(old, name), getattr(new, name))]
        if not columns:
            continue
        name = columns[0]
        was, now = getattr(old, name), getattr(new, name)
        place = f"row {number} (step {old.step}, tasks_seen {old.tasks_seen}, {old.eval_set}, {old.kind})"
        lines.append(f"{place}: {name} was {_shown(was)}, is {_shown(now)}")
        apart = [column for column in columns if column not in MEASURED]
        largest = max(largest, math.inf if apart else _distance(old.value, new.value))
    if len(before) != len(after):
        lines.append(f"the table had {len(before)} rows, the repeated run's has {len(after)}")
        largest = math.inf
    return lines, largest


def _distance(a: float | None, b: float | None) -> float:
    if a is None or b is None or not (math.isfinite(a) and math.isfinite(b)):
        return 0.0 if _same_bits(a, b) else math.inf
    return abs(a - b) / max(1.0, abs(a))


def _same_bits(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    return type(a) is type(b) and a == b


def _json_differences(a: Any, b: Any, place: str = "") -> list[tuple[str, Any, Any]]:
    """(place, in a, in b) of every leaf that differs. The noise floor is compared up to rounding."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [*a, *(key for key in b if key not in a)]
        inner = [(f"{place}.{key}" if place else key, a.get(key, "missing"), b.get(key, "missing")) for key in keys]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        inner = [(f"{place}[{i}]", x, y) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        return [] if _same_leaf(a, b, place) else [(place, a, b)]
    return [difference for where, x, y in inner for difference in _json_differences(x, y, where)]


def _same_leaf(a: Any, b: Any, place: str) -> bool:
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (a, b))
    if numbers and place.startswith("noise_floor"):
        return math.isclose(a, b, rel_tol=ROUNDING, abs_tol=1e-15)
    return bool(a == b)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
