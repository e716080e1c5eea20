"""The matrix of each strategy: rows are the states after each task, columns the sets, cells the mean over runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clbench.figures.material import Material
from clbench.figures.style import note, runs_text, short_labels
from clbench.leaderboard import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

NUMBERED = 20  # columns: above that, cells have no room for a number
CELL = (0.23, 0.155)  # inches that a number needs
BAR = 2.5  # inches
PLAIN = 2.0  # inches high, without numbers


@dataclass
class MeanMatrix:
    """values[row][column]: mean over runs, None where a run has none. states: names of the rows; sets: of the columns;
    learned: how many columns belong to a task (those after them are held out)."""

    states: list[str]
    sets: list[str]
    learned: int
    values: list[list[float | None]]
    runs: int


def mean_matrix(row: Row) -> MeanMatrix | None:
    """Mean over a row's runs of the boundary matrix of their records; columns are matched by position, that is by the
    order in which sets are learned. None where no run has a matrix."""
    matrices = [found for _, record in row.runs if (found := record["metrics"].get("matrix")) and found.get("rows")]
    if not matrices:
        return None
    first = matrices[0]
    size = (len(first["rows"]), len(first["eval_sets"]))
    same = [m for m in matrices if (len(m["rows"]), len(m["eval_sets"])) == size]
    values = [_mean([m["rows"][t] for m in same]) for t in range(size[0])]
    states = [str(t) for t in range(size[0])]
    before = [m["initial"] for m in same if m.get("initial")]
    if len(before) == len(same) and any(value is not None for value in _mean(before)):
        values, states = [_mean(before), *values], ["before", *states]
    return MeanMatrix(
        states,
        column_names(first["eval_sets"], first["belongs_to"]),
        sum(owner is not None for owner in first["belongs_to"]),
        values,
        len(same),
    )


def column_names(sets: Sequence[str], owners: Sequence[int | None]) -> list[str]:
    """Of a column: its task's index where every task has one set; else the set's name. Held-out ones have names."""
    learned = [owner for owner in owners if owner is not None]
    single = len(set(learned)) == len(learned)
    return [str(owner) if owner is not None and single else name for name, owner in zip(sets, owners, strict=True)]


def drawable(material: Material) -> bool:
    """Whether any run has a matrix."""
    return any(mean_matrix(row) for row in material.comparison.groups)


def height(material: Material) -> float:
    """Inches."""
    columns, panel = _layout(material)
    return -(-len(material.labels) // columns) * panel + 0.45


def draw(figure: FigureBase, material: Material) -> None:
    """Onto an empty figure or part of one."""
    columns, _ = _layout(material)
    matrices = [mean_matrix(row) for row in material.comparison.groups]
    grid = figure.subplots(-(-len(matrices) // columns), columns, squeeze=False)
    panels = list(grid.flatten())
    known = [value for matrix in matrices if matrix for line in matrix.values for value in line if value is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    fraction = material.higher and low >= 0 and high <= 1
    if fraction:
        low = 0.0
    titles = short_labels(material.comparison.labels, int(material.inches / columns * 15))
    image = None
    for i, axes in enumerate(panels):
        matrix = matrices[i] if i < len(matrices) else None
        if matrix is None:
            axes.set_axis_off()
            continue
        image = _draw_one(axes, matrix, (low, high), material.higher, fraction)
        axes.set_title(titles[i], loc="left")
        if i % columns == 0:
            axes.set_ylabel("after task")
        if i + columns >= len(matrices):
            axes.set_xlabel("set of task")
    if image is not None:
        shrink = min(1.0, BAR / height(material))
        bar = figure.colorbar(
            image,
            ax=panels,
            label=material.score,
            aspect=30,
            pad=0.02,
            fraction=0.035,
            shrink=shrink,
            anchor=(0.0, 1.0),
        )
        bar.outline.set_visible(False)
        if not material.higher:
            bar.ax.invert_yaxis()
    blank = " Blank: could not be scored." if _has_blanks(matrices) else ""
    note(figure, f"Mean of {runs_text(material.counts)}, whole sets.{blank}", material.inches)


def cell_text(value: float | None, fraction: bool) -> str:
    """At most four characters: `.93`, `1.0`, `2.31`, `12.3`, `123`, or `1e5`."""
    if value is None:
        return ""
    if fraction:
        return "1.0" if round(value, 2) >= 1 else f"{value:.2f}".lstrip("0")
    size = abs(value)
    digits = 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{value:.{digits}f}" if size < 9999.5 else f"{value:.0e}"


def _draw_one(axes: Axes, matrix: MeanMatrix, limits: tuple[float, float], higher: bool, fraction: bool) -> Any:
    import numpy as np

    values = np.array([[np.nan if value is None else value for value in line] for line in matrix.values], dtype=float)
    colors = "viridis" if higher else "viridis_r"
    image = axes.pcolormesh(values, cmap=colors, vmin=limits[0], vmax=limits[1], rasterized=values.size > 900)
    axes.set_ylim(len(matrix.states), 0)
    if matrix.learned < len(matrix.sets):
        axes.axvline(matrix.learned, color="white", linewidth=2)
    _ticks(axes, matrix)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0, pad=1.5)
    if len(matrix.sets) <= NUMBERED and len(matrix.states) <= NUMBERED + 1:
        span = limits[1] - limits[0] or 1.0
        size = 5.8 if len(matrix.sets) <= 10 else 5.0
        for t, line in enumerate(matrix.values):
            for j, value in enumerate(line):
                if value is not None:
                    share = (value - limits[0]) / span
                    dark = (share if higher else 1 - share) < 0.6
                    text, color = cell_text(value, fraction), "white" if dark else "black"
                    axes.text(j + 0.5, t + 0.5, text, ha="center", va="center_baseline", fontsize=size, color=color)
    return image


def _ticks(axes: Axes, matrix: MeanMatrix) -> None:
    every = max(1, -(-len(matrix.states) // 12)) if len(matrix.states) > NUMBERED + 1 else 1
    shown = range(0, len(matrix.states), every)
    axes.set_yticks([t + 0.5 for t in shown], [matrix.states[t] for t in shown])
    every = max(1, -(-len(matrix.sets) // 12)) if len(matrix.sets) > NUMBERED else 1
    shown = range(0, len(matrix.sets), every)
    names = short_labels(matrix.sets, 10)
    tilted = any(len(names[j]) > 3 for j in shown)
    axes.set_xticks([j + 0.5 for j in shown], [names[j] for j in shown], rotation=35 if tilted else 0)
    if tilted:
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
            label.set_rotation_mode("anchor")


def _layout(material: Material) -> tuple[int, float]:
    """Panels beside each other, and the height of one in inches."""
    shapes = [(len(m.sets), len(m.states)) for row in material.comparison.groups if (m := mean_matrix(row))]
    sets = max((shape[0] for shape in shapes), default=1)
    states = max((shape[1] for shape in shapes), default=1)
    numbered = sets <= NUMBERED and states <= NUMBERED + 1
    wanted = min(4 if sets <= 5 else 3, len(material.labels))
    columns = material.columns(wanted, max(1.5, CELL[0] * sets + 0.45) if numbered else 2.0)
    return columns, max(1.3, CELL[1] * states + 0.55) if numbered else PLAIN


def _mean(rows: Sequence[Sequence[float | None]]) -> list[float | None]:
    means: list[float | None] = []
    for cells in zip(*rows, strict=True):
        known = [cell for cell in cells if cell is not None]
        means.append(sum(known) / len(known) if known and len(known) == len(cells) else None)
    return means


def _has_blanks(matrices: Sequence[MeanMatrix | None]) -> bool:
    return any(value is None for matrix in matrices if matrix for line in matrix.values for value in line)
