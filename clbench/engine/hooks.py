"""Calling a strategy's hooks: in their place, counted, and with an error that names strategy and hook."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from clbench.errors import ClbenchError, RunFailed, UserError
from clbench.strategy import Strategy

BOUNDARY_HOOKS = ("build", "begin_task", "end_task")


@contextmanager
def hook(strategy: Strategy, name: str, task: int, log: Callable[[str], None]) -> Iterator[None]:
    """Run a hook; what it raises becomes one line, its traceback goes to the log."""
    try:
        yield
    except (ClbenchError, KeyboardInterrupt, OSError, MemoryError):
        raise
    except Exception as error:
        log(traceback.format_exc())
        where = f" in task {task}" if task >= 0 else ""
        message = " ".join(str(error).split()) or "no message"
        raise RunFailed(
            f"strategy {type(strategy).__name__} raised in {name}{where}: {type(error).__name__}: {message}"
        ) from error


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
