"""Accumulation against retention: where each strategy ends on the plane, and its way there from before training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clbench.curves import FEWEST
from clbench.figures.material import Material
from clbench.figures.style import BLACK, GREY, SMALL, group_legend, look, note, runs_text
from clbench.leaderboard import Row, metric_value
from clbench.statistics import student_quantile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

AXES = ("knowledge_accumulation", "zero_shot_retention")
PANEL = 3.0  # inches high
PATHS = 12  # strategies: of more, lines go straight
LEVELS = (0.01, 0.02, 0.05, 0.1)  # spacings of equal geometric means
MOST_LEVELS = 6
Point = tuple[float, float]


@dataclass
class Place:
    """A group's runs on the plane. points: (accumulation, retention) of each run that has both, after the last task.
    path: mean over these runs before training and after each task, where all have equally many; else the ends alone,
    empty where a run has no scores from before training."""

    points: list[Point]
    path: list[Point]

    @property
    def mean(self) -> Point:
        return _mean(self.points)

    def band(self, axis: int) -> tuple[float, float] | None:
        """The 95 % interval of the mean (Student's t) from three runs on, the range of two, None of one."""
        values = [point[axis] for point in self.points]
        if len(values) < FEWEST:
            return (min(values), max(values)) if len(values) > 1 else None
        center = math.fsum(values) / len(values)
        spread = math.sqrt(math.fsum((v - center) ** 2 for v in values) / (len(values) - 1))
        half = student_quantile(len(values) - 1) * spread / math.sqrt(len(values))
        return center - half, center + half


def place(row: Row) -> Place | None:
    """Where a row's runs are; None where none has both quantities."""
    points, paths = [], []
    for _, record in row.runs:
        found = [metric_value(record, key) for key in AXES]
        if found[0] is None or found[1] is None:
            continue
        points.append((found[0], found[1]))
        entries: list[dict[str, Any]] = record["metrics"].get("over_stream") or []
        pairs = [(entry[AXES[0]], entry[AXES[1]]) for entry in entries]
        known = pairs and entries[0]["tasks_seen"] == 0 and all(None not in pair for pair in pairs)
        paths.append(pairs if known else [])
    if not points:
        return None
    if not all(paths):
        return Place(points, [])
    if len({len(path) for path in paths}) > 1:
        paths = [[path[0], path[-1]] for path in paths]
    return Place(points, [_mean(steps) for steps in zip(*paths, strict=True)])


def drawable(material: Material) -> bool:
    """Whether any run has both quantities, of scores: the plane of losses has no geometric means."""
    return material.higher and any(place(row) for row in material.comparison.groups)


def height(material: Material) -> float:
    """Inches."""
    return PANEL + 0.16 * -(-len(material.labels) // max(1, int(material.inches // 1.5))) + 0.45


def draw(figure: FigureBase, material: Material) -> None:
    """Onto an empty figure or part of one."""
    found = {i: where for i, row in enumerate(material.comparison.groups) if (where := place(row)) is not None}
    axes = figure.subplots()
    starts = [where.path[0] for where in found.values() if where.path]
    for i, where in found.items():
        _draw_way(axes, where, i, len(found) <= PATHS)
    for i, where in found.items():
        _draw_end(axes, where, i)
    if starts:
        start = _mean(starts)
        axes.plot(*start, marker="*", markersize=8, color=BLACK, markeredgecolor="white", markeredgewidth=0.6, zorder=5)
        axes.annotate("before training", start, (-3, 6), textcoords="offset points", fontsize=SMALL, color=BLACK)
    _limits(axes, list(found.values()))
    _draw_levels(axes)
    between = " " if material.width == "page" else "\n"
    axes.set_xlabel(f"knowledge accumulation:{between}mean {material.score} of the sets adapted to")
    axes.set_ylabel(f"zero-shot retention:\nmean {material.score} of the held-out sets")
    group_legend(figure, material.labels, material.inches, list(found))
    note(figure, caption([len(where.points) for where in found.values()], len(found) <= PATHS), material.inches)


def caption(counts: Sequence[int], paths: bool) -> str:
    """What the marks and lines are."""
    if max(counts) == 1:
        what = "One run each"
    else:
        bars = "95 % interval of the mean (Student's t)" if max(counts) >= FEWEST else "range"
        some = ", range where there are two" if max(counts) >= FEWEST and 2 in counts else ""
        what = f"Marks: mean of {runs_text(counts)} after the last task; bars: {bars}{some}"
    lines = "Thin lines: the mean after each task, from before training (star)" if paths else "Lines: from the star"
    return f"{what}. {lines}. Dotted: equal geometric mean."


def _mean(points: Sequence[Point]) -> Point:
    return tuple(math.fsum(values) / len(values) for values in zip(*points, strict=True))  # type: ignore[return-value]


def _draw_way(axes: Axes, where: Place, i: int, whole: bool) -> None:
    if not where.path:
        return
    path = where.path if whole else [where.path[0], where.path[-1]]
    x, y = zip(*path, strict=True)
    dot = "." if whole and len(path) > 2 else None
    style = look(i)
    axes.plot(x, y, color=style.color, linestyle=style.dashes, linewidth=0.7, alpha=0.6, marker=dot, ms=2.0, zorder=2)


def _draw_end(axes: Axes, where: Place, i: int) -> None:
    style, (x, y) = look(i), where.mean
    if (across := where.band(0)) is not None:
        axes.hlines(y, *across, color=style.color, linewidth=1.0, zorder=3)
    if (up := where.band(1)) is not None:
        axes.vlines(x, *up, color=style.color, linewidth=1.0, zorder=3)
    axes.plot(
        [x], [y], marker=style.marker, markersize=5.0, color=style.color, linestyle="none",
        markeredgecolor="white", markeredgewidth=0.5, zorder=4,
    )  # fmt: skip


def _limits(axes: Axes, found: Sequence[Place]) -> None:
    """All points and bars; of accuracies, bars not beyond 0 and 1."""
    setters: list[Any] = [axes.set_xlim, axes.set_ylim]
    for axis, limit in enumerate(setters):
        values = [point[axis] for where in found for point in (*where.points, *where.path)]
        ends = [end for where in found for end in where.band(axis) or ()]
        low, high = min(values + ends), max(values + ends)
        if min(values) >= 0 and max(values) <= 1:
            low, high = max(low, 0.0), min(high, 1.0)
        margin = 0.1 * (high - low) or 0.05
        limit(low - margin, high + margin)


def _draw_levels(axes: Axes) -> None:
    """Curves of equal geometric mean, each with its value where it leaves the panel on the right."""
    import numpy as np

    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    left, bottom = max(left, 1e-6), max(bottom, 1e-6)
    lowest, highest = math.sqrt(left * bottom), math.sqrt(right * top)
    spacing = next((s for s in LEVELS if (highest - lowest) / s <= MOST_LEVELS), 0.2)
    for level in np.arange(math.ceil(lowest / spacing), highest / spacing) * spacing:
        x = np.linspace(left, right, 100)
        axes.plot(x, level**2 / x, color=GREY, linewidth=0.5, linestyle=(0, (1, 2)), zorder=0)
        y = level**2 / right
        at, text = ((right, y), f" {level:.2f}") if y >= bottom else ((level**2 / bottom, bottom), f"{level:.2f} ")
        if left <= at[0] and at[1] <= top:
            side = {"ha": "left", "va": "center"} if y >= bottom else {"ha": "right", "va": "bottom"}
            paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
            axes.text(*at, text, color=GREY, fontsize=SMALL - 0.5, bbox=paper, zorder=1, **side)  # type: ignore
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
