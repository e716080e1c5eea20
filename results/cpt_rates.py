"""The learning rates that a run went through, over its tokens, from its record alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from clbench.record import Record
from clbench.registry import load_strategy
from clbench.schedules import Context, Schedule, find, share_of

Course = list[tuple[float, float]]  # (tokens, multiple of the peak rate)


@dataclass(frozen=True)
class Rates:
    """trunk: what training went on along. branches: what was annealed beside it, those of the last tasks."""

    trunk: Course
    branches: list[Course]
    tasks: int

    @property
    def last(self) -> float:
        """The last of all tokens."""
        return max(course[-1][0] for course in (self.trunk, *self.branches))


def rates_of(record: Record) -> Rates:
    """One phase a task, over its data once; the upstream with the settings it had."""
    spec, tasks = record["spec"], record["stream"]["tasks"]
    own = spec["strategy_settings"]
    of_upstream: dict[str, Any] | None = (record.get("upstream") or {}).get("settings")
    trunk: Course = []
    branches = []
    done = 0
    for index, task in enumerate(tasks):
        if index == 0 and of_upstream is not None:
            settings, schedule = of_upstream, find(of_upstream["schedule"])
        else:
            settings, schedule = own, _schedule(spec["strategy"], own)
        tokens = settings["batch_size"] * record["clock"]["per_sample"]
        steps = math.ceil(task["samples"] / settings["batch_size"])
        branch = share_of(settings.get("anneal") or 0, steps)
        stem = steps - branch
        peak = settings["lr"] / own["lr"]
        trunk += [
            (tokens * (done + s), peak * _rate(schedule, s, index, steps, done + s, settings))
            for s in range(stem + bool(branch))
        ]
        if branch:
            anneal = [
                (tokens * (done + s), peak * _rate(schedule, s, index, steps, done + s, settings, stem, branch))
                for s in range(stem, steps + 1)
            ]
            branches.append(anneal)
        done += stem  # a branch does not advance a run's steps
    return Rates(trunk, branches, len(tasks))


def _schedule(strategy: str, settings: dict[str, Any]) -> Schedule:
    """That of a strategy's settings; methods that are a schedule write it from theirs."""
    config = load_strategy(strategy).Config(**settings)
    written = getattr(config, "written", None)
    return find(written() if written else settings["schedule"])


def _rate(
    schedule: Schedule,
    step: int,
    phase: int,
    steps: int,
    run_step: int,
    settings: dict[str, Any],
    start: int | None = None,
    length: int = 0,
) -> float:
    context = Context(
        run_step=run_step,
        batch_size=settings["batch_size"],
        peak=settings["lr"],
        anneal_start=start,
        anneal_length=length,
    )
    return schedule.lr(step, phase, steps, context)
