"""A run cut short: every task is visited, of each phase only some steps are done, and the rest is reckoned up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import Any

from clbench.budgets import SHARED_OUT
from clbench.engine.cursor import Cursor
from clbench.engine.hooks import overrides
from clbench.engine.session import Session
from clbench.engine.stepping import ActivePhase
from clbench.phase import Phase
from clbench.samples import Batch
from clbench.stream import Task
from clbench.upstream import OWN

FEWEST_STEPS = 4
PHASE_SHARE = 0.5
EVALUATION_SHARE = 0.25


class ProbeOver(Exception):
    """The time for the probe is up."""


@dataclass
class PhaseTimes:
    """A phase: seconds of each step done, without evaluation; of what came before the first; and its whole length."""

    length: int = 0
    begin: float = 0.0
    evaluations: int = 0
    steps: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Of the whole phase; the first step (which prepares what later ones use) counts once."""
        later = self.steps[1:] or self.steps
        rest = (self.length - len(self.steps)) * mean(later) if later else 0.0
        return self.begin + sum(self.steps) + rest


@dataclass
class TaskTimes:
    """A task: seconds of its hooks, its phases, samples that its boundary evaluation scores."""

    samples: int
    hooks: float = 0.0
    phases: list[PhaseTimes] = field(default_factory=list)
    scored: int = 0
    traced: int = 0
    whole: bool = False


@dataclass(frozen=True)
class Pass:
    """An evaluation: its seconds, the samples it scored, and how many features were computed for it."""

    seconds: float
    samples: int
    computed: int


class ProbeSession(Session):
    """A session that times itself. `limit` seconds for the loop; evaluations are done until their time is known."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.limit = 10.0
        self.tasks = [TaskTimes(len(task.train)) for task in self.stream.tasks]
        self.first_scored = 0
        self.passes: list[Pass] = []
        self.set_up = 0.0
        self._mark = self._entered = 0.0
        self._phase: PhaseTimes | None = None

    # -- the loop, cut short -------------------------------------------------------------------------------------

    def start(self) -> None:
        super().start()
        self.set_up = self.meters.total_seconds()

    def enter(self, cursor: Cursor) -> bool:
        if self.meters.loop_seconds() > self.limit:
            raise ProbeOver
        return super().enter(cursor)

    def plan(self, task: Task) -> list[Phase]:
        """Without forks: the steps of a branch cost what others do, and are among the phase's."""
        return [replace(phase, anneal=0.0) for phase in super().plan(task)]

    def phases(self, task: Task) -> Iterator[ActivePhase]:
        self._mark = time.perf_counter()
        for active in super().phases(task):
            now = time.perf_counter()
            self._phase = PhaseTimes(active.length, now - self._mark, len(active.evaluation_steps))
            self.tasks[task.index].phases.append(self._phase)
            self._entered = self._mark = now
            self.stopped_at_step = None
            yield active
            self._mark = time.perf_counter()
        self._phase = None

    def stepped(self, batch: Batch) -> None:
        super().stepped(batch)
        now = time.perf_counter()
        assert self._phase is not None
        self._phase.steps.append(now - self._mark)
        self._mark = now

    def budget_spent(self) -> bool:
        """Whether enough of the phase is done; a budget of the specification is reckoned with at the end."""
        if self._phase is None or len(self._phase.steps) < FEWEST_STEPS:
            return False
        share = PHASE_SHARE * self.limit / len(self.stream.tasks)
        if time.perf_counter() - self._entered <= share:
            return False
        self.stopped_at_step = self.step
        return True

    def begin_task(self, task: Task) -> None:
        started = time.perf_counter()
        super().begin_task(task)
        self.tasks[task.index].hooks += time.perf_counter() - started

    def adopt(self, task: Task) -> None:
        """The time of an upstream is not the run's: go on with the weights there are."""

    def end_task(self, task: Task) -> None:
        started = time.perf_counter()
        super().end_task(task)
        self.tasks[task.index].hooks += time.perf_counter() - started

    # -- evaluation ----------------------------------------------------------------------------------------------

    def evaluate_boundary(self, tasks_seen: int) -> None:
        scored = sum(len(s.data) for s in self.stream.eval_sets if self.objective.scorable(s, self.n_classes()))
        twice = overrides(self.strategy, "deploy") or bool(getattr(self.strategy.config, "anneal", 0.0))
        scored *= 2 if twice else 1
        if tasks_seen == 0:
            self.first_scored = scored
        else:
            self.tasks[tasks_seen - 1].scored = scored
        if scored and self._evaluates_on():
            self._evaluate(max(0, tasks_seen - 1))
        if tasks_seen:
            self.tasks[tasks_seen - 1].whole = True

    def evaluate_trace(self, task: Task) -> None:
        seen = [s for s in self.stream.eval_sets if s.belongs_to is None or s.belongs_to <= task.index]
        self.tasks[task.index].traced = sum(len(self.evaluator.subsets[s.name]) for s in seen)
        if self._evaluates_on():
            self._evaluate(task.index)
        self._mark = time.perf_counter()

    def _evaluates_on(self) -> bool:
        """Until a share of the time is spent; the first pass, which prepares what later ones use, is left out."""
        return sum(each.seconds for each in self.passes[1:]) < EVALUATION_SHARE * self.limit

    def _evaluate(self, task: int) -> None:
        started, samples, computed = time.perf_counter(), self.meters.totals["samples_evaluate"], self._computed()
        self.evaluator.trace(self.step, task)
        scored = int(self.meters.totals["samples_evaluate"] - samples)
        if scored:
            self.passes.append(Pass(time.perf_counter() - started, scored, self._computed() - computed))

    def _computed(self) -> int:
        return self.services.features.computed if self.services.features is not None else 0

    # -- the whole -----------------------------------------------------------------------------------------------

    def seconds(self) -> float | None:
        """Of the whole run; None where no step was measured. Tasks not reached are taken to be like the last whole
        one, by their samples."""
        self._fill_in()
        if not any(phase.steps for task in self.tasks for phase in task.phases) and not self.tasks[-1].whole:
            return None
        training = sum(phase.seconds for task in self.tasks for phase in task.phases)
        scored = self.first_scored + sum(task.scored for task in self.tasks)
        scored += sum(task.traced * phase.evaluations for task in self.tasks for phase in task.phases)
        training *= self._share_of_budget(training)
        return self.set_up + training + self._evaluation(scored) + sum(task.hooks for task in self.tasks)

    def _evaluation(self, samples: int) -> float:
        """Seconds to score so many samples; features are computed for each row of the sets once."""
        plain = [each for each in self.passes if not each.computed]
        fresh = [each for each in self.passes if each.computed]
        sets = sum(len(s.data) for s in self.stream.eval_sets)
        seconds = sets * _rate(fresh, [each.computed for each in fresh])
        later = plain if fresh else plain[1:] or plain
        seconds += samples * _rate(later, [each.samples for each in later])
        return seconds + (plain[0].seconds if len(plain) > 1 and not fresh else 0.0)

    def _share_of_budget(self, training: float) -> float:
        steps = sum(phase.length for task in self.tasks for phase in task.phases)
        done = sum(len(phase.steps) for task in self.tasks for phase in task.phases)
        flops = self.meters.totals["flops_train"] / done * steps if done else 0.0
        spent = {"steps": steps, "seconds": training, "flops": flops}
        limits = [
            limit / spent[key]
            for key, limit in self.spec.budget.items()
            if spent.get(key) and key not in SHARED_OUT  # these have decided how long the phases are
        ]
        return min([1.0, *limits])

    def _fill_in(self) -> None:
        trained = self.tasks[self.spec.upstream != OWN :]  # an adopted task says nothing of the others
        reached = [task for task in trained if task.whole] or [t for t in trained if t.phases][:1]
        if not reached:
            return
        like = reached[-1]
        per_set = like.traced / max(1, self.tasks.index(like) + 1)
        sets = [0] * len(self.tasks)
        for each in self.stream.eval_sets:
            for index in range(len(self.tasks)):
                sets[index] += len(each.data) if each.belongs_to is None or each.belongs_to <= index else 0
        for index, task in enumerate(self.tasks):
            if task.whole or task is like:
                task.scored = task.scored or sets[index]
                continue
            ratio = task.samples / max(1, like.samples)
            task.hooks = like.hooks * ratio
            task.phases = [
                PhaseTimes(round(phase.length * ratio), phase.begin, phase.evaluations, phase.steps)
                for phase in like.phases
            ]
            task.scored, task.traced = sets[index], round(per_set * (index + 1))


def _rate(passes: list[Pass], counts: list[int]) -> float:
    return sum(each.seconds for each in passes) / sum(counts) if passes else 0.0
