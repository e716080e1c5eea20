"""How figures look: sizes, fonts, and colours that survive colour-blindness and grey print."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase
    from matplotlib.lines import Line2D

WIDTHS = {"page": 6.8, "column": 3.3}  # inches
BLACK, GREY = "#222222", "#7d7d7d"
BAND = 0.16  # opacity
SMALL = 6.0  # points: notes, ticks
RC: dict[str, Any] = {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],  # the first comes with matplotlib
    "font.size": 7.0,
    "axes.titlesize": 7.0,
    "axes.labelsize": 7.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.2,
    "pdf.fonttype": 42,  # TrueType: text stays text, and publishers accept it
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "clbench",
    "text.parse_math": False,
    "axes.unicode_minus": True,
}
# Okabe and Ito's colours, without the yellow that white paper swallows, so ordered that neighbours differ in lightness.
COLORS = ("#0072B2", "#E69F00", "#000000", "#D55E00", "#56B4E9", "#009E73", "#CC79A7", "#8a8a8a")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


class Look(NamedTuple):
    """Of one group of runs."""

    color: str
    dashes: Any
    marker: str


def look(i: int) -> Look:
    """Of the i-th group: colour, dashes and marker each tell it from its neighbours; all three repeat after 32."""
    row = i // len(COLORS)
    return Look(COLORS[i % len(COLORS)], DASHES[(i + row) % len(DASHES)], MARKERS[(i + 3 * row) % len(MARKERS)])


def task_colors(tasks: int) -> list[Any]:
    """Dark to light in task order: the lightness alone tells them apart (viridis without its palest end)."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.92 * task / max(1, tasks - 1)) for task in range(tasks)]


def short_labels(labels: Sequence[str], longest: int) -> list[str]:
    """One line each, cut to `longest` characters; numbered where that makes some of them equal."""
    plain = [" ".join("".join(c if c.isprintable() else " " for c in label).split()) for label in labels]
    cut = [label if len(label) <= longest else label[: longest - 1] + "…" for label in plain]
    if len(set(cut)) == len(cut):
        return cut
    return [f"{i}: {label}" for i, label in enumerate(cut, 1)]


def stacked(figure: FigureBase, heights: Sequence[float]) -> list[FigureBase]:
    """Parts of a figure under each other."""
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
    return list(parts[:, 0])


def group_legend(figure: FigureBase, labels: Sequence[str], width: float, drawn: Sequence[int] | None = None) -> None:
    """Above the axes, in as many columns as fit. drawn: the groups that are there; None: all."""
    from matplotlib.lines import Line2D

    drawn = range(len(labels)) if drawn is None else drawn
    lines = [
        Line2D([], [], color=style.color, linestyle=style.dashes, marker=style.marker) for style in map(look, drawn)
    ]
    legend_above(figure, lines, [labels[i] for i in drawn], width)


def legend_above(figure: FigureBase, lines: Sequence[Line2D], labels: Sequence[str], width: float) -> None:
    """A legend in one block above the axes; labels may begin with an underscore."""
    longest = max(len(label) for label in labels)
    fitting = max(1, min(len(labels), int(width / (0.45 + 0.058 * longest))))
    columns = -(-len(labels) // -(-len(labels) // fitting))  # rows of equal length
    legend = figure.legend(
        lines,
        [str(i) for i in range(len(labels))],
        loc="outside upper left",
        ncols=columns,
        handlelength=2.8,
        columnspacing=1.2,
        borderaxespad=0.2,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)


def note(figure: FigureBase, text: str, width: float) -> None:
    """What the lines and bands are, below the axes."""
    lines = textwrap.wrap(text, int(width * 21.5))
    figure.supxlabel("\n".join(lines), x=0.005, ha="left", fontsize=SMALL, color="#555555")


def task_ends(axes: Axes, ends: Sequence[float]) -> None:
    """Dotted lines where tasks end, where they are few enough to be told apart."""
    if len(ends) <= 25:
        for end in ends:
            axes.axvline(end, color=GREY, linewidth=0.5, linestyle=(0, (1, 1.6)), zorder=0)


def hide(panels: Sequence[Axes]) -> None:
    """Take unused panels of a grid away."""
    for axes in panels:
        axes.set_axis_off()


def runs_text(counts: Sequence[int]) -> str:
    """`3 runs`, or `2 to 5 runs`."""
    low, high = min(counts), max(counts)
    if low != high:
        return f"{low} to {high} runs"
    return "one run" if high == 1 else f"{high} runs"
