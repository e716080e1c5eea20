"""What differs: every strategy minus the first one, metric by metric, with the interval of the paired difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clbench.compare import Comparison
from clbench.figures.material import Material
from clbench.figures.style import GREY, hide, look, note, short_labels
from clbench.leaderboard import lower_is_better
from clbench.statistics import Difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

METRICS = ("average", "average_incremental", "learning", "forgetting", "gap_depth", "retention")
BY_ROLE = ("knowledge_accumulation", "zero_shot_retention", "geometric_mean")
CERTAIN = 0.05
LINE = 0.17  # inches for a group


def shown_metrics(comparison: Comparison) -> list[str]:
    """The main metrics in which any group can be compared with the first."""
    return [key for key in (*METRICS, *BY_ROLE) if any(found.get(key) for found in comparison.differences[1:])]


def drawable(material: Material) -> bool:
    """Whether any group has runs that pair with the first's."""
    return bool(shown_metrics(material.comparison))


def height(material: Material) -> float:
    """Inches."""
    rows = -(-len(shown_metrics(material.comparison)) // _columns(material))
    return rows * (LINE * (len(material.labels) - 1) + 0.75) + 0.45


def draw(figure: FigureBase, material: Material) -> None:
    """Onto an empty figure or part of one."""
    comparison = material.comparison
    metrics = shown_metrics(comparison)
    columns = _columns(material)
    grid = figure.subplots(-(-len(metrics) // columns), columns, squeeze=False, sharey=True)
    panels = list(grid.flatten())
    names = short_labels(comparison.labels, 26 if material.width == "page" else 18)[1:]
    for i, (axes, key) in enumerate(zip(panels, metrics, strict=False)):
        for line, found in enumerate(comparison.differences[1:]):
            if difference := found.get(key):
                _draw_one(axes, line, difference)
        axes.axvline(0, color=GREY, linewidth=0.6, zorder=0)
        axes.set_title(key, loc="left")
        axes.set_xlabel("← better" if lower_is_better(key) else "better →")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0, labelleft=i % columns == 0)
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=4)
        axes.margins(x=0.12)
    hide(panels[len(metrics) :])
    note(figure, caption(material), material.inches)


def caption(material: Material) -> str:
    """What the marks mean."""
    comparison = material.comparison
    first = short_labels(comparison.labels, 44)[0]
    found = [d for of_group in comparison.differences[1:] for key, d in of_group.items() if d]
    pairs = {d.n for d in found}
    low, high = min(pairs, default=0), max(pairs, default=0)
    n = f"{low}" if low == high else f"{low} to {high}"
    tested = any(d.p is not None for d in found)
    corrected = len(comparison.groups) > 2
    filled = (
        " Filled: p\u00a0<\u00a00.05" + (", corrected by Holm within each metric." if corrected else ".")
        if tested
        else ""
    )
    lines = "; lines: 95 % interval (Student's t, each comparison for itself)" if tested else "; no interval"
    return f"Mean difference to {first} over {n} pair{'s' * (high != 1)} of equal task order and seed{lines}.{filled}"


def _draw_one(axes: Axes, line: int, found: Difference) -> None:
    style = look(line + 1)
    if found.low is not None and found.high is not None:
        axes.hlines(line, found.low, found.high, color=style.color, linewidth=1.2, zorder=2)
    p = found.p if found.p_holm is None else found.p_holm
    face = style.color if p is not None and p < CERTAIN else "white"
    axes.plot(
        [found.mean],
        [line],
        marker=style.marker,
        markersize=4.6,
        markeredgewidth=0.8,
        color=style.color,
        markerfacecolor=face,
        linestyle="none",
        zorder=3,
    )


def _columns(material: Material) -> int:
    wanted = 3 if material.width == "page" else 1
    return max(1, min(wanted, len(shown_metrics(material.comparison))))
