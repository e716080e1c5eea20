"""The figures of docs/fomo.md, drawn from the records of a suite and the runs that its claims.yaml names.

python results/fomo_figures.py [SUITE] [--records FOLDER] [--out FOLDER]

Writes methods.png, choices.png and ranks.png, each as fomo-NAME, into docs/figures. A figure of which a run is missing
is left out with a line.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from drawing import Drawing, Group, Runs, along, command, legend, place_labels, remark, spots
from inequalities import mean_sd
from retention_quantities import accumulation, retention
from run_quantities import Run

from clbench.figures.style import COLORS, GREY, MARKERS, SMALL, runs_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAMILIES: list[tuple[str, int, list[tuple[str, str]]]] = [
    ("all weights", 0, [("finetune", "finetune")]),
    (
        "some weights",
        1,
        [
            ("locked_image", "image tower locked"),
            ("locked_text", "text tower locked"),
            ("norm", "norms"),
            ("bias", "biases"),
            ("lora", "LoRA"),
            ("lora_fast", "LoRA, rate x 10"),
            ("codyra", "CoDyRA"),
            ("codyra_random", "CoDyRA, random ranks"),
        ],
    ),
    ("held near earlier ones", 2, [("ewc", "EWC"), ("si", "SI"), ("zscl", "ZSCL")]),
    (
        "merged",
        3,
        [
            ("ema50", "EMA .5"),
            ("ema80", "EMA .8"),
            ("ema95", "EMA .95"),
            ("ft_merge", "FT"),
            ("zs_merge", "ZS"),
        ],
    ),
]
MIXTURES = [
    ("finetune", "pool, task\nand earlier"),
    ("no_pool", "task and\nearlier"),
    ("no_buffer", "pool and\ntask"),
    ("update_only", "task\nalone"),
]
SCHEDULES = [("finetune", "cosine"), ("cosine_recovery", "cosine,\nrecovery"), ("rsqrt_recovery", "rsqrt,\nrecovery")]
ORDERS = [
    ("finetune", "random"),
    ("similarity", "similarity"),
    ("dataset", "set by set"),
]
WEIGHTS = [("finetune", 0.0), ("ema50", 0.5), ("ema80", 0.8), ("ema95", 0.95)]
KINDS: tuple[tuple[str, Callable[[Run], float], int], ...] = (("KA", accumulation, 0), ("ZS", retention, 3))


def methods(figure: Figure, runs: Group) -> None:
    """Accumulation against retention, all methods at equal cost."""
    axes = figure.subplots()
    drawn: list[tuple[float, float]] = []
    labels: list[tuple[float, float, str]] = []
    there = {name: runs[name] for *_, members in FAMILIES for name, _ in members if runs.get(name)}
    places = spots(there, accumulation, retention)
    for i, (_, color, members) in enumerate(FAMILIES):
        for name, text in members:
            if name in places:
                x, dx, y, dy = places[name]
                axes.errorbar(
                    x, y, xerr=dx, yerr=dy, color=COLORS[color], marker=MARKERS[i], markersize=4, linewidth=0.8
                )
                labels.append((x, y, text))
                drawn += along([(x - (dx or 0), y), (x + (dx or 0), y)]) + along(
                    [(x, y - (dy or 0)), (x, y + (dy or 0))]
                )
    x, y = (100 * _before(runs["finetune"], name) for name in ("knowledge_accumulation", "zero_shot_retention"))
    axes.plot(x, y, color=COLORS[2], marker="x", markersize=5, linestyle="none")
    labels.append((x, y, "before training"))
    axes.margins(0.13, 0.1)
    axes.autoscale_view()
    _equal_balance(axes)
    axes.set_xlabel("accumulation (KA): accuracy on the sets adapted to, %")
    axes.set_ylabel("retention (ZS): accuracy on held-out sets, %")
    legend(figure, [(COLORS[c], "none", MARKERS[i], text) for i, (text, c, _) in enumerate(FAMILIES)])
    bars = "Bars: standard deviation over orders, once what all methods have in common in an order is taken away."
    remark(figure, f"Mean of {runs_text([len(m) for m in there.values()])}. {bars} Grey: equal geometric means.")
    place_labels(figure, axes, labels, drawn)


def choices(figure: Figure, runs: Group) -> None:
    """What batches are made of, schedules, the weight of the old model in a merge, and orders."""
    (mixtures, schedules), (weights, orders) = figure.subplots(2, 2)
    for axes, members, title in (
        (mixtures, MIXTURES, "what batches are made of"),
        (schedules, SCHEDULES, "schedules"),
    ):
        for text, of, color in KINDS:
            found = [_mean(runs[name], of) for name, _ in members]
            at = [i + (0.08 if text == "ZS" else -0.08) for i in range(len(members))]
            _dots(axes, at, found, color, linestyle="none")
        axes.set_xticks(range(len(members)), [text for _, text in members])
        axes.set_xlim(-0.5, len(members) - 0.5)
        axes.set_title(title, loc="left")
    for _, of, color in KINDS:
        found = [_mean(runs[name], of) for name, _ in WEIGHTS]
        _dots(weights, [weight for _, weight in WEIGHTS], found, color)
    weights.set_title("EMA-merge: weight of the old model", loc="left")
    for i, (name, text) in enumerate(ORDERS):
        ways = [
            [100 * e["knowledge_accumulation"] for e in run.record["metrics"]["over_stream"]] for run in _of(runs[name])
        ]
        means = [math.fsum(column) / len(column) for column in zip(*ways, strict=True)]
        orders.plot(
            range(len(means)), means, color=COLORS[(0, 5, 1, 6)[i]], marker=MARKERS[i], markersize=3, label=text
        )
    orders.set_title("orders of the concepts: KA", loc="left")
    orders.set_xlabel("tasks done")
    orders.legend()
    for axes in (mixtures, weights):
        axes.set_ylabel("accuracy, %")
    legend(figure, [(COLORS[color], "none", MARKERS[color], text) for text, _, color in KINDS])
    remark(figure, f"Mean and standard deviation of {runs_text([len(runs['finetune'])])}. A weight of 0 is finetuning.")


def ranks(figure: Figure, runs: Group) -> None:
    """Effective ranks of CoDyRA and of its control, in each tower."""
    panels = figure.subplots(1, 2, sharey=True)
    towers = (("visual.", "image tower"), ("", "text tower"))
    for axes, (prefix, title) in zip(panels, towers, strict=True):
        for i, (name, text) in enumerate((("codyra", "by weights"), ("codyra_random", "at random"))):
            lines = [_ranks(run, prefix) for run in _of(runs[name])]
            found = [mean_sd(column) for column in zip(*lines, strict=True)]
            axes.errorbar(
                range(1, len(found) + 1),
                [center for center, _ in found],
                yerr=[sd or 0 for _, sd in found],
                color=COLORS[i * 3],
                marker=MARKERS[i],
                markersize=3.4,
                linewidth=0.8,
                label=text,
            )
        axes.set_title(title, loc="left")
        axes.set_xlabel("task")
    panels[0].set_ylabel("components that stay, of 16")
    panels[0].legend()
    remark(figure, f"Mean over layers and {runs_text([len(runs['codyra'])])}; bars: standard deviation over runs.")


FIGURES = {
    "methods": Drawing(methods, 4.4, ("finetune",)),
    "choices": Drawing(choices, 4.6, tuple({name for name, _ in (*MIXTURES, *SCHEDULES, *ORDERS, *WEIGHTS)})),
    "ranks": Drawing(ranks, 2.3, ("codyra", "codyra_random")),
}


def _dots(axes: Axes, at: Sequence[float], found: Sequence[tuple[float, float]], kind: int, **line: Any) -> None:
    """Means with bars. kind: numbers colour and marker."""
    centers, deviations = zip(*found, strict=True)
    look = {"color": COLORS[kind], "marker": MARKERS[kind], "markersize": 3.6, "linewidth": 0.8}
    axes.errorbar(at, centers, yerr=deviations, **look, **line)


def _of(members: Runs) -> list[Run]:
    return [members[seed] for seed in sorted(members)]


def _way(run: Run) -> list[float]:
    """KA before training and after every task, %."""
    return [100 * entry["knowledge_accumulation"] for entry in run.record["metrics"]["over_stream"]]


def _before(members: Runs, metric: str) -> float:
    """A metric before training, the mean over runs."""
    values = [float(run.record["metrics"]["over_stream"][0][metric]) for run in members.values()]
    return math.fsum(values) / len(values)


def _mean(members: Runs, of: Callable[[Run], float]) -> tuple[float, float]:
    center, sd = mean_sd([of(run) for run in _of(members)])
    return center, sd or 0.0


def _ranks(run: Run, prefix: str) -> list[float]:
    """Mean effective rank of a tower's layers after each task; no prefix: of all layers outside the image tower."""
    found = []
    for entry in run.record["diagnostics"]:
        layers: dict[str, Any] = entry["values"]["effective_rank"]
        mine = [rank for name, rank in layers.items() if name.startswith("visual.") == bool(prefix)]
        found.append(math.fsum(mine) / len(mine))
    return found


def _equal_balance(axes: Axes) -> None:
    """Lines of equal geometric mean, each with its value."""
    left, right = axes.get_xlim()
    low, high = axes.get_ylim()
    xs: Sequence[float] = [left + (right - left) * i / 60 for i in range(61)]
    for value in range(5, 100, 2):
        line = [(x, value**2 / x) for x in xs if x > 0 and low <= value**2 / x <= high]
        if len(line) > 1:
            axes.plot(*zip(*line, strict=True), color=GREY, linewidth=0.4, alpha=0.6, zorder=0)
            axes.annotate(str(value), line[-1], fontsize=SMALL - 1, color=GREY, ha="right", va="bottom")
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)


if __name__ == "__main__":
    sys.exit(command(__doc__, "multimodal-cpu", "fomo", FIGURES))
