"""What a run prints at its end: scores, metrics and their meaning, the gap, the cost, the folder, what to try next."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from clbench.cli.display import duration
from clbench.cli.text import columns, number, short, size, width
from clbench.command import repeat_command
from clbench.errors import UserError
from clbench.metrics import DEFINITIONS
from clbench.record import Record, read_record
from clbench.runs import RESULTS

MAIN = (
    "average",
    "average_incremental",
    "learning",
    "adaptation",
    "forgetting",
    "backward_transfer",
    "forward_transfer",
    "retention",
    "retention_change",
    "knowledge_accumulation",
    "knowledge_accumulation_change",
    "zero_shot_retention",
    "zero_shot_retention_change",
    "geometric_mean",
    "geometric_mean_over_stream",
)
GAP = ("gap_depth", "gap_mean", "gap_area", "gap_transient", "gap_recovered_share", "gap_heldout_depth")
UNITS = {"nats": "nats per token"}
WIDEST_CELL = 12
MOST_SIBLINGS = 5


def summary(folder: Path, record: Record) -> str:
    """The text, ending in a newline; for every status."""
    metrics = record["metrics"]
    lines = [_headline(record), ""]
    matrix = metrics.get("matrix")
    if matrix and (matrix["rows"] or any(value is not None for value in matrix["initial"] or ())):
        lines += [*_matrix(record, matrix), ""]
        if values := _metrics(metrics, record["stream"]["direction"]):
            lines += [*values, ""]
        lines += [*_gap(metrics), ""]
    elif matrix:
        lines += ["no task was finished: there are no scores yet", ""]
    lines += _why_nothing(metrics)
    lines += _diagnostics(record)
    lines += _cost(record)
    lines += [f"warning  {' '.join(str(text).split())}" for text in record.get("warnings") or ()]
    lines += _where(folder, record)
    return "\n".join(lines) + "\n"


def _headline(record: Record) -> str:
    spec, stream = record["spec"], record["stream"]
    text = f"{record['strategy']['name']} on {stream['name']}, seed {spec['seed']}, model {spec['backbone']}"
    return text if record["status"] == "completed" else f"{text}: {record['status']}"


def _matrix(record: Record, matrix: dict[str, Any]) -> list[str]:
    stream = record["stream"]
    primary = stream["primary"]
    names, owners, sizes = matrix["eval_sets"], matrix["belongs_to"], stream["tasks"]
    shown = _chosen(len(names), (width() - 20) // 9)
    head = ["", *(_cut(names[i]) if i is not None else "..." for i in shown)]
    rows = [head]
    if matrix["initial"] is not None and any(value is not None for value in matrix["initial"]):
        rows.append(["before training", *_cells(matrix["initial"], shown)])
    for task in _chosen(len(matrix["rows"]), 30):
        if task is None:
            rows.append(["..."])
            continue
        name = sizes[task]["name"] if task < len(sizes) else ""
        rows.append([f"after {_cut(name) or f'task {task}'}", *_cells(matrix["rows"][task], shown)])
    unit = UNITS.get(primary, primary.replace("_", " "))
    roles = matrix.get("roles") or [""] * len(names)
    of_none = [(name, role) for name, owner, role in zip(names, owners, roles, strict=True) if owner is None]
    held_out = ", ".join(name for name, role in of_none if role != "adaptation")
    held = f" (held out: {held_out})" if held_out else ""
    title = f"{unit} of each set, {stream['direction']} is better{held}"
    return [title, *columns(rows)]


def _chosen(count: int, most: int) -> list[int | None]:
    """Indices to show; a None stands for those left out in the middle."""
    most = max(4, most)
    if count <= most:
        return list(range(count))
    first = most // 2
    return [*range(first), None, *range(count - (most - first - 1), count)]


def _cells(values: list[Any], shown: list[int | None]) -> list[str]:
    return [number(values[i], 3) if i is not None else "..." for i in shown]


def _cut(name: str) -> str:
    return name if len(name) <= WIDEST_CELL else name[: WIDEST_CELL - 2] + ".."


def _metrics(metrics: dict[str, Any], direction: str) -> list[str]:
    by_role = metrics.get("zero_shot_retention") is not None  # which retention is then, too
    rows = _rows(metrics, tuple(key for key in MAIN if not (by_role and key.startswith("retention"))))
    title = "metrics" if direction == "higher" else "metrics (of the negated scores, so that higher is better)"
    return [title, *columns(rows, right=False)] if rows else []


def _rows(metrics: dict[str, Any], keys: tuple[str, ...]) -> list[list[str]]:
    floors = metrics.get("noise_floor") or {}
    rows = []
    for key in keys:
        if metrics.get(key) is not None:
            floor = floors.get(key)
            value = number(metrics[key]).rjust(9) + (f" ({number(floor)})" if floor is not None else "")
            meaning = re.sub(r" \([^()]*\)$", "", DEFINITIONS[key].meaning)
            rows.append([key, value, f"{meaning}; {DEFINITIONS[key].sign.split(';')[0]}"])
    return rows


def _gap(metrics: dict[str, Any]) -> list[str]:
    rows = _rows(metrics, GAP)
    if rows and metrics.get("gap_pairs"):
        pairs = metrics["gap_pairs"]
        return [
            f"stability gap over {pairs} (switch, old set) pairs (in brackets: what noise alone can show)",
            *columns(rows, right=False),
        ]
    reason = (metrics.get("undefined") or {}).get("gap_depth", "no old set was evaluated after a switch")
    return [f"stability gap: none measured: {reason}"]


def _why_nothing(metrics: dict[str, Any]) -> list[str]:
    reason = (metrics.get("undefined") or {}).get("all")
    return [f"no metrics: {reason}", ""] if reason else []


def _diagnostics(record: Record) -> list[str]:
    """Numbers of each task; of a table of numbers, the mean."""
    told = record.get("diagnostics") or ()
    tables = [{key: _mean(value) for key, value in task["values"].items()} for task in told]
    keys = dict.fromkeys(key for values in tables for key, value in values.items() if value is not None)
    if not keys:
        return []
    shown = _chosen(len(told), 10)
    head = ["after task", *("..." if i is None else str(told[i]["task"]) for i in shown)]
    rows = [[key, *("..." if i is None else number(tables[i].get(key), 3) for i in shown)] for key in keys]
    return ["what the strategy told of itself (of several numbers: their mean)", *columns([head, *rows]), ""]


def _mean(value: Any) -> float | None:
    """Of a number or the numbers in a dict; None for anything else."""
    found = list(value.values()) if isinstance(value, dict) else [value]
    numbers = [float(v) for v in found if isinstance(v, (int, float))]
    return sum(numbers) / len(numbers) if numbers and len(numbers) == len(found) else None


def _cost(record: Record) -> list[str]:
    cost = record["cost"]
    if not cost.get("seconds_total"):
        return []
    parts = [
        duration(cost["seconds_total"]),
        f"{cost['steps']:,} steps",
        f"{short(cost['flops_train'])} FLOPs of training",
        f"continual evaluation {100 * cost['trace_share']:.1f} % of the time",
        f"stores {size(cost['stored_bytes'])}",
        f"peak memory {size(cost['peak_memory_bytes'])}",
    ]
    return [*_upstream(record), f"cost     {', '.join(parts)}"]


def _upstream(record: Record) -> list[str]:
    """What taught the first task, where that was not the run."""
    found = record.get("upstream")
    if not found:
        return []
    name = found.get("key") or found.get("name") or record["spec"]["backbone"]
    parts = [f"{found['kind']} {_short_name(str(name))}", f"weights {found['weights_sha256'][:8]}"]
    if found["steps"]:
        parts.append(f"{found['steps']:,} steps, which are not in this run's cost")
    return [f"upstream {', '.join(parts)}"]


def _short_name(name: str) -> str:
    """A key's first characters; names as they are."""
    return name[:8] if re.fullmatch("[0-9a-f]{64}", name) else name


def _where(folder: Path, record: Record) -> list[str]:
    status = record["status"]
    if status == "interrupted":
        resume = record["strategy"]["needs"].get("resume", "step")
        kept = {"task": "checkpoint of the last task kept", "none": "no checkpoint: it will start again"}
        return [f"folder   {folder} ({kept.get(resume, 'checkpoint kept')})", f"next     clbench resume {folder}"]
    if status == "failed":
        log = folder / "log.txt"
        lines = [f"folder   {folder} (what there was up to the failure is kept)"]
        return lines + ([f"log      {log}"] if log.is_file() else [])
    if status == "diverged":
        return [
            f"folder   {folder} (everything up to the divergence is kept)",
            "next     the same with a lower --set lr=...",
        ]
    if status in ("running", "killed"):
        return [f"folder   {folder} (not finished)", f"next     clbench resume {folder}"]
    return [f"folder   {folder}", f"again    {repeat_command(record)}", *_next(folder, record)]


def _next(folder: Path, record: Record) -> list[str]:
    """Commands to try: more seeds, a comparison with another run on the same data, the board."""
    out = folder.parents[3] if len(folder.parents) > 3 else Path()
    place = "" if out == RESULTS else f" --results {out}"
    other = _another(folder, record)
    lines = [f"clbench compare {other} {folder}"] if other else []
    if record["spec"]["seed"] == 0:
        lines.append(f"clbench run --config {folder / 'config.yaml'} --seeds 1-4{place.replace('--results', '--out')}")
    lines.append(f"clbench leaderboard {record['stream']['name']}{place}")
    return [f"{'next' if i == 0 else '':8} {line}" for i, line in enumerate(lines)]


def _another(folder: Path, record: Record) -> Path | None:
    """The latest finished run of another strategy on the same data."""
    siblings = [path for path in folder.parent.parent.glob("*/*") if path.parent.name != folder.parent.name]
    for path in sorted(siblings, key=lambda path: path.name, reverse=True)[:MOST_SIBLINGS]:
        try:
            other = read_record(path)
            if other["status"] == "completed" and other["stream"]["content"] == record["stream"]["content"]:
                return path
        except (UserError, KeyError, TypeError):
            continue
    return None
