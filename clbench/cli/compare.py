"""`clbench compare RUN RUN ...`: metrics side by side, paired differences, and figures."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clbench.compare import Comparison, compare
from clbench.leaderboard import COSTS, Value, lower_is_better
from clbench.metrics.definitions import base_key
from clbench.statistics import Difference

if TYPE_CHECKING:
    from rich.table import Table

DEFAULT = Path("compare.png")
LEVELS = (0.05, 0.01, 0.001)


@dataclass(frozen=True)
class Pictures:
    """What is drawn. out: a file (PNG, SVG or PDF), or a folder for several. figures: comma-separated names, `all`, or
    None for one overview. form: the formats in a folder, comma-separated. width: `page` or `column`."""

    out: Path | None = None
    figures: str | None = None
    form: str | None = None
    width: str = "page"


def compare_command(runs: list[Path], pictures: Pictures, as_json: bool = False) -> None:
    """Compare the runs in these folders, print what differs, and draw it.

    Raises UserError for runs of different data, runs that are not completed, or a file that cannot be written.
    """
    from clbench.figures.write import figure_files, write_figures

    files = figure_files(pictures.out or _default(pictures), pictures.figures, pictures.form, pictures.width)
    comparison = compare(runs)
    written = write_figures(comparison, files, pictures.width, _note)
    if as_json:
        found = {**comparison.as_dict(), "picture": str(written[0]), "pictures": [str(path) for path in written]}
        sys.stdout.write(json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
        return
    _show(comparison)
    sys.stderr.write(f"figures: {', '.join(map(str, written))}\n")


def _default(pictures: Pictures) -> Path:
    """compare.png; with several figures the folder `compare`."""
    if pictures.figures is None:
        form = pictures.form or "png"
        return DEFAULT if "," in form else DEFAULT.with_suffix(f".{form}")
    return DEFAULT.with_suffix("")


def _note(text: str) -> None:
    sys.stderr.write(f"clbench: {text}\n")


def _show(comparison: Comparison) -> None:
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, markup=False)
    stream = comparison.stream
    measure = stream["primary"] if stream["direction"] == "higher" else f"-{stream['primary']} (closer to 0 is better)"
    console.print(f"{stream['name']} (data {stream['content'][:8]}), scores are {measure}", style="bold")
    console.print(_metrics(comparison))
    if len(comparison.groups) > 1:
        console.print(_differences(comparison))
        corrected = ", corrected by Holm within each metric" if len(comparison.groups) > 2 else ""
        console.print(
            "paired on equal task order and run seed; [..]: 95 % interval; "
            f"*: p < 0.05, **: p < 0.01, ***: p < 0.001{corrected}",
            style="dim",
        )


def _metrics(comparison: Comparison) -> Table:
    table = _table("Metrics (mean ± half of a 95 % interval)", comparison.labels, comparison)
    for key in (*_printed(comparison), *COSTS):
        arrow = "lower" if lower_is_better(key) else "higher"
        table.add_row(key, arrow, *(_cell(row.value(key)) for row in comparison.groups))
    table.add_row("runs", "", *(str(len(row.runs)) for row in comparison.groups))
    return table


def _differences(comparison: Comparison) -> Table:
    table = _table(f"Difference to {comparison.labels[0]}", comparison.labels[1:], comparison)
    for key in _printed(comparison):
        cells = [_difference(differences[key]) for differences in comparison.differences[1:]]
        if any(cell != "-" for cell in cells):
            table.add_row(key, "lower" if lower_is_better(key) else "higher", *cells)
    pairs = [max((d.n for d in found.values() if d), default=0) for found in comparison.differences[1:]]
    table.add_row("pairs", "", *map(str, pairs))
    return table


def _printed(comparison: Comparison) -> list[str]:
    """The metrics of the primary score; those of other scores and weights are in the JSON."""
    return [key for key in comparison.metrics if key == base_key(key)]


def _table(title: str, labels: list[str], comparison: Comparison) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("better")
    for label in labels:
        table.add_column(escape(label), justify="right", overflow="fold")
    return table


def _cell(value: Value) -> str:
    found = value.estimate
    if found is None:
        return "-"
    half = "" if found.half_width is None else f" ± {_number(found.half_width)}"
    return f"{_number(found.mean)}{half}" + (f" ({found.n} runs)" if value.left_out else "")


def _difference(found: Difference | None) -> str:
    if found is None:
        return "-"
    interval = "" if found.low is None or found.high is None else f" [{found.low:+.4f}, {found.high:+.4f}]"
    p = found.p if found.p_holm is None else found.p_holm
    stars = "" if p is None else "*" * sum(p < level for level in LEVELS)
    return f"{found.mean:+.4f}{interval}" + (f" {stars}" if stars else "")


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}"
