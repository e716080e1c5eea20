"""The learning rates of a phase: its schedule, asked with the place in the run.

A schedule sees one phase a task: the task's index says which. A task with several phases that have an optimiser goes
through the same pieces in each of them, over its own steps; schedules over the whole run count all updates on the way,
those of an upstream included, and those of a branch only while on it. The run begins for its schedule with the first
phase that trains, whatever the task, and again where a phase says `schedule_phase=0`: it starts from new weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clbench.engine.sampling import phase_length
from clbench.errors import UserError
from clbench.phase import Phase
from clbench.schedules import Context, find, share_of

if TYPE_CHECKING:
    from clbench.engine.session import Session
    from clbench.stream import Task


@dataclass(frozen=True)
class Past:
    """Updates before a phase: those of an upstream (None: there is none), and the run's own."""

    upstream: int | None
    updates: int

    @property
    def steps(self) -> int:
        return (self.upstream or 0) + self.updates


class Rates:
    """Multiples of the peak rate for the updates of a phase of `steps` steps, the last `branch` of them on a branch;
    `done` of them were taken before. past: what was trained before, where that is not what the session has trained.

    Raises UserError where the schedule cannot fit the phase.
    """

    def __init__(
        self, session: Session, task: Task, phase: Phase, steps: int, branch: int, done: int, past: Past | None = None
    ) -> None:
        assert phase.optimizer is not None
        self.schedule = find(phase.schedule)
        self.steps = steps
        self.branch = branch
        self._session = session
        past = past or Past(session.adopted.get("steps"), session.updates)
        first = past.upstream is None and past.updates == done
        place = 0 if first else task.index
        self._phase = place if phase.schedule_phase is None else phase.schedule_phase
        self._anew = phase.schedule_phase == 0 or (first and task.index > 0)
        self._batch_size = phase.batch_size
        self._tokens = phase.batch_size * (session.stream.input_shape[0] if session.stream.vocabulary else 1)
        self._peak = phase.optimizer.lr
        self._run_steps = steps if self._anew else self._steps_of_the_run(task, phase, past)
        if steps:
            self.schedule.check(self._phase, steps, self._context(0 if self._anew else past.steps, bool(branch)))

    def at(self, step: int, annealing: bool = False) -> float:
        """The multiple for the update after `step` others of the phase; annealing: on the branch."""
        return self.schedule.lr(
            step, self._phase, self.steps, self._context(step if self._anew else self._updates, annealing)
        )

    @property
    def _updates(self) -> int:
        """On the way to the step under way: an upstream's, and those made here."""
        return int(self._session.adopted.get("steps", 0)) + self._session.updates

    def _context(self, run_step: int, annealing: bool) -> Context:
        return Context(
            run_step=run_step,
            run_steps=self._run_steps,
            tokens_per_step=self._tokens,
            batch_size=self._batch_size,
            peak=self._peak,
            anneal_start=self.steps - self.branch if annealing else None,
            anneal_length=self.branch if annealing else 0,
        )

    def _steps_of_the_run(self, task: Task, phase: Phase, past: Past) -> int | None:
        """For a schedule that must know: a phase like this one for each task. Raises UserError where that is not so."""
        if not self.schedule.needs_horizon:
            return None
        lengths = [phase_length(phase, len(each.train)) for each in self._session.stream.tasks]
        allowed = self._session.allowance
        if allowed is not None and phase.steps is not None and phase.steps == allowed.steps[task.index]:
            lengths = [length if steps is None else steps for length, steps in zip(lengths, allowed.steps, strict=True)]
        as_planned = self.steps == lengths[task.index]
        if phase.resume_from == "stable":
            lengths = [length - share_of(phase.anneal, length) for length in lengths]
        if past.upstream is not None:
            lengths[0] = past.upstream
        before = sum(lengths[: task.index])
        if not as_planned or not before <= past.steps <= before + self.steps:
            raise UserError(
                f"schedule {self.schedule.name} spans the whole run, but the run's length cannot be known: phase "
                f"{phase.name!r} of task {task.index} is not the task's data over its epochs or steps; use another one"
            )
        return sum(lengths)
