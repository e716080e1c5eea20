"""Scores over the steps: the average of all strategies in one panel, then every set of each strategy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clbench.curves import FEWEST, Curve, GroupCurves
from clbench.figures.material import Material
from clbench.figures.style import (
    BAND,
    BLACK,
    DASHES,
    GREY,
    group_legend,
    hide,
    look,
    note,
    runs_text,
    short_labels,
    stacked,
    task_colors,
    task_ends,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

AVERAGE, PANEL, BAR = 2.2, 1.55, 2.0  # inches high
BANDED = 10  # tasks: more bands than that hide each other


def height(material: Material) -> float:
    """Inches."""
    rows = -(-len(material.curves) // _columns(material))
    legend = 0.16 * -(-len(material.labels) // max(1, int(material.inches // 1.5)))
    return AVERAGE + legend + rows * PANEL + 0.45


def draw(figure: FigureBase, material: Material) -> None:
    """Onto an empty figure or part of one."""
    rows = -(-len(material.curves) // _columns(material))
    above, below = stacked(figure, [AVERAGE, rows * PANEL + 0.45])
    _draw_averages(above, material)
    _draw_sets(below, material)


def band_text(counts: Sequence[int]) -> str:
    """What the lines and bands of curves are."""
    most, least = max(counts), min(counts)
    if most == 1:
        return "one run each" if len(counts) > 1 else "one run"
    bands = []
    if most >= FEWEST:
        bands.append("95 % interval of the mean at each step (Student's t)")
    if any(count == 2 for count in counts):
        bands.append("range" if most == 2 else "range where there are two runs")
    alone = "; no band: one run" if least == 1 else ""
    return f"Lines: mean of {runs_text(counts)}; bands: {', '.join(bands)}{alone}"


def styled_sets(group: GroupCurves) -> list[tuple[str, int | None, Any]]:
    """Sets with their task and line style: several sets of a task, and held-out sets, differ in their dashes."""
    counts: dict[int | None, int] = {}
    styled = []
    for name, owner in group.owners.items():
        number = counts.get(owner, 0)
        counts[owner] = number + 1
        styles = DASHES if owner is not None else DASHES[1:]
        styled.append((name, owner, styles[number % len(styles)]))
    return styled


def _draw_averages(figure: FigureBase, material: Material) -> None:
    axes = figure.subplots()
    longest = max(material.curves, key=lambda group: len(group.ends))
    _draw_ends(axes, material, longest)
    for i, group in enumerate(material.curves):
        if group.average:
            where = material.places(group, group.average.steps)
            _plot(axes, where, group.average, look(i).color, look(i).dashes, look(i).marker, i / len(material.curves))
    _limits(axes, [group.average for group in material.curves if group.average], material)
    axes.set_xlabel(material.time)
    axes.set_ylabel(f"{material.score},\nmean of the tasks begun")
    group_legend(figure, material.labels, material.inches)


def _draw_sets(figure: FigureBase, material: Material) -> None:
    columns = _columns(material)
    rows = -(-len(material.curves) // columns)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    panels = list(grid.flatten())
    colors = task_colors(material.tasks)
    titles = short_labels(material.comparison.labels, int(material.inches / columns * 15))
    banded = material.tasks <= BANDED
    for i, (axes, group) in enumerate(zip(panels, material.curves, strict=False)):
        _draw_ends(axes, material, group)
        for name, owner, style in styled_sets(group):
            if name in group.scores:
                where = material.places(group, group.scores[name].steps)
                color = colors[owner] if owner is not None else _ownerless(group, name)
                _plot(axes, where, group.scores[name], color, style, band=banded)
        axes.set_title(titles[i], loc="left")
        axes.tick_params(labelbottom=i + columns >= len(material.curves), labelleft=i % columns == 0)
        if i % columns == 0:
            axes.set_ylabel(material.score)
        if i + columns >= len(material.curves):
            axes.set_xlabel(material.time)
    hide(panels[len(material.curves) :])
    _limits(panels[0], [curve for group in material.curves for curve in group.scores.values()], material, banded)
    task_bar(figure, panels, colors, "the set's task", min(1.0, BAR / (rows * PANEL)))
    _held_out_legend(panels[0], material.curves[0])
    what = band_text(material.counts) + ("" if banded or max(material.counts) == 1 else " (above only)")
    dotted = " Dotted: a task ends." if material.tasks <= 25 else ""
    scaled = " Tasks have equal widths: the strategies take different numbers of steps." if material.by_task else ""
    note(figure, f"{what}. Within tasks, sets are scored on a fixed subset.{dotted}{scaled}", material.inches)


def _columns(material: Material) -> int:
    return material.columns(min(len(material.curves), 4 if len(material.curves) > 6 else 3))


def _draw_ends(axes: Axes, material: Material, group: GroupCurves) -> None:
    """Dotted lines where tasks end, and the axis that they share."""
    ends = material.places(group, (group.start, *group.ends))
    task_ends(axes, ends)
    margin = 0.01 * (ends[-1] - ends[0])
    if margin:
        axes.set_xlim(ends[0] - margin, ends[-1] + margin)


def _plot(
    axes: Axes,
    where: Sequence[float],
    curve: Curve,
    color: Any,
    style: Any,
    marker: str | None = None,
    phase: float = 0.0,
    band: bool = True,
) -> None:
    every = (phase * 0.12, 0.12) if len(where) > 1 else None
    width = 1.2 if marker else 0.9
    axes.plot(
        where, curve.mean, color=color, linestyle=style, linewidth=width, marker=marker, markevery=every, zorder=3
    )
    if band and len(curve.values) > 1:
        axes.fill_between(where, curve.low, curve.high, color=color, alpha=BAND, linewidth=0, zorder=2)


def _limits(axes: Axes, curves: Sequence[Curve], material: Material, banded: bool = True) -> None:
    """All of the bands; of accuracies, not beyond 0 and 1."""
    import numpy as np

    if not curves:
        axes.text(0.5, 0.5, "nothing was scored", ha="center", transform=axes.transAxes)
        return
    low = min(min(curve.low if banded else curve.smallest) for curve in curves)
    high = max(max(curve.high if banded else curve.largest) for curve in curves)
    if min(min(c.smallest) for c in curves) >= 0 and max(max(c.largest) for c in curves) <= 1 and material.higher:
        low, high = max(low, 0.0), min(high, 1.0)
    margin = 0.04 * (high - low) or 0.05 * max(1.0, abs(high))
    if np.isfinite(low) and np.isfinite(high):
        axes.set_ylim(low - margin, high + margin)


def task_bar(figure: FigureBase, panels: Sequence[Axes], colors: Sequence[Any], label: str, shrink: float) -> None:
    """A bar that says which colour is which task."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    if not colors:
        return
    edges = [task - 0.5 for task in range(len(colors) + 1)]
    norm = BoundaryNorm(edges, len(colors)) if len(colors) > 1 else None
    scale = ScalarMappable(norm, ListedColormap(list(colors)))
    ticks = list(range(0, len(colors), -(-len(colors) // 10))) if norm else []
    bar = figure.colorbar(
        scale,
        ax=list(panels),
        label=label,
        ticks=ticks,
        aspect=30 * shrink,
        pad=0.02,
        fraction=0.04,
        shrink=shrink,
        anchor=(0.0, 1.0),
    )
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)


def _ownerless(group: GroupCurves, name: str) -> str:
    """Colour of a set of no task: grey where all tasks together adapt to it."""
    return GREY if group.roles.get(name) == "adaptation" else BLACK


def _held_out_legend(axes: Axes, group: GroupCurves) -> None:
    from matplotlib.lines import Line2D

    held_out = [(name, style) for name, owner, style in styled_sets(group) if owner is None]
    if held_out:
        shown = sorted(held_out, key=lambda item: group.roles.get(item[0]) == "adaptation")[:3]
        lines = [Line2D([], [], color=_ownerless(group, name), linestyle=s, linewidth=0.9) for name, s in shown]
        adapted = [group.roles.get(name) == "adaptation" for name, _ in shown]
        texts = [f"{name} ({'all tasks' if a else 'held out'})" for (name, _), a in zip(shown, adapted, strict=True)]
        names = short_labels(texts, 26)
        axes.legend(lines, names, loc="best", fontsize=5.5, handlelength=2.4)
