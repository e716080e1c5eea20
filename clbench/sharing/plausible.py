"""Whether a stranger's record can be true: it fits its files, and its numbers fit each other."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

from clbench.board_records import FINISHED
from clbench.errors import UserError
from clbench.record import Record
from clbench.sharing.manifest import safe_name
from clbench.sharing.strict_json import strict_json
from clbench.spec import make_spec, read_spec_file
from clbench.table import EvaluationTable, Row
from clbench.verify import record_faults

MOST_ROWS = 1_000_000
MOST_TABLE_BYTES = 1 << 28
LARGEST_CONFIG = 1 << 17
DEEPEST_CONFIG = 40
LARGEST_RECORD = 1 << 25
ROUNDING = 1e-9
FIRST_DAY = datetime(2020, 1, 1, tzinfo=timezone.utc)


def foreign_record(folder: Path) -> Record:
    """The record of a stranger's run. Raises UserError for everything that record.json never holds."""
    content = (folder / "record.json").read_bytes()
    if len(content) > LARGEST_RECORD:
        raise UserError("record.json is too large")
    try:
        record = strict_json(content)
    except ValueError as error:
        raise UserError(f"record.json {error}") from None
    if not isinstance(record, dict):
        raise UserError("record.json holds no record")
    return record


def doubts(folder: Path, record: Record) -> list[str]:
    """Why a stranger's run in `folder` is not taken, one line each; empty where nothing speaks against it.

    Nothing of it is run. Raises UserError where a file cannot be read.
    """
    if record.get("status") not in FINISHED:
        return ["it is no record of a finished run"]
    _check_config(folder / "config.yaml")
    check_table_size(folder / "evaluations.parquet")
    faults = record_faults(folder, record)
    if faults:
        return faults
    found = _spec_doubts(record["spec"], read_spec_file(folder / "config.yaml"))
    found += [] if safe_name(record["run"]) else ["its name makes no folder"]
    rows = EvaluationTable.read(folder / "evaluations.parquet").rows
    return found + _date_doubts(record) + _cost_doubts(record) + _table_doubts(record, rows)


def _spec_doubts(spec: dict[str, Any], configured: dict[str, Any]) -> list[str]:
    """A sender must not choose which file of this machine `clbench verify` runs, or where it looks for data."""
    found = [] if spec["data_root"] is None else ["spec.data_root names a folder of another machine"]
    named = {key: spec.get(key, "") for key in ("strategy", "stream", "upstream")}
    found += [f"spec.{key} names a folder" for key, name in named.items() if set("/\\") & set(str(name))]
    here, there = (make_spec(values).model_dump() for values in (spec, configured))
    return found + [f"config.yaml has another {key} than the record" for key in here if here[key] != there[key]]


def check_table_size(path: Path) -> None:
    """Refuse a table that would not fit in memory, from its footer alone. Raises UserError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        footer = pq.read_metadata(path)
        groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
        size = sum(group.total_byte_size for group in groups)
        rows = max(footer.num_rows, sum(group.num_rows for group in groups))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"evaluations.parquet cannot be read: {error}") from None
    if not (0 <= rows <= MOST_ROWS and 0 <= size <= MOST_TABLE_BYTES) or footer.num_columns > 100:
        raise UserError(f"evaluations.parquet is too large: {rows} rows, {size} bytes")


def _check_config(path: Path) -> None:
    """Plain `key: value` YAML: what is written once and meant many times (anchors) could be made to grow."""
    import yaml

    content = path.read_bytes()
    if len(content) > LARGEST_CONFIG:
        raise UserError("config.yaml is too large")
    try:
        depth = 0
        for event in yaml.parse(content.decode("utf-8"), Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST_CONFIG:
                raise UserError("config.yaml is nested too deeply")
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
                raise UserError("config.yaml holds anchors or tags")
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UserError(f"config.yaml cannot be read: {error}") from None


def _date_doubts(record: Record) -> list[str]:
    try:
        started, finished = (
            datetime.strptime(record[key], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
            for key in ("started", "finished")
        )
    except (TypeError, ValueError):
        return ["started or finished is no date"]
    if finished < started:
        return ["it finished before it started"]
    if started < FIRST_DAY or finished > datetime.now(timezone.utc) + timedelta(days=1):
        return ["its dates lie before clbench, or in the future"]
    return []


def _cost_doubts(record: Record) -> list[str]:
    cost = record["cost"]
    numbers = {key: value for key, value in cost.items() if value is not None}
    bad = [key for key, value in numbers.items() if not math.isfinite(value) or value < 0]
    found = [f"cost.{key} is {numbers[key]}" for key in bad]
    parts = ("seconds_train", "seconds_evaluate", "seconds_trace", "seconds_checkpoints")
    total = numbers.get("seconds_total", 0)
    found += [f"cost.{key} is more than the total" for key in parts if numbers.get(key, 0) > total * (1 + ROUNDING)]
    trained, whole = numbers.get("parameters_trained", 0), numbers.get("parameters")
    if whole is not None and trained > whole:
        found.append("more parameters were trained than there are")
    return found


def _table_doubts(record: Record, rows: list[Row]) -> list[str]:
    stream, cost = record["stream"], record["cost"]
    steps = cost.get("steps", 0) + (cost.get("upstream_steps") or 0)
    owners: dict[str, Any] = {entry["name"]: entry["belongs_to"] for entry in stream["eval_sets"]}
    sizes = {entry["name"]: entry["samples"] for entry in stream["eval_sets"]}
    roles = {entry["name"]: entry.get("role", "") for entry in stream["eval_sets"]}
    allowed = steps + (1 if record["status"] == "diverged" else 0)
    for number, row in enumerate(rows, 1):
        place = f"row {number} of the table"
        if row.eval_set not in owners:
            return [f"{place} scores a set that the stream does not have"]
        if row.belongs_to != owners[row.eval_set]:
            return [f"{place} gives its set to another task than the stream does"]
        if row.role != roles[row.eval_set]:
            return [f"{place} gives its set another role than the stream does"]
        if row.step > allowed or row.tasks_seen > len(stream["tasks"]):
            return [f"{place} is of step {row.step} after {row.tasks_seen} tasks; the run had {steps} steps"]
        if row.n is not None and row.n > sizes[row.eval_set]:
            return [f"{place} scores more samples than the set has"]
        is_share = row.metric == stream["primary"] and stream["direction"] == "higher"
        if is_share and row.value is not None and math.isfinite(row.value) and not 0 <= row.value <= 1:
            return [f"{place} holds an accuracy of {row.value}"]
    if any(later.step < earlier.step for earlier, later in pairwise(rows)):
        return ["the steps of the table go back"]
    last = max((row.step for row in rows), default=0)
    if record["status"] == "completed" and last != steps:
        return [f"the table ends at step {last}, the run at step {steps}"]
    return []
