"""The picture of a comparison: score of each set over the steps, and the stability gap after each switch."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench.compare import Comparison
from clbench.curves import Curve, GroupCurves, group_curves
from clbench.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3  # groups beside each other
NAMED_TASKS = 10  # more tasks than this get a colour bar instead of a legend
PANEL = (4.4, 2.9)  # inches
DPI = 150
BLACK = "#222222"
GREY = "#8a8a8a"
DASHES: tuple[Any, ...] = ((0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))


def draw(comparison: Comparison, path: Path) -> None:
    """Write the picture as PNG. Raises UserError where a table is missing or the disk refuses."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    direction = comparison.stream["direction"]
    curves = [group_curves([folder for folder, _ in row.runs], direction) for row in comparison.groups]
    columns = min(COLUMNS, len(curves))
    blocks = -(-len(curves) // columns)
    tasks = max(len(group.ends) for group in curves)
    size = (PANEL[0] * columns + 1.5, PANEL[1] * 2 * blocks + 0.5)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2 * blocks, columns, squeeze=False)
    tops, bottoms = grid[0::2].flatten(), grid[1::2].flatten()
    colors = _task_colors(tasks)
    for i, (top, bottom) in enumerate(zip(tops, bottoms, strict=True)):
        if i >= len(curves):
            top.set_axis_off()
            bottom.set_axis_off()
            continue
        runs = len(comparison.groups[i].runs)
        title = "\n".join(textwrap.wrap(comparison.labels[i], 46)[:3])
        top.set_title(title + (f"\n(mean of {runs} runs; band: their range)" if runs > 1 else ""), fontsize=10)
        _draw_scores(top, curves[i], colors)
        _draw_changes(bottom, curves[i], colors)
    _label(list(tops[: len(curves)]), list(bottoms[: len(curves)]), columns, comparison.stream)
    _legend(figure, curves, colors)
    figure.suptitle(f"{comparison.stream['name']}: {comparison.stream['primary']}", fontsize=12, fontweight="bold")
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another --out") from None


def _draw_scores(axes: Axes, group: GroupCurves, colors: Sequence[Any]) -> None:
    for end in (group.start, *group.ends):
        axes.axvline(end, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
    for name, owner, style in _styled_sets(group):
        if name in group.scores:
            color = BLACK if owner is None else colors[owner]
            _plot(axes, group.scores[name], color, style)
    axes.set_xlabel("steps (dotted: a task ends)")
    axes.margins(x=0.01)


def _draw_changes(axes: Axes, group: GroupCurves, colors: Sequence[Any]) -> None:
    """Time runs in logarithmic steps from the first one on: the trough is there."""
    axes.axhline(0, color=GREY, linewidth=0.8, zorder=0)
    for switch, curve in group.changes.items():
        _plot(axes, curve, colors[switch], "-", "o")
    for switch, curve in group.held_out_changes.items():
        _plot(axes, curve, colors[switch], DASHES[0], "o")
    longest = max((c.steps[-1] for c in (*group.changes.values(), *group.held_out_changes.values())), default=1)
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    leads = (1, 2, 5) if longest < 1000 else (1,)
    ticks = [0, *(t for power in range(len(str(longest))) for lead in leads if (t := lead * 10**power) <= longest)]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(-0.05, longest * 1.1)
    axes.set_xlabel("steps since the switch (logarithmic)")
    if not group.changes and not group.held_out_changes:
        axes.text(0.5, 0.5, "not scored inside tasks", ha="center", transform=axes.transAxes, color=GREY)


def _plot(axes: Axes, curve: Curve, color: Any, style: Any, marker: str | None = None) -> None:
    axes.plot(curve.steps, curve.mean, color=color, linestyle=style, linewidth=1.4, marker=marker, markersize=2.4)
    if curve.low != curve.high:
        axes.fill_between(curve.steps, curve.low, curve.high, color=color, alpha=0.18, linewidth=0)


def _label(tops: Sequence[Axes], bottoms: Sequence[Axes], columns: int, stream: dict[str, Any]) -> None:
    """One scale for all panels of a kind; axis names on the left ones."""
    higher = stream["direction"] == "higher"
    better = "higher is better" if higher else "lower is better"
    names = (f"{stream['primary']} ({better})", "change of old sets\nsince the switch (down: worse)")
    for panels, name in zip((tops, bottoms), names, strict=True):
        low = min(axes.get_ylim()[0] for axes in panels)
        high = max(axes.get_ylim()[1] for axes in panels)
        for i, axes in enumerate(panels):
            axes.set_ylim(low, high)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
            if i % columns == 0:
                axes.set_ylabel(name)


def _legend(figure: Figure, curves: Sequence[GroupCurves], colors: Sequence[Any]) -> None:
    """Beside the panels: a colour is a task; above, the task whose set is scored; below, the task that is learned."""
    from matplotlib.lines import Line2D

    named = len(colors) <= NAMED_TASKS
    lines, names = [], []
    if named:
        lines += [Line2D([], [], color=color, linewidth=2.5) for color in colors]
        names += [f"task {task}" for task in range(len(colors))]
    for name, owner, style in _styled_sets(curves[0]):
        if owner is None:
            lines.append(Line2D([], [], color=BLACK, linestyle=style))
            names.append(name if len(name) <= 24 else name[:23] + "…")
    title = "above: whose set is scored\nbelow: the task being learned" if named else None
    if any(group.held_out_changes for group in curves):
        lines.append(Line2D([], [], color=GREY, linestyle=DASHES[0]))
        names.append("held-out sets (below)")
    if lines:
        style = {"fontsize": 8, "title_fontsize": 8, "frameon": False, "alignment": "left"}
        figure.legend(lines, names, loc="outside right upper", title=title, **style)
    if not named:
        _color_bar(figure, colors)


def _color_bar(figure: Figure, colors: Sequence[Any]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    edges = [task - 0.5 for task in range(len(colors) + 1)]
    scale = ScalarMappable(BoundaryNorm(edges, len(colors)), ListedColormap(list(colors)))
    label = "task (above: whose set is scored; below: being learned)"
    ticks = range(0, len(colors), -(-len(colors) // 10))
    bar = figure.colorbar(scale, ax=figure.axes, shrink=0.7, aspect=40, label=label, ticks=list(ticks))
    bar.ax.minorticks_off()


def _styled_sets(group: GroupCurves) -> list[tuple[str, int | None, Any]]:
    """Sets with their task and line style: several sets of a task, and held-out sets, differ in their dashes."""
    counts: dict[int | None, int] = {}
    styled = []
    for name, owner in group.owners.items():
        number = counts.get(owner, 0)
        counts[owner] = number + 1
        styles = ("-", *DASHES) if owner is not None else DASHES
        styled.append((name, owner, styles[number % len(styles)]))
    return styled


def _task_colors(tasks: int) -> list[Any]:
    """Dark to light in task order, also for readers who tell few colours apart (viridis without its palest end)."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.9 * task / max(1, tasks - 1)) for task in range(tasks)]
