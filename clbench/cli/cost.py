"""`clbench cost`: what a run would cost, found before anything is trained."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clbench.budgets import SHARED_OUT, Allowance, RunCost, budget_text, cost_as_dict
from clbench.cli.text import columns, print_json, size
from clbench.quantities import with_prefix
from clbench.record import strategy_label

if TYPE_CHECKING:
    from clbench.launch import Prepared
    from clbench.spec import RunSpec

MANY = 12
"""More tasks than these are shown by the first and the last ones."""


@dataclass(frozen=True)
class Found:
    """What was measured. steps: the setting `steps` of each task, None where the strategy's own lengths count; matched:
    what they would be at the cost of full fine-tuning, None where one step of a task is already more."""

    spec: RunSpec
    cost: RunCost
    full: RunCost
    ratio: float
    steps: tuple[int | None, ...]
    allowance: Allowance | None
    matched: tuple[int | None, ...] | None

    @property
    def flops(self) -> int:
        return self.cost.flops(self.steps)

    @property
    def seconds(self) -> float | None:
        """Of training on this machine."""
        if self.cost.seconds is None:
            return None
        lengths = [task.trained_steps(n) for task, n in zip(self.cost.tasks, self.steps, strict=True)]
        return sum(n * seconds for n, seconds in zip(lengths, self.cost.seconds, strict=True))

    def as_json(self) -> dict[str, Any]:
        """Everything; amounts in FLOPs, bytes and seconds."""
        own = cost_as_dict(self.cost)
        for task, known, n in zip(own["tasks"], self.cost.tasks, self.steps, strict=True):
            task |= {"steps": known.trained_steps(n), "flops": known.flops(n)}
        return {
            "strategy": strategy_label(self.spec.strategy),
            "stream": strategy_label(self.spec.stream),
            "backbone": self.spec.backbone,
            "tune": self.spec.tune,
            "budget": self.spec.budget,
            "memory": self.cost.memory,
            "memory_bytes": self.cost.bytes,
            "memory_ratio": self.ratio,
            "flops": self.flops,
            "maf": self.flops * self.ratio,
            "tasks": own["tasks"],
            "full": {**cost_as_dict(self.full), "memory_bytes": self.full.bytes},
            "steps_at_full": None if self.matched is None else list(self.matched),
            "limits": None if self.allowance is None else self.allowance.limits,
            "seconds_train": self.seconds,
        }


def cost_command(spec: RunSpec, timed: bool, as_json: bool) -> None:
    """Print what a run would cost. Raises UserError where it could not begin."""
    from clbench.launch import Prepared

    found = find(Prepared(spec), timed)
    if as_json:
        print_json(found.as_json())
    else:
        sys.stdout.write("\n".join(lines(found)) + "\n")


def find(built: Prepared, timed: bool = False) -> Found:
    """Measure a specification's run and full fine-tuning of its model."""
    from clbench.budgets import allow
    from clbench.engine.allowance import full_fine_tuning, longest
    from clbench.engine.measuring import measure_run
    from clbench.errors import UserError

    spec, stream, config = built.spec, built.stream, built.config
    cost = measure_run(spec, stream, built.strategy, config, timed)
    full = full_fine_tuning(spec, stream, built.strategy, config, cost)
    most, label = longest(stream, config), strategy_label(spec.strategy)
    try:
        at_full = allow({"maf": 1.0}, cost, full, label, most)
    except UserError:
        at_full = None
    shared = any(key in spec.budget for key in SHARED_OUT)
    allowance = allow(spec.budget, cost, full, label, most) if shared else None
    steps: tuple[int | None, ...] = allowance.steps if allowance else (None,) * len(cost.tasks)
    ratio = cost.bytes / full.bytes if cost.bytes and full.bytes else 1.0
    return Found(spec, cost, full, ratio, steps, allowance, at_full.steps if at_full else None)


def lines(found: Found) -> list[str]:
    """The text for a terminal."""
    spec = found.spec
    text = [
        f"{strategy_label(spec.strategy)} on {strategy_label(spec.stream)}, {spec.backbone}, tuned: {spec.tune}",
        "",
    ]
    text += [*columns(_memory_rows(found)), ""]
    text += [*columns(_task_rows(found)), ""]
    text.append(f"  in all {_amounts(found)}")
    if spec.budget:
        text.append(f"  budget {budget_text(spec.budget)}{_limits(found.allowance)}")
    if found.matched is None:
        text.append("  at the cost of full fine-tuning (maf=full) not one step fits into every task")
    elif found.allowance is None:
        text.append(f"  at the cost of full fine-tuning (maf=full): {_steps_text(found)} steps a task")
    return text


def _memory_rows(found: Found) -> list[list[str]]:
    names = ["parameters", "gradients", "optimizer", "activations"]
    rows = [["memory of a step", *names, "in all", "ratio"]]
    for label, cost, ratio in (("this run", found.cost, found.ratio), ("full fine-tuning", found.full, 1.0)):
        memory = cost.memory or dict.fromkeys(names, 0)
        rows.append([label, *(size(memory[name]) for name in names), size(cost.bytes), f"{ratio:.4g}"])
    return rows


def _task_rows(found: Found) -> list[list[str]]:
    """A line for each phase of each task; what comes once stands with the first."""
    rows = [["task", "phase", "FLOPs/step", "MAF/step", "full FLOPs/step", "steps", "FLOPs once"]]
    tasks = list(enumerate(found.cost.tasks))
    shown = tasks if len(tasks) <= MANY else [*tasks[: MANY - 2], *tasks[-1:]]
    for index, task in shown:
        if index and index - 1 not in dict(shown):
            rows.append(["...", "", "", "", "", "", ""])
        full = sum(phase.flops for phase in found.full.tasks[index].phases)
        for number, phase in enumerate(task.phases):
            rows.append(
                [
                    f"{index} {task.name}" if number == 0 else "",
                    phase.name,
                    with_prefix(phase.flops),
                    with_prefix(phase.flops * found.ratio),
                    with_prefix(full) if number == 0 else "",
                    str(phase.length(found.steps[index])),
                    with_prefix(task.extra) if number == 0 else "",
                ]
            )
    return rows


def _amounts(found: Found) -> str:
    steps = sum(task.trained_steps(n) for task, n in zip(found.cost.tasks, found.steps, strict=True))
    parts = [f"{steps:,} steps", f"{with_prefix(found.flops)} FLOPs", f"{with_prefix(found.flops * found.ratio)} MAF"]
    parts.append(f"(full fine-tuning: {with_prefix(found.full.flops())})")
    if found.seconds is not None:
        parts.append(f"about {found.seconds:.3g} s of training here")
    return ", ".join(parts[:3]) + f" {parts[3]}" + "".join(f", {part}" for part in parts[4:])


def _limits(allowance: Allowance | None) -> str:
    if allowance is None:
        return ""
    return ": " + ", ".join(f"{with_prefix(limit)} {key.upper()}" for key, limit in allowance.limits.items())


def _steps_text(found: Found) -> str:
    assert found.matched is not None
    known: Sequence[int] = [n for n in found.matched if n is not None]
    if not known:
        return "its own number of"
    return str(known[0]) if len(set(known)) == 1 else f"{min(known)} to {max(known)}"
