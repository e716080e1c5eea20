"""The rank of each task's update: above, the mean over a model's modules; below, every module of each group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clbench.figures.material import Material
from clbench.figures.style import group_legend, hide, look, note, runs_text, short_labels, stacked
from clbench.leaderboard import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

MEANS = 1.7  # inches high
LINE = 0.105  # inches that a module's name needs
MOST_NAMED = 90  # modules: of more, some have no name
NUMBERED = 12  # tasks: above that, cells have no room for a number


@dataclass
class Ranks:
    """values[module][task]: effective rank, mean over runs. tasks: their indices."""

    modules: list[str]
    tasks: list[int]
    values: list[list[float]]
    runs: int

    def means(self) -> list[float]:
        """Over the modules, for each task."""
        return [sum(line[t] for line in self.values) / len(self.values) for t in range(len(self.tasks))]


def mean_ranks(row: Row) -> Ranks | None:
    """Mean over a row's runs of `diagnostics[...].values.effective_rank` of their records; None where there is none.

    Runs of other modules or tasks than the first, or with a rank missing, are left out.
    """
    tables = [table for _, record in row.runs if (table := _table(record))]
    if not tables:
        return None
    modules, tasks = list(next(iter(tables[0].values()))), list(tables[0])
    same = [t for t in tables if list(t) == tasks and all(list(ranks) == modules for ranks in t.values())]
    values = [[sum(t[task][module] for t in same) / len(same) for task in tasks] for module in modules]
    return Ranks(modules, tasks, values, len(same))


def _table(record: dict[str, Any]) -> dict[int, dict[str, float]]:
    """Task -> module -> rank; empty where a task or a module has none."""
    told = {entry["task"]: entry["values"].get("effective_rank") for entry in record.get("diagnostics") or ()}
    return told if all(_is_table(ranks) for ranks in told.values()) else {}


def _is_table(ranks: Any) -> bool:
    """Whether these are the ranks of modules: numbers by name, one at least."""
    return isinstance(ranks, dict) and bool(ranks) and all(isinstance(r, (int, float)) for r in ranks.values())


def drawable(material: Material) -> bool:
    """Whether any run tells the ranks of its updates."""
    return any(mean_ranks(row) for row in material.comparison.groups)


def height(material: Material) -> float:
    """Inches."""
    found = _found(material)
    columns = _columns(material, len(found))
    legend = 0.16 * -(-len(found) // max(1, int(material.inches // 1.5)))
    return MEANS + legend + -(-len(found) // columns) * _panel(found) + 0.45


def draw(figure: FigureBase, material: Material) -> None:
    """Onto an empty figure or part of one."""
    found = _found(material)
    columns = _columns(material, len(found))
    above, below = stacked(figure, [MEANS, -(-len(found) // columns) * _panel(found) + 0.45])
    _draw_means(above.subplots(), found)
    group_legend(above, material.labels, material.inches, list(found))
    panels = list(below.subplots(-(-len(found) // columns), columns, squeeze=False).flatten())
    top = max(value for ranks in found.values() for line in ranks.values for value in line)
    titles = short_labels([material.comparison.labels[i] for i in found], int(material.inches / columns * 13))
    image = None
    for axes, ranks, title in zip(panels, found.values(), titles, strict=False):
        image = _draw_modules(axes, ranks, top or 1.0)
        axes.set_title(title, loc="left")
        axes.set_xlabel("task")
    hide(panels[len(found) :])
    bar = below.colorbar(image, ax=panels, label="effective rank", aspect=30, pad=0.02, fraction=0.035)  # type: ignore
    bar.outline.set_visible(False)
    counts = [ranks.runs for ranks in found.values()]
    note(below, f"Mean of {runs_text(counts)}. Effective rank: components left of each task's update.", material.inches)


def _found(material: Material) -> dict[int, Ranks]:
    """By the number of the group; those without ranks are left out."""
    pairs = ((i, mean_ranks(row)) for i, row in enumerate(material.comparison.groups))
    return {i: ranks for i, ranks in pairs if ranks is not None}


def _draw_means(axes: Axes, found: dict[int, Ranks]) -> None:
    for i, ranks in found.items():
        style = look(i)
        axes.plot(ranks.tasks, ranks.means(), color=style.color, linestyle=style.dashes, marker=style.marker)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("mean over modules")
    axes.set_xlabel("task")
    axes.locator_params(axis="x", integer=True)


def _draw_modules(axes: Axes, ranks: Ranks, top: float) -> Any:
    import numpy as np

    values = np.array(ranks.values, dtype=float)
    image = axes.pcolormesh(values, cmap="viridis", vmin=0.0, vmax=top, rasterized=values.size > 900)
    axes.set_ylim(len(ranks.modules), 0)
    every = -(-len(ranks.modules) // MOST_NAMED)
    shown = range(0, len(ranks.modules), every)
    names = short_names(ranks.modules)
    axes.set_yticks([m + 0.5 for m in shown], [names[m] for m in shown], fontsize=5.0)
    every = max(1, -(-len(ranks.tasks) // NUMBERED))
    places = range(0, len(ranks.tasks), every)
    axes.set_xticks([t + 0.5 for t in places], [str(ranks.tasks[t]) for t in places])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0, pad=1.5)
    if len(ranks.tasks) <= NUMBERED and len(ranks.modules) <= MOST_NAMED:
        for m, line in enumerate(ranks.values):
            for t, value in enumerate(line):
                color = "white" if value < 0.6 * top else "black"
                axes.text(t + 0.5, m + 0.5, cell(value), ha="center", va="center_baseline", fontsize=4.6, color=color)
    return image


def cell(value: float) -> str:
    """A rank in three characters: one decimal below 10, where it has one."""
    return f"{value:.1f}".removesuffix(".0") if value < 9.95 else f"{value:.0f}"


def short_names(modules: list[str]) -> list[str]:
    """Without the leading parts of the path that all have in common."""
    split = [name.split(".") for name in modules]
    common = 0
    while all(len(parts) > common + 1 and parts[common] == split[0][common] for parts in split):
        common += 1
    return [".".join(parts[common:]) for parts in split]


def _panel(found: dict[int, Ranks]) -> float:
    """Height of a group's panel in inches."""
    most = max((len(ranks.modules) for ranks in found.values()), default=1)
    return max(1.2, LINE * min(most, MOST_NAMED) + 0.5)


def _columns(material: Material, panels: int) -> int:
    return material.columns(min(3, max(1, panels)), least=2.0)
