"""Before any training: the plans of all tasks are looked at, and what cannot be carried out is refused.

Only plans that do not depend on what was trained can be (`Strategy.plans_ahead`), and of those only phases whose data
are there already.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from clbench.engine.fork import branch_steps
from clbench.engine.mixing import Mixer
from clbench.engine.rates import Past, Rates
from clbench.engine.sampling import phase_length
from clbench.phase import Phase
from clbench.schedules import find
from clbench.strategy import Strategy
from clbench.upstream import OWN, SHARED

if TYPE_CHECKING:
    from clbench.engine.session import Session
    from clbench.stream import Task


def rehearse(session: Session) -> None:
    """Plan every task, and check its mixtures, schedules and anneals. Raises UserError. Changes nothing."""
    tasks = session.stream.tasks
    past: Past | None = Past(None, 0)
    if session.spec.upstream != OWN:
        steps = _rehearse_upstream(session, tasks[0]) if session.spec.upstream == SHARED else None
        past = None if steps is None else Past(steps, 0)
    if not plans_ahead(type(session.strategy)):
        return
    for task in tasks:
        session.services.task = task.index
        adopted = task.index == 0 and session.spec.upstream != OWN
        for number, phase in enumerate(session.plan(task)):
            if phase.optimizer is not None and not adopted:
                past = _rehearse_phase(session, task, number, phase, past)
    session.services.task = -1


def plans_ahead(strategy: type[Strategy]) -> bool:
    """Whether the class that has the strategy's `phases`, or one derived from it, says so."""
    said = next(kind for kind in strategy.__mro__ if "plans_ahead" in vars(kind))
    defined = next(kind for kind in strategy.__mro__ if "phases" in vars(kind))
    return said.plans_ahead and issubclass(said, defined)  # type: ignore[attr-defined]


def _rehearse_upstream(session: Session, task: Task) -> int:
    """The plain training that a shared upstream is: its steps."""
    config = Strategy.Config(**session.spec.upstream_settings)
    phase = Strategy(config, session.services).phase("upstream", task.train)
    return _rehearse_phase(session, task, 0, phase, Past(None, 0)).updates  # type: ignore[union-attr]


def _rehearse_phase(session: Session, task: Task, number: int, phase: Phase, past: Past | None) -> Past | None:
    """What was trained after the phase; None: not known."""
    if callable(phase.data):
        return None
    steps = phase_length(phase, len(phase.data))
    if phase.sources is not None:
        mixer = Mixer(session, task, number, phase)
        mixer.reset()
        mixer.weights(0)
        mixer.prepare(phase.data, fresh=True)
        steps = mixer.length
    branch = branch_steps(phase, steps)
    if past is None and find(phase.schedule).clock == "run":
        return None
    Rates(session, task, phase, steps, branch, 0, past or Past(0, 0))
    if past is None:
        return None
    return replace(past, updates=past.updates + steps - (branch if phase.resume_from == "stable" else 0))
