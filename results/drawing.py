"""What the figures of published suites share: labels beside points, legends, and writing them.

A script has `FIGURES`, a `Drawing` by name, and ends in `command`. Runs are named in the suite's claims.yaml.
"""

from __future__ import annotations

import argparse
import io
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import evidence
from inequalities import mean_sd
from run_quantities import NoValue, Run

from clbench.errors import UserError
from clbench.figures.style import GREY, RC, SMALL, WIDTHS, legend_above, note
from clbench.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
DPI = 160  # 1,088 pixels for a page's width
Runs = dict[int, Run]
Group = Mapping[str, Runs]


class Drawing(NamedTuple):
    """height: inches. needs: the runs without which there is no such figure."""

    draw: Callable[[Figure, Group], None]
    height: float
    needs: tuple[str, ...]


def place_labels(
    figure: Figure, axes: Axes, labels: Sequence[tuple[float, float, str]], drawn: Sequence[tuple[float, float]]
) -> None:
    """Texts beside points: each where it covers least of the points, of what is `drawn`, and of earlier texts."""
    figure.draw_without_rendering()  # the layout must be known
    points = [tuple(axes.transData.transform((x, y))) for x, y, _ in labels]
    scale = figure.dpi / 72  # pixels a point
    around = [*points, *(tuple(axes.transData.transform(spot)) for spot in drawn)]
    taken: list[tuple[float, float, float, float]] = [(x - 4, y - 4, x + 4, y + 4) for x, y in around]
    for (x, y), (data_x, data_y, text) in zip(points, labels, strict=True):
        if not text:
            continue
        width, height = 0.62 * SMALL * len(text) * scale, 1.2 * SMALL * scale
        spots = [(dx, dy) for reach in (5, 9, 14) for dx, dy in _around(reach * scale, width, height)]
        boxes = [(x + dx, y + dy, x + dx + width, y + dy + height) for dx, dy in spots]
        best = min(range(len(spots)), key=lambda i: (sum(_overlap(boxes[i], other) for other in taken), i))
        taken.append(boxes[best])
        offset = (spots[best][0] / scale, spots[best][1] / scale)
        axes.annotate(text, (data_x, data_y), xytext=offset, textcoords="offset points", fontsize=SMALL)


def along(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points on the lines from each to the next."""
    return [
        (x0 + (x1 - x0) * i / 24, y0 + (y1 - y0) * i / 24)
        for (x0, y0), (x1, y1) in itertools.pairwise(points)
        for i in range(25)
    ]


def _around(reach: float, width: float, height: float) -> list[tuple[float, float]]:
    """Lower left corners of a text around a point, the upper right one first."""
    right, left, up, down = reach, -reach - width, reach, -reach - height
    middle_x, middle_y = -width / 2, -height / 2
    corners = [(right, up / 2), (right, down / 2), (left, up / 2), (left, down / 2)]
    return [*corners, (middle_x, up), (middle_x, down), (right, middle_y), (left, middle_y)]


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """The area that two boxes (left, bottom, right, top) share."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


def centred(values: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Values [group][seed] with each seed's mean over the groups moved to that of all: means stay, and deviations are
    of differences between groups (Cousineau 2005, for designs with repeated measures)."""
    by_seed = [mean_sd(column)[0] for column in zip(*values.values(), strict=True)]
    whole = mean_sd(by_seed)[0]
    return {name: [v - own + whole for v, own in zip(row, by_seed, strict=True)] for name, row in values.items()}


def spots(
    groups: Group, across: Callable[[Run], float], up: Callable[[Run], float]
) -> dict[str, tuple[float, float | None, float, float | None]]:
    """Of each group two quantities, both with their deviation over the seeds that all groups have, once `centred`."""
    seeds = sorted(set.intersection(*(set(members) for members in groups.values())))
    xs, ys = (
        centred({name: [of(members[seed]) for seed in seeds] for name, members in groups.items()})
        for of in (across, up)
    )
    return {name: (*mean_sd(xs[name]), *mean_sd(ys[name])) for name in groups}


def legend(figure: Figure, entries: Sequence[tuple[str, Any, str | None, str]]) -> None:
    """One block above the axes. entries: colour, line, marker, text."""
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=color, linestyle=line, marker=marker, markerfacecolor="white" if color == GREY else color)
        for color, line, marker, _ in entries
    ]
    legend_above(figure, lines, [text for *_, text in entries], WIDTHS["page"])


def remark(figure: Figure, text: str) -> None:
    """What lines and bars are, below the axes."""
    note(figure, text, WIDTHS["page"])


def render(drawing: Drawing, runs: Group) -> bytes:
    """A figure as PNG; the same bytes for the same records."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)  # type: ignore[arg-type]
        figure = Figure(figsize=(WIDTHS["page"], drawing.height), dpi=DPI, layout="constrained")
        drawing.draw(figure, runs)
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    return content.getvalue()


def command(described: str | None, suite: str, prefix: str, figures: Mapping[str, Drawing]) -> int:
    """The script: write all figures that can be drawn as PREFIX-NAME.png; its exit code."""
    parser = argparse.ArgumentParser(description=(described or "").split("\n")[0])
    parser.add_argument("suite", nargs="?", default=suite, help="a published suite: a folder beside this file")
    parser.add_argument("--records", type=Path, help="a folder with other runs of the suite")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures", help="where the pictures go")
    arguments = parser.parse_args()
    folder = ROOT / "results" / arguments.suite
    try:
        found = evidence.gather(evidence.read(folder / "claims.yaml")[0], arguments.records or folder)
        arguments.out.mkdir(parents=True, exist_ok=True)
        for name, drawing in figures.items():
            missing = [run for run in drawing.needs if not found.runs.get(run)]
            if missing:
                sys.stderr.write(f"no figure {name}: no run {', '.join(missing)}\n")
                continue
            write_atomically(arguments.out / f"{prefix}-{name}.png", render(drawing, found.runs))
    except (UserError, NoValue) as error:
        sys.stderr.write(f"figures: {error}\n")
        return 2
    return 0
