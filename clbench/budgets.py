"""Budgets: what their keys mean, and how many steps of each task a budget pays for. Nothing slow is imported here.

`maf` and `flops` are shared out over the tasks before anything is trained, and decide how long each of them trains.
`steps` and `seconds` are limits at which training stops wherever it is; `memory` limits what a strategy may store.

MAF are memory-adjusted FLOPs (FoMo-in-Flux, arXiv 2408.14471): FLOPs times the memory of the method's step over that of
full fine-tuning of the same model on batches of the same size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from clbench.errors import UserError
from clbench.quantities import SECONDS, UNITS, amount, with_prefix

KEYS = ("flops", "seconds", "memory", "steps", "maf")
SHARED_OUT = ("maf", "flops")
MULTIPLES_BELOW = 1000.0
"""A smaller value of a budget that is shared out is a multiple of what full fine-tuning costs."""
EXAMPLE = "flops=1e12, maf=full, maf=1.8e18, seconds=90, steps=500 or memory=10MB"


def budget_amount(key: str, text: str) -> float:
    """The number that stands for a limit as people write it: `full` and `0.5x` are multiples. Raises ValueError."""
    if key in SHARED_OUT:
        if text.strip().lower() == "full":
            return 1.0
        if text.strip().lower().endswith("x"):
            value = amount(text.strip()[:-1], {"": 1})
            if value < MULTIPLES_BELOW:
                return value
            raise ValueError(f"not a multiple: {text!r}")
    return amount(text, SECONDS if key == "seconds" else UNITS)


def budget_text(budget: Mapping[str, float]) -> str:
    """`flops 1 T, steps 60`; `maf 1 x full fine-tuning`; empty without a budget."""
    return ", ".join(f"{key} {limit_text(key, limit)}" for key, limit in sorted(budget.items()))


def is_multiple(key: str, limit: float) -> bool:
    """Whether a limit stands for a multiple of what full fine-tuning costs."""
    return key in SHARED_OUT and limit < MULTIPLES_BELOW


def limit_text(key: str, limit: float) -> str:
    """One limit."""
    if is_multiple(key, limit):
        return f"{limit:g} x full fine-tuning"
    return with_prefix(limit)


@dataclass(frozen=True)
class PhaseCost:
    """A phase. flops: of a step; steps: by the strategy's own settings; slope: how many steps it gets for each one of
    the setting `steps`, `fixed`: how many besides (slope 0: the setting says nothing about it)."""

    name: str
    flops: int
    steps: int
    slope: Fraction = Fraction(0)
    fixed: int = 0
    trains: bool = True

    def length(self, steps: int | None) -> int:
        """Its steps where the setting `steps` is this; None: where the settings are the strategy's own."""
        return self.steps if steps is None else int(self.slope * steps) + self.fixed


@dataclass(frozen=True)
class TaskCost:
    """A task. extra: FLOPs that come once, whatever its length: of hooks at its borders and before its phases."""

    name: str
    phases: tuple[PhaseCost, ...]
    extra: int

    def flops(self, steps: int | None = None) -> int:
        return self.extra + sum(phase.flops * phase.length(steps) for phase in self.phases)

    def trained_steps(self, steps: int | None = None) -> int:
        return sum(phase.length(steps) for phase in self.phases if phase.trains)

    def affordable(self, flops: Fraction) -> int | None:
        """The largest `steps` whose cost is at most this; None where the setting says nothing about the task."""
        unit = sum((phase.slope * phase.flops for phase in self.phases), Fraction(0))
        if not unit:
            return None
        fixed = self.extra + sum(phase.flops * phase.fixed for phase in self.phases)
        return int((flops - fixed) // unit)


@dataclass(frozen=True)
class RunCost:
    """What a run's tasks cost, measured before anything is trained. memory: bytes of the step that needs most, in
    parts (`step_memory.StepBytes`), None where no phase has an optimiser; seconds: of a step of each task, if timed."""

    tasks: tuple[TaskCost, ...]
    memory: dict[str, int] | None
    seconds: tuple[float, ...] | None = None

    @property
    def bytes(self) -> int:
        return sum(self.memory.values()) if self.memory else 0

    def flops(self, steps: Sequence[int | None] | None = None) -> int:
        return sum(task.flops(n) for task, n in zip(self.tasks, steps or [None] * len(self.tasks), strict=True))


@dataclass(frozen=True)
class Allowance:
    """How many steps each task gets, and where that comes from. Everything is a pure function of the specification.

    limits: FLOPs that the run may take in all, adjusted by memory for `maf`. shares: of those limits, each task's;
    steps: the setting `steps` in each task, None where the strategy's own lengths count. ratio: memory of the method's
    step over that of full fine-tuning's.
    """

    limits: dict[str, float]
    shares: dict[str, tuple[float, ...]]
    steps: tuple[int | None, ...]
    ratio: Fraction
    cost: RunCost
    full: RunCost

    def as_record(self) -> dict[str, Any]:
        """For a record."""
        tasks = [
            {
                "name": task.name,
                "steps": steps,
                "flops_extra": task.extra,
                "flops_planned": task.flops(steps),
                **{f"share_{key}": shares[index] for key, shares in self.shares.items()},
                "phases": [
                    {"name": phase.name, "steps": phase.length(steps), "flops_per_step": phase.flops}
                    for phase in task.phases
                ],
            }
            for index, (task, steps) in enumerate(zip(self.cost.tasks, self.steps, strict=True))
        ]
        return {
            "limits": self.limits,
            "memory_ratio": float(self.ratio),
            "memory_bytes": self.cost.memory,
            "memory_full_bytes": self.full.memory,
            "flops_per_step_full": [task.phases[0].flops if task.phases else 0 for task in self.full.tasks],
            "tasks": tasks,
        }


def allow(
    budget: Mapping[str, float], cost: RunCost, full: RunCost, strategy: str, single_pass: Sequence[int] | None = None
) -> Allowance:
    """The steps of every task under what `budget` shares out: of several limits, the tightest in each task.

    A multiple of full fine-tuning gives each task that multiple of what full fine-tuning spends on it, an amount the
    same to every task. What comes once in a task is paid first; the rest buys steps. full: plain training of the whole
    model, as long as the stream recommends. single_pass: the most steps of each task, where data may be seen once.
    Raises UserError where a task cannot have one step.
    """
    ratio = Fraction(cost.bytes, full.bytes) if cost.bytes and full.bytes else Fraction(1)
    steps: list[int | None] = [None] * len(cost.tasks)
    limits: dict[str, float] = {}
    shares: dict[str, tuple[float, ...]] = {}
    for key in SHARED_OUT:
        if key not in budget:
            continue
        parts = _shares(budget[key], full)
        limits[key], shares[key] = float(sum(parts)), tuple(float(part) for part in parts)
        price = ratio if key == "maf" else Fraction(1)
        owed = Fraction(0)
        for index, (task, part) in enumerate(zip(cost.tasks, parts, strict=True)):
            if not part:  # learned elsewhere: the next task pays for what hooks compute all the same
                owed += task.flops() * price
                continue
            left = part - owed
            found = task.affordable(left / price)
            if (found is None and task.flops() * price > left) or (found is not None and found < 1):
                raise UserError(_too_small(key, budget[key], strategy, cost, full, index, price, left, owed))
            owed = Fraction(0)
            once = None if single_pass is None else single_pass[index]
            known = [n for n in (steps[index], found, once) if n is not None]
            steps[index] = None if found is None else min(known)
    return Allowance(limits, shares, tuple(steps), ratio, cost, full)


def _shares(limit: float, full: RunCost) -> list[Fraction]:
    """Of each task. A task that is not trained (nothing is measured of it) has none."""
    exact = Fraction(limit)
    if limit < MULTIPLES_BELOW:
        return [exact * task.flops() for task in full.tasks]
    trained = [bool(task.flops()) for task in full.tasks]
    return [exact / max(1, sum(trained)) if each else Fraction(0) for each in trained]


def _too_small(
    key: str,
    limit: float,
    strategy: str,
    cost: RunCost,
    full: RunCost,
    index: int,
    price: Fraction,
    part: Fraction,
    owed: Fraction,
) -> str:
    """What does not fit, and what would. part: of the task, without what it pays for earlier ones, `owed`."""
    task = cost.tasks[index]
    needs = [_least(each) * price for each in cost.tasks]
    step = needs[index] - task.extra * price
    needs[index] += owed
    if limit < MULTIPLES_BELOW:
        least = max(need / each.flops() for need, each in zip(needs, full.tasks, strict=True) if each.flops())
        fits = f"{key}={_up(float(least))}x"
    else:
        fits = f"{key}={_up(float(max(needs) * sum(bool(each.flops()) for each in full.tasks)))}"
    return (
        f"budget {key}={limit:g}: not one step of {strategy} fits into task {index} ({task.name}), whose share is "
        f"{with_prefix(float(part))}: {with_prefix(float(task.extra * price))} come once in the task, and a step "
        f"costs {with_prefix(float(step))}; {fits} would do for every task"
    )


def _least(task: TaskCost) -> int:
    """FLOPs of the shortest training of a task."""
    return task.flops(1) if any(phase.slope for phase in task.phases) else task.flops()


def _up(value: float) -> str:
    """Three digits, not below the value."""
    text = f"{value:.3g}"
    return text if float(text) >= value else f"{value * 1.005:.3g}"


def cost_as_dict(cost: RunCost) -> dict[str, Any]:
    """For JSON."""
    return {"memory": cost.memory, "flops": cost.flops(), "tasks": [_task(task) for task in cost.tasks]}


def _task(task: TaskCost) -> dict[str, Any]:
    phases = [{**asdict(phase), "slope": float(phase.slope)} for phase in task.phases]
    return {"name": task.name, "flops_extra": task.extra, "phases": phases}
