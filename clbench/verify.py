"""Verifying a run: is its record what its own table and specification say, and does repeating it give the same?

Equal package versions, device class, threads, precision, memory format and processor: every row must be equal bit for
bit. Where one of them differs, equality is not promised, and values within a tolerance are reported as such.

A run under a clock budget is repeated up to the step at which the clock stopped it, so that its bits can be compared.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from clbench.bit_differences import RowDifferences, json_differences, row_differences, shown
from clbench.engine.world import ALONE
from clbench.errors import RunFailed, UserError
from clbench.metrics import compute
from clbench.metrics.definitions import ADDED_UNITS, EDITIONS, base_key
from clbench.record import Record, read_record
from clbench.record_schema import schema_faults
from clbench.seal import broken_seal
from clbench.spec import RunSpec, make_spec, read_spec_file
from clbench.table import EvaluationTable

Verdict = Literal["identical", "within tolerance", "differs"]

CONDITIONS = ("device", "precision", "threads", "channels_last", "compile", "platform", "processor", "gpu")
DEVICE_CLASS = ("device", "precision")
COUNTED = ("steps", "samples_train", "samples_evaluate", "flops_train", "stored_bytes", "parameters_trained")
COUNTS = 0.05  # relative: how far what is counted may differ under other conditions
OF_UPSTREAM = ("kind", "weights_sha256", "steps")  # its key depends on sources and conditions, too
MAY_CHANGE = ("source_hash", "summary", "notes", "pretraining_overlap")  # texts, and what is compared apart
MOST_THREADS = 4  # for each core: more take too long to be repeated
DRIFT_NOISE = 3.0  # standard errors of the mean difference of all boundary rows
TINY = 1e-9  # seconds: a clock budget that is spent before the first step


@dataclass(frozen=True)
class Tolerance:
    """What may differ under other conditions, beyond what the number of samples lets scores differ by chance.

    Rounding parts two trainings, and where a model is undecided they end as two draws of its answer. row: each value
    (of an accuracy; relative to a loss above 1). drift: the mean signed difference of all boundary values, so that a
    change in one direction is not excused by a loose `row`.
    """

    row: float
    drift: float


SAME_CLASS = Tolerance(row=0.02, drift=0.01)
OTHER_CLASS = Tolerance(row=0.05, drift=0.02)


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
    """Check the record in `folder` against its seal, table and configuration, then repeat the run and compare.

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
    """Where a record contradicts its schema, its seal, its config.yaml or its evaluations.parquet; empty where it does
    not."""
    broken = broken_seal(folder, record)
    faults = [broken] if broken else []
    if misshapen := [f"record.json, {fault}" for fault in schema_faults(record)]:
        return faults + misshapen
    try:
        return faults + _contradictions(folder, record)
    except UserError:
        if broken:
            return faults
        raise


def _contradictions(folder: Path, record: Record) -> list[str]:
    """Of a record of the right shape: where it is not what its own files give."""
    faults = []
    spec = make_spec(record["spec"], "record.json: spec")
    if spec.hash() != record["spec_hash"]:
        faults.append("record.json: spec_hash is not the hash of spec: one of them was changed")
    configured = make_spec(read_spec_file(folder / "config.yaml"), "config.yaml")
    if configured.hash() != spec.hash():
        left, right = spec.shareable(), configured.shareable()
        changed = [key for key in left if left[key] != right[key]] or ["the place of upstream"]
        faults.append(f"config.yaml and record.json differ in {', '.join(changed)}")
    recomputed = compute(
        _table(folder),
        record["stream"]["direction"],
        predicts_between_boundaries=record["strategy"]["needs"]["predicts_between_boundaries"],
    )
    faults += [
        f"record.json: metrics.{place} is {shown(stated)}; evaluations.parquet gives {shown(computed)}"
        for place, stated, computed in json_differences(record["metrics"], as_known_to(record["metrics"], recomputed))
    ]
    return faults


def as_known_to(stated: dict[str, Any], computed: dict[str, Any]) -> dict[str, Any]:
    """Metrics computed now, without those that a record of an earlier edition has none of."""
    computed = _without_later_units(stated, computed)
    versions = {base_key(key) for key in stated.get("versions", {})}
    for keys, parts in EDITIONS:
        if versions and not versions & keys and not set(stated) & set(parts):
            computed = _without(computed, keys, parts)
    return computed


def _without(computed: dict[str, Any], keys: frozenset[str], parts: tuple[str, ...]) -> dict[str, Any]:
    kept = {key: value for key, value in computed.items() if key not in parts and base_key(key) not in keys}
    for part in ("versions", "undefined"):
        kept[part] = {key: value for key, value in computed.get(part, {}).items() if base_key(key) not in keys}
    return kept


def _without_later_units(stated: dict[str, Any], computed: dict[str, Any]) -> dict[str, Any]:
    """Gaps without the fields that none of those in the record has."""
    parts = [part for part in ("gap", "gap_new", "gap_stream") if part in computed]
    known = {field for part in parts for gap in stated.get(part) or () for field in gap}
    if known & set(ADDED_UNITS):
        return computed
    return computed | {
        part: [{key: value for key, value in gap.items() if key not in ADDED_UNITS} for gap in computed[part]]
        for part in parts
    }


def compare_runs(folder: Path, record: Record, repeated: Path, again: Record) -> Verification:
    """The verdict on two runs of one specification, from their tables, metrics, states and conditions."""
    before, after = _table(folder).rows, _table(repeated).rows
    changed = changed_conditions(record, again)
    if record["spec"]["budget"].get("seconds"):
        changed.append("a clock budget: repeated up to the step where the clock stopped it")
    faults = [f"status was {record['status']}, is {again['status']}"] if record["status"] != again["status"] else []
    for what in ("content", "order"):
        if record["stream"][what] != again["stream"][what]:
            faults.append(f"the stream's {what} hash differs: the data or the recipe have changed")
    for what in ("strategy", "stream"):
        if record[what]["source_hash"] != again[what]["source_hash"]:
            changed.append(f"the {what}'s source has changed since the run")
    for what in ("strategy", "stream", "evaluation"):
        faults += _part_differences(record, again, what)
    model = _part_differences(record, again, "model")
    faults += [line for line in model if "weights_sha256" not in line]
    rows = row_differences(before, after, shares=record["stream"]["direction"] == "higher")
    differs_in_metrics = [
        *_part_differences(record, again, "metrics"),
        *(line for line in model if "weights_sha256" in line),
        *_part_differences(record, again, "upstream", OF_UPSTREAM),
        *_part_differences(record, again, "cost", counted(record, again)),
    ]
    told, retold = ({"diagnostics": r.get("diagnostics")} for r in (record, again))
    if "update_geometry" in record and "update_geometry" in again:  # older records have none
        told["update_geometry"], retold["update_geometry"] = record["update_geometry"], again["update_geometry"]
    differs_in_metrics += [
        f"{place}: was {shown(was)}, is {shown(now)}" for place, was, now in json_differences(told, retold)
    ]
    if record["state_hash"] != again["state_hash"]:
        differs_in_metrics.append("the final state (weights, memory, optimiser) has another hash")
    if not (faults or rows.lines or differs_in_metrics):
        return Verification("identical", len(before), [], changed)
    near = not faults and _within(rows, tolerance(record, again)) and _counts_are_near(record, again)
    source_changed = any("source" in line for line in changed)
    verdict: Verdict = "within tolerance" if near and changed and not source_changed else "differs"
    return Verification(verdict, len(before), [*faults, *rows.lines, *differs_in_metrics], changed, rows.largest)


def _part_differences(record: Record, again: Record, part: str, keys: tuple[str, ...] = ()) -> list[str]:
    """Lines for the leaves of a part, or of some of its keys, that differ."""
    old, new = ({k: v for k, v in (r.get(part) or {}).items() if (k in keys or not keys)} for r in (record, again))
    if part == "metrics":
        new = as_known_to(old, new)
    return [
        f"{part}.{place}: was {shown(was)}, is {shown(now)}"
        for place, was, now in json_differences(old, new)
        if place not in MAY_CHANGE
    ]


def tolerance(record: Record, again: Record) -> Tolerance:
    """By device class: device and numeric precision."""
    old, new = record["environment"], again["environment"]
    return SAME_CLASS if all(old[key] == new[key] for key in DEVICE_CLASS) else OTHER_CLASS


def _within(rows: RowDifferences, allowed: Tolerance) -> bool:
    return rows.beyond <= allowed.row and abs(rows.drift) <= allowed.drift + DRIFT_NOISE * rows.drift_error


def _counts_are_near(record: Record, again: Record) -> bool:
    pairs = [(record["cost"].get(key), again["cost"].get(key)) for key in counted(record, again)]
    return all(was == now or (None not in (was, now) and math.isclose(was, now, rel_tol=COUNTS)) for was, now in pairs)


def counted(record: Record, again: Record) -> tuple[str, ...]:
    """What is counted in both in the same way: FLOPs where both have the same version of them."""
    versions = {r["cost"].get("flops_version", 1) for r in (record, again)}
    return COUNTED if len(versions) == 1 else tuple(key for key in COUNTED if key != "flops_train")


def changed_conditions(record: Record, again: Record) -> list[str]:
    """Conditions of byte-identity in which two runs differ, one line each."""
    old, new = record["environment"], again["environment"]
    pairs = {name: (old[name], new[name]) for name in CONDITIONS}
    pairs |= {name: (old.get(name, alone), new.get(name, alone)) for name, alone in ALONE.items()}
    names = sorted(old["versions"].keys() | new["versions"].keys())
    pairs |= {name: (old["versions"].get(name), new["versions"].get(name)) for name in names}
    return [f"{name}: was {was}, is {now}" for name, (was, now) in pairs.items() if was != now]


def _repeat(folder: Path, record: Record, temporary: Path) -> Path:
    """Run the specification again, as it was resolved then; the new run's folder."""
    from clbench.launch import start_run

    try:
        with _no_tracking():
            return start_run(specification_to_repeat(folder, record), temporary)[0]
    except RunFailed:
        found = list(temporary.glob("runs/*/*/*/evaluations.parquet"))
        if len(found) != 1:
            raise
        return found[0].parent


def specification_to_repeat(folder: Path, record: Record) -> RunSpec:
    """What to run: the run's own config.yaml with the recorded threads, device, precision and memory format.

    The CPU stands in for a GPU that is not there, and all cores for many more threads than there are cores. A clock
    budget becomes the number of steps it allowed then.
    """
    spec = make_spec(read_spec_file(folder / "config.yaml"), "config.yaml")
    was = record["environment"]
    spec.threads, spec.precision, spec.channels_last = was["threads"], was["precision"], was["channels_last"]
    cores = os.cpu_count() or 1
    if was["threads"] > MOST_THREADS * cores:
        spec.threads = cores
    spec.device = was["device"] if was["device"] == "cpu" or _has_gpu() else "cpu"
    if "seconds" in spec.budget:
        steps = record["cost"]["steps"]
        budget = {key: limit for key, limit in spec.budget.items() if key != "seconds"}
        if steps > 0:
            budget["steps"] = min(steps, budget.get("steps", steps))
        else:
            budget["seconds"] = TINY
        spec.budget = budget
    return spec


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


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
