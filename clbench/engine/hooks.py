"""Calling a strategy's hooks: in their place, counted, and with an error that names strategy and hook."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from clbench.engine.fork import check_fork
from clbench.errors import ClbenchError, RunFailed, UserError
from clbench.models.tune import parse_tuning
from clbench.phase import Phase
from clbench.strategy import Strategy

BOUNDARY_HOOKS = ("build", "begin_task", "end_task")


@contextmanager
def hook(strategy: Strategy, name: str, task: int, log: Callable[[str], None]) -> Iterator[None]:
    """Run a hook; what it raises becomes one line, its traceback goes to the log."""
    try:
        yield
    except ClbenchError:
        raise
    except Exception as error:
        log(traceback.format_exc())
        where = f" in task {task}" if task >= 0 else ""
        message = " ".join(str(error).split()) or "no message"
        raise RunFailed(
            f"strategy {type(strategy).__name__} raised in {name}{where}: {type(error).__name__}: {message}"
        ) from error


def check_plan(strategy: Strategy, plan: Any) -> list[Phase]:
    """What `phases` returned, if it is a list of phases such as the strategy declares."""
    name = type(strategy).__name__
    if not isinstance(plan, (list, tuple)) or not all(isinstance(phase, Phase) for phase in plan):
        raise RunFailed(f"strategy {name}: phases returned {type(plan).__name__}, not a list of Phase")
    for phase in plan:
        if strategy.needs.gradient_free and phase.optimizer is not None:
            raise RunFailed(f"strategy {name} declares gradient_free, but phase {phase.name!r} has an optimiser")
    check_fork(strategy, plan)
    return list(plan)


def overrides(strategy: Strategy, name: str) -> bool:
    """Whether the strategy's class defines a hook itself."""
    return getattr(type(strategy), name) is not getattr(Strategy, name)


def check_declaration(strategy: type[Strategy], stream: Any) -> None:
    """Refuse what a strategy's class shows before a run: hooks it may not have, objectives it does not know."""
    needs = strategy.needs
    if not needs.task_boundaries:
        for name in BOUNDARY_HOOKS:
            if getattr(strategy, name) is not getattr(Strategy, name):
                raise UserError(
                    f"strategy {strategy.__name__} defines {name} but declares task_boundaries=False in its needs"
                )
    if needs.objectives is not None and stream.objective not in needs.objectives:
        known = ", ".join(needs.objectives)
        raise UserError(
            f"strategy {strategy.__name__} works with {known}; {stream.name} is a {stream.objective} stream"
        )


def check_tuning(strategy: type[Strategy], config: Any, tune: str) -> None:
    """Refuse a `tune` that would not decide what trains: the method does, or its backbone is frozen throughout."""
    parse_tuning(tune)
    if not strategy.tunable and tune != "full":
        raise UserError(f"strategy {strategy.__name__} decides itself what it trains: use --tune full, not {tune}")
    if strategy.reads(config) == "features" and tune not in ("full", "head"):
        raise UserError(
            f"strategy {strategy.__name__} reads features of a frozen backbone: --tune {tune} would train nothing "
            "(use --tune full)"
        )
