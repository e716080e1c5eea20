"""When to evaluate inside a task, and on how many samples: decided from the specification alone.

The standard grid is dense after a switch and even later on (metrics: "Default grid inside a task"). The default grid
thins it, and the subset each set is scored on, until the estimated cost of continual evaluation is at most a tenth
of training: a training step costs three forward passes a sample, an evaluation one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clbench.stream import EvalSet

GEOMETRIC = (1, 2, 3, 4, 5, 7, 10)
SUBSETS = (1000, 500, 250, 128, 64)
SMALLEST, PER_CLASS, PART = 300, 2, 10  # of a set of images with captions: see `subset_size`
SHARE = 0.10
TRAINING_COST = 3.0
ENOUGH_POINTS = 16
FEWEST_POINTS = 2


@dataclass(frozen=True)
class Plan:
    """How continual evaluation is done: `points` inside a phase (None: all of the standard grid, 0: none) besides its
    last step, on the first `subset` samples of each set's fixed permutation; or evenly, every `interval` steps."""

    points: int | None
    subset: int
    interval: int | None = None

    def steps(self, length: int) -> frozenset[int]:
        """Steps (1-based: after that many updates of the phase) at which to evaluate; the last always is one."""
        if self.points == 0 or length == 0:
            return frozenset()
        if self.interval is not None:
            return frozenset([*range(self.interval, length + 1, self.interval), length])
        inside = [step for step in standard_grid(length) if step < length]
        if self.points is not None and self.points < len(inside):
            spacing = len(inside) / self.points
            inside = [inside[int((i + 0.5) * spacing)] for i in range(self.points)]
        return frozenset([*inside, length])


def standard_grid(length: int) -> list[int]:
    """1, 2, 3, 4, 5, 7, 10, 14, 20, 28, ... (doubling every second point), then every max(40, length / 20) steps."""
    stride = max(40, math.ceil(length / 20))
    steps = [step for step in GEOMETRIC if step <= length]
    a, b = 7, 10
    while steps and steps[-1] == b and 2 * a - b < stride:
        a, b = b, 2 * a
        if b > length:
            break
        steps.append(b)
    last = steps[-1] if steps else 0
    steps += list(range(last + stride, length + 1, stride))
    if steps and steps[-1] != length:
        steps.append(length)
    return steps


def subset_size(eval_set: EvalSet) -> int:
    """How many samples of a set of images with captions are scored inside a task, where that is not too costly: a
    tenth, but at least two of a class and 300 in all (FoMo-in-Flux, arXiv 2408.14471, its code's configuration)."""
    n = len(eval_set.data)
    return min(n, max(PER_CLASS * len(eval_set.classes), SMALLEST, n // PART))


def plan(
    setting: str,
    task_samples: Sequence[float],
    task_steps: Sequence[float],
    sets_scored: Sequence[int],
    largest_set: int,
    training_cost: float = TRAINING_COST,
    subsets: Sequence[int] = SUBSETS,
) -> Plan:
    """The plan for a run.

    setting: default, full, none, or an interval. task_samples, task_steps: samples and steps trained on per task, as
    estimated; sets_scored: how many sets a continual evaluation scores in each task; largest_set: its size; subsets:
    the sizes that a set's subset may have.
    """
    if setting == "none":
        return Plan(points=0, subset=max(1, min(SUBSETS[0], largest_set)))
    largest = max(1, min(subsets[0], largest_set))
    if setting == "full":
        return Plan(points=None, subset=largest)
    if setting != "default":
        return Plan(points=None, subset=largest, interval=int(setting))
    budget = SHARE * training_cost * sum(task_samples)
    standard = max((len(standard_grid(round(steps))) for steps in task_steps), default=0)
    for subset in subsets:
        subset = min(subset, largest_set)
        affordable = int(budget / max(1, subset * sum(sets_scored)))
        if affordable >= standard:
            return Plan(points=None, subset=subset)
        if affordable >= ENOUGH_POINTS:
            return Plan(points=affordable, subset=subset)
    return Plan(points=max(FEWEST_POINTS, affordable), subset=subset)
