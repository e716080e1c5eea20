"""The figures of docs/cpt.md, drawn from the records of a suite and the runs that its claims.yaml names.

python results/cpt_figures.py [SUITE] [--records FOLDER] [--out FOLDER]

Writes losses.png, tradeoff.png, evaluation.png and schedules.png, each as cpt-NAME, into docs/figures. A figure of
which a run is missing is left out with a line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cpt_rates import Rates, rates_of
from drawing import Drawing, Group, Runs, along, command, legend, place_labels, remark, spots
from inequalities import mean_sd
from run_quantities import adaptation, forgetting, seen_depth

from clbench.curves import FEWEST, Curve, over_runs
from clbench.engine.grid import standard_grid
from clbench.figures.style import BAND, COLORS, GREY, MARKERS, runs_text
from clbench.traces import read_trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OLD, WEAK, STRONG, THIRD = "english_novels", "law_scotus", "python_code", "chinese_poetry"
NAMES = {OLD: "English novels", WEAK: "court arguments", STRONG: "Python code", THIRD: "Chinese poetry"}
LOOKS: dict[str, tuple[str, Any]] = {
    OLD: (COLORS[0], "-"),
    WEAK: (COLORS[3], (0, (4, 1.5))),
    STRONG: (COLORS[5], (0, (5, 1.5, 1, 1.5))),
    THIRD: (COLORS[1], (0, (1, 1))),
}


def losses(figure: Figure, runs: Group) -> None:
    """The loss of every domain over tokens; a row for each shift."""
    rows: list[list[tuple[str, str]]] = [
        [("weak", "re-warmed"), ("weak_constant", "constant low rate"), ("weak_same", "control: no shift, re-warmed")],
        [("strong", "re-warmed"), ("replay5", "re-warmed, 5 % replay"), ("replay25", "re-warmed, 25 % replay")],
    ]
    grid = figure.subplots(2, 3, sharex=True, sharey="row")
    domains = (OLD, WEAK, STRONG)
    for row, panels in zip(rows, grid, strict=True):
        highest = 0.0
        for (name, title), axes in zip(row, panels, strict=True):
            switch = _switches(runs[name])[0]
            curves = {d: curve for d, curve in curves_of(runs[name]).items() if d in domains}
            highest = max(highest, *(_top(c, (0.9 if d == OLD else 1.005) * switch) for d, c in curves.items()))
            for domain, curve in curves.items():
                draw_curve(axes, curve, domain)
            _mark(axes, [switch])
            axes.set_xlim(0.8 * switch, max(curve.steps[-1] for curve in curves.values()))
            axes.set_title(title, loc="left")
        panels[0].set_ylim(top=highest * 1.03)
    for axes, text in zip(grid[:, 0], ("weak shift", "strong shift"), strict=True):
        axes.set_ylabel(f"{text}\nloss, nats a token")
    for axes in grid[1]:
        axes.set_xlabel("million tokens")
    _millions(grid.flatten())
    legend(figure, [(*LOOKS[d], None, NAMES[d]) for d in domains])
    remark(
        figure,
        f"{_seeds(runs['weak'])} Dotted: the switch; before it, the end of the upstream. "
        "Losses on a new domain may begin above the frame.",
    )


def tradeoff(figure: Figure, runs: Group) -> None:
    """Adaptation to the new domain against forgetting of the old one, all runs of the strong shift."""
    axes = figure.subplots()
    families: list[tuple[str, int, Any, list[tuple[str, str]]]] = [
        ("re-warmed, with replay", 0, "-", [("strong", ""), *((f"replay{x}", f"{x} %") for x in (1, 5, 25, 50))]),
        (
            "re-warmed to another peak",
            3,
            "-",
            [("strong_lr01", "x 0.1"), ("strong_lr05", "x 0.5"), ("strong", "x 1, 0 %"), ("strong_lr2", "x 2")],
        ),
        ("warm-up of 0, 0.5, 2 %", 6, "none", [("warmup0", ""), ("warmup05", ""), ("warmup2", "")]),
        ("constant low rate", 2, "none", [("strong_constant", "")]),
    ]
    labels: list[tuple[float, float, str]] = []
    drawn: list[tuple[float, float]] = []
    there = {name: runs[name] for *_, members in families for name, _ in members if runs.get(name)}
    places = spots(there, lambda run: adaptation(run, STRONG), lambda run: forgetting(run, OLD))
    for i, (_, color, line, members) in enumerate(families):
        points = [(text, places[name]) for name, text in members if name in places]
        for text, (x, dx, y, dy) in points:
            axes.errorbar(x, y, xerr=dx, yerr=dy, color=COLORS[color], marker=MARKERS[i], markersize=3.6, linewidth=0.8)
            labels.append((x, y, text))
            drawn += [(x - (dx or 0), y), (x + (dx or 0), y), (x, y - (dy or 0)), (x, y + (dy or 0))]
        xs, ys = [spot[0] for _, spot in points], [spot[2] for _, spot in points]
        axes.plot(xs, ys, color=COLORS[color], linestyle=line, linewidth=0.8)
        if line != "none":
            drawn += along(list(zip(xs, ys, strict=True)))
    axes.axhline(0, color=GREY, linewidth=0.5, zorder=0)
    axes.margins(0.09)
    axes.set_xlabel("adaptation: loss won on Python code by its own phase, nats")
    axes.set_ylabel("forgetting: loss gained on English novels, nats")
    legend(figure, [(COLORS[c], line, MARKERS[i], label) for i, (label, c, line, _) in enumerate(families)])
    shared = "once what all runs of a seed have in common, its upstream, is taken away"
    remark(figure, f"Bars: standard deviation over seeds, {shared}. Better is to the right and below.")
    place_labels(figure, axes, labels, drawn)


def evaluation(figure: Figure, runs: Group) -> None:
    """The gap after the switch as denser and sparser evaluations see it."""
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    members, domain = runs["dense"], OLD
    length = min(run.length(1) for run in members.values())
    courses = [dict(run.inside(1, domain)) for run in members.values()]
    starts = [run.loss(0, domain) for run in members.values()]
    steps = sorted(set.intersection(*(set(course) for course in courses)))
    rise = {s: mean_sd([c[s] - m for c, m in zip(courses, starts, strict=True)])[0] for s in steps}
    geometric = [step for step in standard_grid(length) if step in rise]
    left.plot(steps, list(rise.values()), color=GREY, linewidth=1.0, label="every step")
    kinds: list[tuple[str, Sequence[int], str, str]] = [
        ("geometric grid", geometric, COLORS[0], "o"),
        *(
            (f"every {k} steps", [*range(k, length, k), length], color, marker)
            for k, color, marker in ((5, COLORS[5], "^"), (10, COLORS[1], "s"), (50, COLORS[3], "D"))
        ),
    ]
    for _, chosen, color, marker in kinds:
        seen = [step for step in chosen if step in rise]
        left.plot(seen, [rise[s] for s in seen], color=color, linestyle="none", marker=marker, markersize=3)
    left.set_xscale("log")
    ticks = [step for step in (1, 3, 10, 30, 100, 300, 1000, 3000) if step <= length]
    left.set_xticks(ticks, [str(step) for step in ticks])
    left.minorticks_off()
    left.set_xlabel("steps after the switch")
    left.set_ylabel("loss on English novels above\nthat at the switch, nats")
    left.axhline(0, color=GREY, linewidth=0.5, zorder=0)
    intervals = [1, 2, 5, 10, 20, 50, 100, 200]
    for i, run in enumerate(members.values()):
        depths = [seen_depth(run, domain, [*range(k, length, k), length]) for k in intervals]
        right.plot(intervals, depths, color=COLORS[2], linewidth=0.8, marker=MARKERS[i % 4], markersize=2.8)
        right.axhline(seen_depth(run, domain, geometric), color=COLORS[0], linewidth=0.8, linestyle=(0, (4, 1.5)))
    right.set_xscale("log")
    right.set_xticks(intervals, [str(k) for k in intervals])
    right.minorticks_off()
    right.set_ylim(bottom=0)
    right.set_xlabel("evaluated every ... steps")
    right.set_ylabel("depth of the gap, nats")
    legend(
        figure, [(GREY, "-", None, "every step"), *((color, "none", marker, text) for text, _, color, marker in kinds)]
    )
    count = f"{len(geometric)} evaluations"
    remark(
        figure, f"Left: mean of {runs_text([len(members)])}. Right: a line each; dashed: the geometric grid, {count}."
    )


def schedules(figure: Figure, runs: Group) -> None:
    """Infinite against repeated cosines: losses, and rates beneath."""
    grid = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=[3, 1.3])
    columns = (("cosine", "repeated cosines"), ("infinite", "infinite, annealed on branches"))
    domains = (OLD, STRONG, THIRD)
    highest, last = 0.0, 0.0
    for (name, title), (above, below) in zip(columns, grid.T, strict=True):
        switches, curves = _switches(runs[name]), curves_of(runs[name])
        for domain in domains:
            draw_curve(above, curves[domain], domain)
            highest = max(highest, _top(curves[domain], 0.9 * switches[0]))
        rates = rates_of(next(iter(runs[name].values())).record)
        _draw_rates(below, rates)
        _draw_branches(above, rates, runs[name])
        for axes in (above, below):
            _mark(axes, switches)
        above.set_title(title, loc="left")
        last = max(last, rates.last)
        below.set_xlabel("million tokens")
    grid[0][0].set_xlim(0.6 * _switches(runs["cosine"])[0], last)
    grid[0][0].set_ylim(top=highest * 1.03)
    grid[0][0].set_ylabel("loss, nats a token")
    grid[1][0].set_ylabel("learning rate,\nshare of the peak")
    grid[1][0].set_ylim(0, 1.08)
    _millions(grid.flatten())
    entries = [(*LOOKS[d], None, NAMES[d]) for d in domains]
    legend(figure, [*entries, (GREY, "none", "o", "after the anneal")])
    remark(
        figure, f"{_seeds(runs['cosine'])} Dotted: switches. A branch is drawn over the tokens that it reads itself."
    )


FIGURES = {
    "losses": Drawing(losses, 4.0, ("weak", "weak_constant", "weak_same", "strong", "replay5", "replay25")),
    "tradeoff": Drawing(tradeoff, 3.6, ("strong",)),
    "evaluation": Drawing(evaluation, 2.7, ("dense",)),
    "schedules": Drawing(schedules, 3.6, ("cosine", "infinite")),
}


def curves_of(members: Runs) -> dict[str, Curve]:
    """Set -> its loss over tokens. Sets of later tasks begin with their score at the switch into their task, those that
    are never learned with that at the first switch: an upstream does not trace them."""
    import numpy as np

    found = {}
    grouped = over_runs([read_trace(run.folder, "lower") for run in members.values()])
    for name, curve in grouped.scores.items():
        owner = grouped.owners[name]
        steps, values = np.asarray(curve.steps), curve.values
        if owner != 0:
            task = owner or 1
            start = grouped.ends[task - 1]
            before = np.array([[run.loss(task - 1, name)] for run in members.values()])
            steps, values = np.append(start, steps[steps > start]), np.hstack([before, values[:, steps > start]])
        found[name] = Curve((steps * _per_step(members)).tolist(), values)
    return found


def draw_curve(axes: Axes, curve: Curve, domain: str) -> None:
    """The mean, and its band."""
    color, dashes = LOOKS[domain]
    axes.plot(curve.steps, curve.mean, color=color, linestyle=dashes, linewidth=1.1, zorder=3)
    if len(curve.values) > 1:
        axes.fill_between(curve.steps, curve.low, curve.high, color=color, alpha=BAND, linewidth=0, zorder=2)


def _draw_rates(axes: Axes, rates: Rates) -> None:
    axes.plot(*zip(*rates.trunk, strict=True), color=COLORS[2], linewidth=0.9)
    for branch in rates.branches:
        axes.plot(*zip(*branch, strict=True), color=COLORS[2], linewidth=0.9, linestyle=(0, (2, 1)))


def _draw_branches(axes: Axes, rates: Rates, members: Runs) -> None:
    """What the sets learned so far score at the end of each branch."""
    first = rates.tasks - len(rates.branches)
    for task, branch in enumerate(rates.branches, first):
        for name, (color, _) in LOOKS.items():
            if all(name in run.sets(0, task + 1) for run in members.values()):
                value = mean_sd([run.loss(task, name) for run in members.values()])[0]
                axes.plot(branch[-1][0], value, "o", color=color, markersize=3.4, markerfacecolor="white", zorder=4)


def _per_step(members: Runs) -> int:
    record = next(iter(members.values())).record
    return int(record["spec"]["strategy_settings"]["batch_size"] * record["clock"]["per_sample"])


def _switches(members: Runs) -> list[int]:
    """Tokens at which tasks but the last end."""
    ends = next(iter(members.values())).view.structure.ends
    return [end * _per_step(members) for end in ends[:-1]]


def _top(curve: Curve, since: float) -> float:
    """The highest mean from some tokens on."""
    return max((value for step, value in zip(curve.steps, curve.mean, strict=True) if step >= since), default=0.0)


def _mark(axes: Axes, switches: Sequence[float]) -> None:
    for switch in switches:
        axes.axvline(switch, color=GREY, linewidth=0.6, linestyle=(0, (1, 1.6)), zorder=0)


def _millions(panels: Sequence[Axes]) -> None:
    for axes in panels:
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g}")


def _seeds(members: Runs) -> str:
    band = "its 95 % interval" if len(members) >= FEWEST else "range"
    return f"Lines: mean of {runs_text([len(members)])}; bands: {band}."


if __name__ == "__main__":
    sys.exit(command(__doc__, "cpt-cpu", "cpt", FIGURES))
