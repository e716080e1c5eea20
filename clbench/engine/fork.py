"""Forks: the last steps of a task trained on a branch, and the two ways to the task's end that follow from one.

At the trunk's end everything that a checkpoint holds of the training is set aside. Then both lines are followed to the
task's end, later phases, `end_task` and the evaluation included: first the one that is left again, then, from the state
that was set aside, the one that training goes on from. So a classifier built from prototypes, importances or a merge
is always made from the weights it is evaluated with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from clbench.engine.cursor import Line
from clbench.engine.faults import fault_point
from clbench.engine.saving import Aside, put_back_training, training_state
from clbench.errors import RunFailed, UserError
from clbench.phase import Phase
from clbench.schedules import share_of

if TYPE_CHECKING:
    from clbench.engine.session import Session
    from clbench.strategy import Strategy
    from clbench.stream import Task

Part = Literal["whole", "trunk", "branch"]


def check_fork(strategy: Strategy, plan: Sequence[Phase]) -> None:
    """Refuse a plan whose branch could not be left again, or does not end the task's training."""
    trained = [phase for phase in plan if phase.optimizer is not None]
    for phase in plan:
        if phase.anneal and phase.optimizer is None:
            raise RunFailed(f"phase {phase.name!r} has no optimiser: there is nothing to anneal (leave `anneal` out)")
        if phase.anneal and not trained[-1].anneal:
            raise RunFailed(
                f"phase {phase.name!r} has anneal={phase.anneal:g}, but phase {trained[-1].name!r} trains after it: "
                "give `anneal` to the task's last phase with an optimiser"
            )
    if any(phase.anneal for phase in plan) and strategy.needs.resume != "step":
        raise UserError(
            f"strategy {type(strategy).__name__} cannot go back to a state that was set aside (resume: "
            f"{strategy.needs.resume}): use anneal=0"
        )


def stretches(plan: Sequence[Phase], line: Line) -> list[tuple[int, Part]]:
    """The phases to run on a line, by number, and what of each: all, up to the fork, or from it on.

    The task's last phase with an optimiser is the one that forks, where it has an `anneal`.
    """
    trained = [number for number, phase in enumerate(plan) if phase.optimizer is not None]
    if not trained or not plan[trained[-1]].anneal:
        return [(number, "whole") for number in range(len(plan))]
    fork = trained[-1]
    later: list[tuple[int, Part]] = [(number, "whole") for number in range(fork + 1, len(plan))]
    if line.view == "whole":
        return [*((number, "whole") for number in range(fork)), (fork, "trunk"), *later]
    return [(fork, "branch"), *later] if line.view == "branch" else later


def branch_steps(phase: Phase, steps: int) -> int:
    """How many of a phase's steps are those of its branch. Raises UserError where none would be left for the trunk."""
    branch = share_of(phase.anneal, steps) if steps else 0
    if steps and branch >= steps:
        raise UserError(
            f"phase {phase.name!r} has {steps} steps, of which anneal={phase.anneal:g} takes {branch}: nothing is left "
            "to anneal from (train longer, or set a smaller anneal)"
        )
    return branch


def lines(session: Session, task: Task) -> Iterator[Line]:
    """The ways to a task's end: one, and where the task has forked on it, the other one from the fork on."""
    if session.line.task != task.index:  # else: resumed on it
        session.line = Line(task.index)
    yield session.line
    if session.aside is not None:
        put_back(session, session.aside)
        yield session.line


def set_aside(session: Session, resume_from: str) -> None:
    """Fork: keep the state as it is, and go on with the line that is left again. resume_from: as of `Phase`."""
    fault_point("fork")
    tensors, state = training_state(session)
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    session.aside = Aside(copies, state, session.services.snapshots.copy(), dict(vars(session.strategy)))
    left: Part = "branch" if resume_from == "stable" else "trunk"
    session.line = replace(session.line, view=left, kept=False)


def put_back(session: Session, aside: Aside) -> None:
    """Leave a line: the state is that at the fork, and the other line, which training goes on from, begins."""
    fault_point("rejoin")
    if session.leaving_line is not None:
        session.leaving_line()
    strategy = vars(session.strategy)
    strategy.clear()
    strategy.update(aside.attributes)
    session.services.snapshots = aside.snapshots
    if not aside.state["frozen"]:
        session.services.features = None
    for name in vars(session.strategy.state).keys() - aside.state["state"].keys():
        delattr(session.strategy.state, name)
    session.random.go_back()
    put_back_training(session, aside.tensors, aside.state)
    session.aside = None
    other: Part = "trunk" if session.line.view == "branch" else "branch"
    if other == "trunk":
        session.services.mixing.end_saved()
    session.line = Line(session.line.task, 1, other, kept=True)
