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
from clbench.quantities import with_prefix
from clbench.statistics import Difference

if TYPE_CHECKING:
    from rich.table import Table

DEFAULT = Path("compare.png")
LEVELS = (0.05, 0.01, 0.001)
LABEL = 24  # characters of a label before it is folded
GUTTER = 3  # between columns


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
    comparison = compare(runs, files.least)
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
    for table in _metrics(comparison, console.width):
        console.print(table)
    if len(comparison.groups) > 1:
        for table in _differences(comparison, console.width):
            console.print(table)
        for table in _blocks(comparison, console.width):
            console.print(table)
        corrected = ", corrected by Holm within each metric" if len(comparison.groups) > 2 else ""
        console.print(
            "paired on equal task order and run seed; [..]: 95 % interval; "
            f"*: p < 0.05, **: p < 0.01, ***: p < 0.001{corrected}",
            style="dim",
        )


def _metrics(comparison: Comparison, width: int) -> list[Table]:
    groups = comparison.groups
    lines = [
        [key, "lower" if lower_is_better(key) else "higher", *(_cell(row.value(key), key) for row in groups)]
        for key in (*_printed(comparison), *COSTS)
    ]
    lines.append(["runs", "", *(str(len(row.runs)) for row in groups)])
    return _tables("Metrics (mean ± half of a 95 % interval)", comparison.labels, lines, width)


def _differences(comparison: Comparison, width: int) -> list[Table]:
    lines = []
    for key in _printed(comparison):
        cells = [_difference(differences[key]) for differences in comparison.differences[1:]]
        if any(cell != "-" for cell in cells):
            lines.append([key, "lower" if lower_is_better(key) else "higher", *cells])
    pairs = [max((d.n for d in found.values() if d), default=0) for found in comparison.differences[1:]]
    lines.append(["pairs", "", *map(str, pairs)])
    return _tables(f"Difference to {comparison.labels[0]}", comparison.labels[1:], lines, width)


def _blocks(comparison: Comparison, width: int) -> list[Table]:
    """Of runs that kept the losses of single blocks."""
    found = comparison.blocks[1:]
    names = dict.fromkeys(name for of_group in found for name in of_group)
    cells = {name: [of_group.get(name) for of_group in found] for name in names}
    lines = [
        [name, "lower", *("-" if cell is None else f"{cell.mean:+.4f} ± {cell.se:.4f}" for cell in row)]
        for name, row in cells.items()
    ]
    title = f"Nats after the last task minus {comparison.labels[0]}'s (± standard error over evaluation blocks)"
    return _tables(title, comparison.labels[1:], lines, width) if lines else []


def _printed(comparison: Comparison) -> list[str]:
    """The metrics of the primary score; those of other scores and weights are in the JSON."""
    return [key for key in comparison.metrics if key == base_key(key)]


def _tables(title: str, labels: list[str], lines: list[list[str]], width: int) -> list[Table]:
    """One below the other, each with as many groups as fit into `width` characters without breaking a number.

    lines: key, which way is better, and a cell for each group.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    widths = [max(len(line[i]) for line in lines) for i in range(len(labels) + 2)]
    widths[2:] = [max(cells, min(len(label), LABEL)) for label, cells in zip(labels, widths[2:], strict=True)]
    room = width - sum(widths[:2]) - 2 * GUTTER
    blocks: list[list[int]] = [[]]
    for i in range(2, len(widths)):
        if blocks[-1] and sum(widths[j] + GUTTER for j in [*blocks[-1], i]) > room:
            blocks.append([])
        blocks[-1].append(i)
    tables = []
    for n, block in enumerate(blocks):
        name = title if n == 0 else f"{title}, continued"
        table = Table(title=Text(name), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("", no_wrap=True)
        table.add_column("better", no_wrap=True)
        for i in block:
            table.add_column(Text(labels[i - 2]), justify="right", overflow="fold", min_width=widths[i])
        for line in lines:
            table.add_row(*line[:2], *(line[i] for i in block))
        tables.append(table)
    return tables


def _cell(value: Value, key: str) -> str:
    found = value.estimate
    if found is None:
        return "-"
    half = "" if found.half_width is None else f" ± {_number(found.half_width, key)}"
    return f"{_number(found.mean, key)}{half}" + (f" ({found.n} runs)" if value.left_out else "")


def _difference(found: Difference | None) -> str:
    if found is None:
        return "-"
    interval = "" if found.low is None or found.high is None else f" [{found.low:+.4f}, {found.high:+.4f}]"
    p = found.p if found.p_holm is None else found.p_holm
    stars = "" if p is None else "*" * sum(p < level for level in LEVELS)
    return f"{found.mean:+.4f}{interval}" + (f" {stars}" if stars else "")


def _number(value: float, key: str) -> str:
    if key in ("stored_bytes", "flops_train"):
        return with_prefix(value, "B" if key == "stored_bytes" else "")
    if key == "seconds_train":
        return f"{value:.2f}"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}"
