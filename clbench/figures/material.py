"""What every figure is drawn from: a comparison, the curves of its groups, and the width of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clbench.compare import Comparison
from clbench.curves import GroupCurves, group_curves
from clbench.figures.style import WIDTHS, short_labels


@dataclass
class Material:
    """width: `page` or `column`. The tables of the runs are read when curves are asked for (UserError where one is
    missing)."""

    comparison: Comparison
    width: str = "page"

    @cached_property
    def curves(self) -> list[GroupCurves]:
        """One for each group."""
        direction = self.comparison.stream["direction"]
        return [group_curves([folder for folder, _ in row.runs], direction) for row in self.comparison.groups]

    @cached_property
    def labels(self) -> list[str]:
        """Names of the groups, cut to what a legend or a panel's title holds."""
        return short_labels(self.comparison.labels, 44)

    @property
    def inches(self) -> float:
        return WIDTHS[self.width]

    @property
    def higher(self) -> bool:
        """Whether a higher score is the better one."""
        return bool(self.comparison.stream["direction"] == "higher")

    @property
    def score(self) -> str:
        """Name of the score, for an axis."""
        primary = self.comparison.stream["primary"]
        return str(primary) if self.higher else f"{primary} (lower is better)"

    @property
    def counts(self) -> list[int]:
        """Runs of each group."""
        return [len(row.runs) for row in self.comparison.groups]

    @property
    def tasks(self) -> int:
        return max(len(group.ends) for group in self.curves)

    @cached_property
    def by_task(self) -> bool:
        """Whether tasks are as long as each other on the axis, since the groups take different numbers of steps."""
        return len({(group.start, *group.ends) for group in self.curves}) > 1

    def places(self, group: GroupCurves, steps: Sequence[int]) -> list[float]:
        """Where steps stand on the axis: themselves, or the task's index plus the share of its steps that is done."""
        if not self.by_task:
            return [float(step) for step in steps]
        ends = (group.start, *group.ends)
        return [float(place) for place in np.interp(steps, ends, range(len(ends)))]

    @property
    def time(self) -> str:
        """Name of that axis."""
        return "tasks done" if self.by_task else "optimiser steps"

    def columns(self, wanted: int, least: float = 1.55) -> int:
        """How many panels stand beside each other: at most `wanted`, none narrower than `least` inches."""
        return max(1, min(wanted, int(self.inches / least)))
