"""`clbench metrics FILE`: every metric, from anyone's evaluation log."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench.errors import UserError
from clbench.metrics import DEFINITIONS, compute
from clbench.metrics.definitions import COUNT
from clbench.table import EvaluationTable

if TYPE_CHECKING:
    from rich.table import Table

LONGEST = 20  # gaps and evaluation steps listed for a reader


def metrics_command(file: Path, direction: str, as_json: bool) -> None:
    """Print the metrics object of a log as JSON, and nothing else, or as tables for a reader."""
    if direction not in ("higher", "lower"):
        raise UserError(f"--direction is {direction!r}; it must be higher or lower")
    table = EvaluationTable.read(file)
    try:
        metrics = compute(table, direction)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    if as_json:
        sys.stdout.write(json.dumps(metrics, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    else:
        _show(file, metrics)


def _show(file: Path, metrics: dict[str, Any]) -> None:
    from rich.console import Console

    about = metrics["table"]
    console = Console(file=sys.stdout, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = max(console.width, 120, 20 + 10 * len(metrics["matrix"]["eval_sets"]))
    console.print(
        f"{file}: {about['rows']} rows, {about['tasks']} tasks, {about['last_step']} steps; "
        f"{about['metric']} ({about['directions'][about['metric']]} is better), {about['weights']} weights"
    )
    console.print(_matrix_table(metrics["matrix"]))
    console.print(_metrics_table(metrics))
    if metrics["gap"]:
        console.print(_gap_table(metrics["gap"]))
        console.print(*map(_grid_line, metrics["grid"]), sep="\n")
    for reason, keys in _reasons(metrics["undefined"]).items():
        console.print(f"no value: {', '.join(keys)}: {reason}", style="dim")


def _table(title: str, columns: Iterable[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def _matrix_table(matrix: dict[str, Any]) -> Table:
    table = _table("Scores at task ends", ["", *_plain(matrix["eval_sets"])])
    if matrix["initial"] is not None:
        table.add_row("before training", *map(_number, matrix["initial"]))
    for task, row in enumerate(matrix["rows"]):
        table.add_row(f"after task {task}", *map(_number, row))
    return table


def _metrics_table(metrics: dict[str, Any]) -> Table:
    table = _table("Metrics", ["key", "value", "noise floor"])
    table.add_column("meaning")
    for key, definition in DEFINITIONS.items():
        nothing_counted = definition.sign == COUNT and not metrics.get(key)
        if metrics.get(key) is not None and not nothing_counted:
            value = str(metrics[key]) if definition.sign == COUNT else _number(metrics[key])
            floor = metrics["noise_floor"].get(key)
            meaning = definition.meaning if definition.sign == COUNT else f"{definition.meaning}; {definition.sign}"
            table.add_row(key, value, "" if floor is None else _number(floor), meaning)
    return table


def _gap_table(gaps: list[dict[str, Any]]) -> Table:
    columns = ("status", "depth", "trough_steps", "recovery_steps", "final", "mean_gap", "evaluations")
    deepest = sorted(gaps, key=lambda gap: -(gap["depth"] or 0.0))[:LONGEST]
    shown = [gap for gap in gaps if gap in deepest]
    title = "Stability gap after each switch"
    if len(shown) < len(gaps):
        title += f" (the {len(shown)} deepest of {len(gaps)}; --json has them all)"
    table = _table(title, ["at step", "set", *(name.partition("_steps")[0] for name in columns)])
    for gap in shown:
        table.add_row(str(gap["step"]), *_plain([gap["eval_set"]]), *(_number(gap[name]) for name in columns))
    return table


def _grid_line(grid: dict[str, Any]) -> str:
    steps = grid["evaluations"]
    listed = ", ".join(map(str, steps[:LONGEST])) + (f", ... {steps[-1]}" if len(steps) > LONGEST else "")
    return f"evaluated {len(steps)} times in the {grid['horizon']} steps after step {grid['step']}: {listed}"


def _reasons(undefined: dict[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for key, reason in undefined.items():
        reasons.setdefault(reason, []).append(key)
    return reasons


def _plain(names: Iterable[str]) -> list[str]:
    """Names as they are: brackets in them are not markup."""
    from rich.markup import escape

    return [escape(name) for name in names]


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
