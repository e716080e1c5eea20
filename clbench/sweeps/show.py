"""A plan as a table and as JSON: what is done, what is left, what it will take."""

from __future__ import annotations

import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clbench.leaderboard import plain
from clbench.record import strategy_label
from clbench.sweeps.cost import Cost
from clbench.sweeps.estimate import Estimate
from clbench.sweeps.plan import Plan, Planned

MOST_NOTES = 20


@dataclass(frozen=True)
class Totals:
    """What a plan takes with a number of jobs at a time. unknown: runs left whose time is not known."""

    runs: int
    done: int
    resume: int
    start: int
    wall_seconds: float
    cpu_seconds: float
    memory: int | None
    unknown: int


def totals(plan: Plan, estimates: Estimate, jobs: int = 1) -> Totals:
    """Wall seconds: runs in order, each on the first worker that is free. CPU seconds: seconds times threads.
    memory: of the `jobs` largest runs together, bytes."""
    left = [planned for planned in plan.runs if planned.action != "done"]
    costs = [estimates.costs.get(planned.job.number, Cost()) for planned in left]
    workers = [0.0] * max(1, jobs)
    cpu = 0.0
    for planned, cost in zip(left, costs, strict=True):
        seconds = cost.seconds or 0.0
        heapq.heapreplace(workers, workers[0] + seconds)
        cpu += seconds * planned.job.resources.cpus
    memory = sorted((cost.memory for cost in costs if cost.memory is not None), reverse=True)[: max(1, jobs)]
    actions = [planned.action for planned in plan.runs]
    return Totals(
        runs=len(plan.runs),
        done=actions.count("done"),
        resume=actions.count("resume"),
        start=actions.count("run"),
        wall_seconds=max(workers),
        cpu_seconds=cpu,
        memory=sum(memory) if memory else None,
        unknown=sum(cost.seconds is None for cost in costs),
    )


def show_plan(plan: Plan, estimates: Estimate, jobs: int = 1) -> str:
    """A line for each group of runs that differ in seeds alone, then totals and notes."""
    groups: dict[str, list[Planned]] = {}
    for planned in plan.runs:
        spec = planned.job.spec
        key = json.dumps([spec.strategy, spec.stream, planned.settings, spec.threads, spec.device], sort_keys=True)
        groups.setdefault(key, []).append(planned)
    header = ("strategy", "stream", "settings", "seeds", "done", "resume", "run", "time each", "memory", "from")
    rows = [header, *(_row(group, estimates) for group in groups.values())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    shown = [i for i, width in enumerate(widths) if any(row[i] for row in rows[1:])]
    lines = ["  ".join(_cell(row[i], i, widths[i]) for i in shown).rstrip() for row in rows]
    return "\n".join([_title(plan), "", *lines, "", *_sums(plan, estimates, jobs), ""])


def plan_as_dict(plan: Plan, estimates: Estimate, jobs: int = 1) -> dict[str, Any]:
    """For JSON: every run with its specification and cost, and the totals."""
    runs = []
    for planned in plan.runs:
        cost = estimates.costs.get(planned.job.number, Cost())
        runs.append(
            {
                "number": planned.job.number,
                "label": planned.job.label,
                "action": planned.action,
                "reason": planned.reason,
                "folder": str(planned.folder) if planned.folder else None,
                "spec": planned.job.spec.model_dump(mode="json"),
                "spec_hash": planned.job.spec.hash(),
                "resources": vars(planned.job.resources),
                "seconds": cost.seconds,
                "memory_bytes": cost.memory,
                "source": cost.source,
            }
        )
    return {
        "suite": plan.suite.name,
        "file": str(plan.suite.path),
        "results": str(plan.out),
        "jobs": jobs,
        "runs": runs,
        "totals": vars(totals(plan, estimates, jobs)),
        "notes": [*plan.notes, *estimates.notes],
    }


def _title(plan: Plan) -> str:
    text = f"suite {plan.suite.name} ({plan.suite.path}), results in {plan.out}"
    return f"{text}\n{' '.join(plan.suite.description.split())}" if plan.suite.description.strip() else text


def _row(group: Sequence[Planned], estimates: Estimate) -> tuple[str, ...]:
    first = group[0]
    spec, actions = first.job.spec, [planned.action for planned in group]
    costs = [estimates.costs.get(planned.job.number, Cost()) for planned in group]
    pending = [cost for cost, action in zip(costs, actions, strict=True) if action == "run"] or costs
    seconds = [cost.seconds for cost in pending if cost.seconds is not None]
    memory = [cost.memory for cost in costs if cost.memory is not None]
    settings = " ".join(f"{key}={plain(value)}" for key, value in first.settings.items())
    return (
        strategy_label(spec.strategy),
        strategy_label(spec.stream),
        settings,
        _seeds(group),
        *(str(actions.count(action)) if action in actions else "" for action in ("done", "resume", "run")),
        duration(sum(seconds) / len(seconds)) if seconds else "?",
        size(max(memory)) if memory else "?",
        pending[0].source,
    )


def _seeds(group: Sequence[Planned]) -> str:
    """`0-4`, or `0-4 x orders 0-2`."""
    orders = list(dict.fromkeys(planned.job.spec.order_seed for planned in group))
    seeds = ranges(list(dict.fromkeys(planned.job.spec.seed for planned in group)))
    return seeds if orders == [0] else f"{seeds} x order{'s' if len(orders) > 1 else ''} {ranges(orders)}"


def ranges(numbers: Sequence[int]) -> str:
    """`0-2,5` for 0, 1, 2, 5."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


def _sums(plan: Plan, estimates: Estimate, jobs: int) -> list[str]:
    found = totals(plan, estimates, jobs)
    noun = "run" if found.runs == 1 else "runs"
    lines = [f"{found.runs} {noun}: {found.done} done, {found.resume} to resume, {found.start} to run"]
    if found.resume + found.start:
        at_a_time = f"with {jobs} job{'s' if jobs != 1 else ''} at a time"
        memory = f"memory: {size(found.memory) if found.memory is not None else 'unknown'} together"
        if found.unknown == found.resume + found.start:
            lines.append(f"nothing is known of their time; {memory}")
        else:
            more = f", and {found.unknown} more of unknown length" if found.unknown else ""
            cpu = f"{duration(found.cpu_seconds)} of processor time"
            lines.append(f"about {duration(found.wall_seconds)} {at_a_time}{more}; {cpu}; {memory}")
    notes = [f"note: {text}" for text in (*plan.notes, *estimates.notes)]
    if len(notes) > MOST_NOTES:
        notes[MOST_NOTES:] = [f"and {len(notes) - MOST_NOTES} notes more (all of them: --json)"]
    return [*lines, *notes]


def duration(seconds: float) -> str:
    """`0.4 s`, `8 s`, `3:05 min`, `2:10 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"


def size(count: float) -> str:
    """`640 MB`, `2.1 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _cell(text: str, column: int, width: int) -> str:
    return text.rjust(width) if column in (4, 5, 6, 7, 8) else text.ljust(width)
