"""The stability gap: how deep old tasks fall after each switch, and how the fall and the recovery go.

Medians and quartiles over runs: with three to five seeds no 95 % interval of a median exists (of five values, even
from the smallest to the largest holds it in 94 % of cases), and depths are skewed, so that a mean would mislead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clbench.figures.material import Material
from clbench.figures.style import BAND, GREY, group_legend, hide, look, note, runs_text, stacked
from clbench.leaderboard import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

DEPTH, PANEL = 1.9, 1.35  # inches high
MOST_PANELS = 6
MOST_BARS = 20  # switches: more get a line and a band

Depths = dict[int, list[float]]


def depths(row: Row, held_out: bool = False) -> Depths:
    """Switch -> depth of the gap after it in each run, averaged over the old tasks' sets (or the held-out sets).

    The depths are those of the records; sets without one (diverged, not scored) are left out.
    """
    found: Depths = {}
    for _, record in row.runs:
        by_switch: dict[int, list[float]] = {}
        for gap in record["metrics"].get("gap") or ():
            if gap["held_out"] == held_out and gap["depth"] is not None:
                by_switch.setdefault(gap["switch"], []).append(gap["depth"])
        for switch, values in by_switch.items():
            found.setdefault(switch, []).append(sum(values) / len(values))
    return dict(sorted(found.items()))


def median_quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile (linear interpolation)."""
    import numpy as np

    low, middle, high = np.quantile(list(values), (0.25, 0.5, 0.75)).tolist()
    return middle, low, high


def drawable(material: Material) -> bool:
    """Whether any run was scored inside tasks after a switch."""
    return any(depths(row) or depths(row, held_out=True) for row in material.comparison.groups)


def height(material: Material) -> float:
    """Inches."""
    shown = shown_switches(material)
    rows = -(-len(shown) // _columns(material, len(shown))) if shown else 0
    legend = 0.16 * -(-len(material.labels) // max(1, int(material.inches // 1.5)))
    return DEPTH * len(_kinds(material)) + legend + rows * PANEL + 0.5


def draw(figure: FigureBase, material: Material) -> None:
    """Onto an empty figure or part of one."""
    kinds, shown = _kinds(material), shown_switches(material)
    heights = [DEPTH * len(kinds)]
    if shown:
        heights.append(-(-len(shown) // _columns(material, len(shown))) * PANEL + 0.5)
    parts = stacked(figure, heights)
    panels = parts[0].subplots(len(kinds), 1, squeeze=False)[:, 0]
    for axes, held_out in zip(panels, kinds, strict=True):
        _draw_depths(axes, material, held_out)
    group_legend(parts[0], material.labels, material.inches)
    if shown:
        _draw_courses(parts[1], material, shown)
    all_switches = sorted({switch for group in material.curves for switch in group.changes})
    some = f" Below: {len(shown)} of {len(all_switches)} switches." if len(shown) < len(all_switches) else ""
    runs = max(material.counts)
    what = "One run each" if runs == 1 else f"Lines: median of {runs_text(material.counts)}; bars and bands: quartiles"
    note(parts[-1], f"{what}. Depth: largest fall of old tasks below their score at the switch.{some}", material.inches)


def shown_switches(material: Material) -> list[int]:
    """The switches whose course is drawn: all, or six evenly spread ones with the first and the last."""
    switches = sorted({switch for group in material.curves for switch in group.changes})
    if len(switches) <= MOST_PANELS:
        return switches
    last = len(switches) - 1
    return [switches[round(i * last / (MOST_PANELS - 1))] for i in range(MOST_PANELS)]


def _kinds(material: Material) -> list[bool]:
    """Old tasks' sets (False), held-out sets (True): those with a depth."""
    kinds = [kind for kind in (False, True) if any(depths(row, kind) for row in material.comparison.groups)]
    return kinds or [False]


def _columns(material: Material, panels: int) -> int:
    return material.columns(4 if panels == 4 else min(panels, 3))


def _draw_depths(axes: Axes, material: Material, held_out: bool) -> None:
    found = [depths(row, held_out) for row in material.comparison.groups]
    switches = sorted({switch for of_group in found for switch in of_group})
    bars = len(switches) <= MOST_BARS
    for i, of_group in enumerate(found):
        if not of_group:
            continue
        style = look(i)
        shift = (i - (len(found) - 1) / 2) * 0.6 / len(found) if bars else 0.0
        where = [switch + shift for switch in of_group]
        middle, low, high = zip(*(median_quartiles(values) for values in of_group.values()), strict=True)
        several = max(map(len, of_group.values())) > 1
        marker = style.marker if bars else None
        axes.plot(where, middle, color=style.color, linestyle=style.dashes, linewidth=0.8, marker=marker, zorder=3)
        if several and bars:
            axes.vlines(where, low, high, color=style.color, linewidth=1.0, zorder=2)
        elif several:
            axes.fill_between(where, low, high, color=style.color, alpha=BAND, linewidth=0, zorder=2)
    axes.axhline(0, color=GREY, linewidth=0.5, zorder=0)
    axes.set_xlim(min(switches, default=0) - 0.6, max(switches, default=1) + 0.6)
    ticks = switches[:: max(1, -(-len(switches) // (12 if material.width == "page" else 8)))]
    axes.set_xticks(ticks, [str(switch) for switch in ticks])
    axes.set_xlabel("task that is begun (first: 0)")
    axes.set_ylabel("depth, held-out sets" if held_out else "depth of the gap")


def _draw_courses(figure: FigureBase, material: Material, shown: Sequence[int]) -> None:
    columns = _columns(material, len(shown))
    rows = -(-len(shown) // columns)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    panels = list(grid.flatten())
    for axes, switch in zip(panels, shown, strict=False):
        axes.axhline(0, color=GREY, linewidth=0.5, zorder=0)
        for i, group in enumerate(material.curves):
            if switch in group.changes:
                _draw_course(axes, group.changes[switch], i)
        axes.set_title(f"after the switch to task {switch}", loc="left")
        last = max(g.changes[switch].steps[-1] for g in material.curves if switch in g.changes)
        _logarithmic(axes, last, material.inches / columns)
    for i, axes in enumerate(panels[: len(shown)]):
        axes.tick_params(labelleft=i % columns == 0)
        if i % columns == 0:
            axes.set_ylabel("change of old tasks\n(down: worse)")
        if i + columns >= len(shown):
            axes.set_xlabel("steps since the switch")
    hide(panels[len(shown) :])


def _draw_course(axes: Axes, curve: Any, i: int) -> None:
    style = look(i)
    axes.plot(
        curve.steps,
        curve.median,
        color=style.color,
        linestyle=style.dashes,
        marker=style.marker,
        markersize=2.2,
        linewidth=0.9,
        zorder=3,
    )
    if len(curve.values) > 1:
        axes.fill_between(curve.steps, *curve.quartiles, color=style.color, alpha=BAND, linewidth=0, zorder=2)


def _logarithmic(axes: Axes, longest: int, inches: float) -> None:
    """Time in logarithmic steps from the first one on: the trough is there."""
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    powers = len(str(longest))
    leads = (1, 2, 5) if powers <= 2 and inches > 1.8 else (1, 3) if powers <= 2 else (1,)
    ticks = [0, *(t for power in range(powers) for lead in leads if (t := lead * 10**power) <= longest)]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(-0.08, longest * 1.1)
