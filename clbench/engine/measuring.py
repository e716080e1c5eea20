"""What a run will cost, found by a rehearsal: every task with all its hooks, and a few steps of each phase.

FLOPs and bytes are counted, not timed, so that every machine finds the same. Nothing of a rehearsal is kept, and
nothing that the run does depends on whether there was one: randomness is keyed to places.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from clbench.budgets import PhaseCost, RunCost, TaskCost
from clbench.engine.cost import FlopCount
from clbench.engine.cursor import Cursor, Stage
from clbench.engine.mixing import Mixer
from clbench.engine.reporter import Reporter
from clbench.engine.sampling import phase_length
from clbench.engine.session import Session
from clbench.engine.step_memory import Activations
from clbench.engine.stepping import ActivePhase
from clbench.phase import Phase

if TYPE_CHECKING:
    from clbench.spec import RunSpec
    from clbench.strategy import Strategy
    from clbench.stream import Stream, Task

STEPS = 3
"""Of each phase: the third one has what a first step creates (optimiser, memory), and costs what later ones do. From
the third task on a phase takes one, if that costs what the first one did in the task before."""
TIMED = 3
"""Further steps whose time is taken, without counting."""
LENGTHS = (1 << 12, 1 << 13)
"""Values of the setting `steps` from which it is read off what a phase makes of it."""


def measure_run(spec: RunSpec, stream: Stream, strategy: type[Strategy], config: Any, timed: bool = False) -> RunCost:
    """The cost of a run of `strategy` by its own settings, on one device, without `spec`'s budget. timed: seconds of a
    step as well."""
    from clbench.engine.assembly import assemble

    spec = spec.model_copy(update={"budget": {}, "devices": 1, "sync_bn": False, "compile": False, "eval_grid": "none"})
    with TemporaryDirectory(prefix="clbench-cost-") as folder:
        session = assemble(spec, Path(folder), stream, strategy, config, Reporter(), None, MeasureSession)
        assert isinstance(session, MeasureSession)
        session.timed = timed
        try:
            session.start()
            tasks = tuple(session.task_cost(task) for task in session.remaining_tasks())
        finally:
            session.close()
    memory = None if session.meters.memory is None else asdict(session.meters.memory)
    return RunCost(tasks, memory, tuple(session.seconds) if timed else None)


class MeasureSession(Session):
    """A session that counts every step that it takes by itself, and takes a few of each phase."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.timed = False
        self.seconds: list[float] = []
        self._counted_seconds: list[float] = []
        self._counts = True
        self._flops = 0
        self._earlier: dict[int, tuple[int, int]] = {}  # phase -> FLOPs of its first step in the task before, of a step

    def task_cost(self, task: Task) -> TaskCost:
        """Go through a task."""
        before = self.meters.totals["flops_train"]
        phases: list[PhaseCost] = []
        seconds = 0.0
        for line in self.lines(task):
            self.enter(Cursor(task.index, Stage.BEGIN_TASK))
            self.begin_task(task)
            lengths = [self._lengths(task, steps) for steps in LENGTHS]
            for active in self.phases(task):
                found = [each[active.number] if active.number < len(each) else None for each in lengths]
                phases.append(self._phase_cost(active, found))
                seconds = max(seconds, self._step_seconds(active))
            self.enter(line.at(Stage.END_TASK))
            self.end_task(task)
        self.seconds.append(seconds)
        return TaskCost(task.name, tuple(phases), int(self.meters.totals["flops_train"] - before))

    def _phase_cost(self, active: ActivePhase, lengths: list[Fraction | None]) -> PhaseCost:
        first_before, flops_before = self._earlier.get(active.number, (None, 0)) if active.task.index > 1 else (None, 0)
        found: list[int] = []
        self._counted_seconds = []
        for step in active.steps:
            self._flops = 0
            self._counted_seconds.append(self._step(active, step))
            found.append(self._flops)
            if found == [first_before] or len(found) == STEPS:
                break
        flops = flops_before if found == [first_before] else max(found, default=0)  # an epoch's last batch is smaller
        self._earlier[active.number] = (found[0] if found else -1, flops)
        first, second = lengths
        slope = Fraction(0) if first is None or second is None else (second - first) / (LENGTHS[1] - LENGTHS[0])
        fixed = int(first - slope * LENGTHS[0]) if slope and first is not None else active.length
        trains = active.phase.optimizer is not None
        return PhaseCost(active.phase.name, flops, active.length, slope, fixed, trains)

    def _step(self, active: ActivePhase, step: int) -> float:
        """Take a step; its seconds."""
        started = time.perf_counter()
        batch = active.batch(step)
        active.update(batch)
        active.after_step(batch)
        return time.perf_counter() - started

    def _step_seconds(self, active: ActivePhase) -> float:
        """The median over further steps; of a phase that has none, over those that were counted, but the first."""
        if not self.timed:
            return 0.0
        found, self._counts = [], False
        for step in range(STEPS, min(active.length, STEPS + TIMED)):
            self.enter(self.line.at(Stage.PHASE, active.number, step))
            active.step = step
            found.append(self._step(active, step))
        self._counts = True
        found = found or self._counted_seconds[1:] or self._counted_seconds
        return median(found) if found else 0.0

    def _lengths(self, task: Task, steps: int) -> list[Fraction | None]:
        """Steps of each phase where the setting `steps` is this; None where it says nothing about the phase."""
        own = self.strategy.config
        if "steps" not in type(own).model_fields:
            return [None] * len(self.plan(task))
        self.strategy.config = own.model_copy(update={"steps": steps})
        try:
            return [self._length(task, number, phase) for number, phase in enumerate(self.plan(task))]
        finally:
            self.strategy.config = own

    def _length(self, task: Task, number: int, phase: Phase) -> Fraction | None:
        if phase.steps is None:
            return None
        length = Fraction(phase_length(phase, 1))
        if phase.sources is None:
            return length
        mixer = Mixer(self, task, number, phase)
        mixer.reset()
        mixer.weights(0)
        return length * Fraction(mixer.policy.growth()).limit_denominator(LENGTHS[0])

    # -- what a session does otherwise ----------------------------------------------------------------------------

    def enter(self, cursor: Cursor) -> bool:
        """Keyed as in a run, and never saved."""
        self.cursor = cursor
        name = f"{cursor.stage.name.lower()}-begin" if cursor.step < 0 else cursor.stage.name.lower()
        self.random.enter(cursor.task, name, cursor.phase, cursor.step)
        return True

    def plan(self, task: Task) -> list[Phase]:
        """Without forks: the steps of a branch cost what others do, and are among the phase's."""
        return [replace(phase, anneal=0.0) for phase in super().plan(task)]

    def adopt(self, task: Task) -> None:
        """Go on with the weights there are."""

    def count_flops(self, active: ActivePhase, parts: int) -> AbstractContextManager[Any]:
        if not self._counts:
            return nullcontext()
        both = ExitStack()
        both.enter_context(self._counted())
        active.activations = Activations([self.model, *self.services.snapshots.models()])
        both.enter_context(active.activations.measured())
        return both

    def count_more(self, active: ActivePhase) -> AbstractContextManager[Any]:
        return self._counted() if self._counts else nullcontext()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with FlopCount() as count:
            self.meters.step_count = count
            try:
                yield
            finally:
                self.meters.step_count = None
        self._flops += count.flops

    def evaluate_boundary(self, tasks_seen: int) -> None:
        """Evaluation is no part of a budget."""

    def evaluate_trace(self, task: Task) -> None:
        """Nor this."""
