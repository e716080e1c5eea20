"""A run's state: where it stands, what it has built, and how that is saved and restored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from torch import Tensor, nn

from clbench.engine import adoption
from clbench.engine.cost import Meters, StepCount
from clbench.engine.cursor import START, Cursor, Line, Stage
from clbench.engine.diagnostics import entry
from clbench.engine.environment import Environment
from clbench.engine.evaluation import Evaluator
from clbench.engine.faults import fault_point
from clbench.engine.features import Features
from clbench.engine.fork import lines, set_aside, stretches
from clbench.engine.geometry import keep_beginning, measures, update_geometry
from clbench.engine.hooks import check_plan, hook
from clbench.engine.log import TableLog
from clbench.engine.loss_log import LossLog
from clbench.engine.parallel import Ranks
from clbench.engine.planning import evaluation_plan
from clbench.engine.rehearsal import rehearse
from clbench.engine.reporter import Reporter
from clbench.engine.saver import Saver
from clbench.engine.saving import Aside, final_state_hash
from clbench.engine.services import Services
from clbench.engine.step_memory import Activations, step_bytes
from clbench.engine.stepping import ActivePhase
from clbench.engine.validity import invalid_base, told
from clbench.errors import RunFailed
from clbench.models.modes import has_batch_statistics
from clbench.objectives import Objective
from clbench.phase import Inputs, Phase
from clbench.rng import Randomness
from clbench.samples import Batch
from clbench.spec import RunSpec
from clbench.strategy import Strategy
from clbench.stream import Stream, Task
from clbench.table import Row

if TYPE_CHECKING:
    from clbench.budgets import Allowance
    from clbench.engine.assembly import ModelBuilder

LAST_STEP = 1 << 60
ROUNDING = 1 + 1e-6  # of sums of large numbers


class Diverged(RunFailed):
    """The loss became NaN or infinite."""


class Session:
    """Everything one run holds. `clbench/run.py` drives it; `clbench/launch.py` makes it.

    `resumed_at` is where this sitting starts: stages before it are skipped, those from it on are entered. Every entry
    is a place where the run can be saved and where randomness is keyed anew.
    """

    def __init__(
        self,
        spec: RunSpec,
        folder: Path,
        stream: Stream,
        strategy: type[Strategy],
        config: Any,
        objective: Objective,
        environment: Environment,
        services: Services,
        random: Randomness,
        reporter: Reporter,
        builder: ModelBuilder,
        ranks: Ranks,
        checkpoint_every: int | None = None,
    ) -> None:
        self.spec = spec
        self.folder = folder
        self.stream = stream
        self.objective = objective
        self.environment = environment
        self.services = services
        self.random = random
        self.reporter = reporter
        self.builder = builder
        self.ranks = ranks
        self.saver = Saver(self, checkpoint_every)
        self.meters = Meters()
        services.counted = lambda: self.meters.counted("flops_train")
        services.remembered = lambda n: self.meters.add("samples_remembered", n)
        self.table = TableLog(folder / "evaluations.jsonl", kept=ranks.first)
        self.losses = LossLog(folder / "block_losses.raw", kept=ranks.first and objective.keeps_values)
        self.strategy = strategy(config, services)
        self.gives_task_id = strategy.needs.task_id_at_test and stream.scenario == "task"
        self.cursor = START
        self.resumed_at = START
        self.line = Line(START.task)
        self.aside: Aside | None = None
        self.leaving_line: Callable[[], None] | None = None
        self.interrupted = False
        self.stopped_at_step: int | None = None
        self.updates = 0
        self.active: ActivePhase | None = None
        self.carried: dict[str, dict[str, Tensor]] = {}
        self.loss: Tensor | None = None
        self.warnings: list[str] = []
        self.diagnostics: list[dict[str, Any]] = []
        self.geometry: list[dict[str, Any]] = []
        self.trained: set[str] = set()
        self.adopted: dict[str, Any] = {}
        self.continued = False
        self.allowance: Allowance | None = None
        self.evaluator = Evaluator(self, evaluation_plan(self))

    def keep_to(self, allowance: Allowance) -> None:
        """Before the start: the budget decides how long tasks train."""
        self.allowance = allowance
        self._allot(0)
        self.evaluator = Evaluator(self, evaluation_plan(self))

    # -- reading -------------------------------------------------------------------------------------------------

    @property
    def model(self) -> nn.Module:
        return self.services.model

    @property
    def keeps_model(self) -> bool:
        """Whether the run has a model of its own to train, save and evaluate: not where a method without gradients
        reads features, and the backbone may never be built."""
        return not self.builder.all_frozen or not self.strategy.needs.gradient_free

    @property
    def step(self) -> int:
        """Steps since training began: those of an upstream, and those taken here."""
        return int(self.adopted.get("steps", 0) + self.meters.totals["steps"])

    def n_classes(self) -> int:
        """Classes the head knows by now."""
        built = self.stream.tasks[: self.services.built]
        return max([self.stream.initial_classes, *(max(t.classes, default=-1) + 1 for t in built)])

    def log(self, text: str) -> None:
        """Append to the run's log.txt; a disk that refuses it stops no run."""
        if not self.ranks.first:
            return
        with suppress(OSError), (self.folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text.rstrip()}\n")

    def warn(self, text: str) -> None:
        """Tell the user, the log and the record."""
        self.warnings.append(text)
        self.log(text)
        self.reporter.note(text)

    # -- entering ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """`setup`, then the checkpoint if there is one."""
        self.random.enter("setup")
        with hook(self.strategy, "setup", -1, self.log):
            self.strategy.setup()
        if self.stream.initial_classes and self.keeps_model:
            self.random.enter("initial-classes")
            self.objective.grow_to(self.model, self.stream.initial_classes)
        self._warn_of_shares()
        if not self.saver.restore():
            rehearse(self)
            self.table.rewind(0, 0)
            self.losses.rewind(0)
        self._same_everywhere("at the start")
        self.saver.start_clock()
        self.meters.start_loop()
        self.reporter.started(self)
        if self.continued and self.strategy.needs.resume != "step":
            self._tell_where()

    def _tell_where(self) -> None:
        """Say where a run goes on whose strategy cannot be taken up where it was."""
        kept = {"task": "is saved between tasks only", "none": "keeps nothing that can be saved"}
        task = self.resumed_at.task + (self.resumed_at.stage == Stage.EVALUATE)
        place = "from the beginning" if self.resumed_at == START else f"at task {task}"
        resume = self.strategy.needs.resume
        text = f"{type(self.strategy).__name__} {kept[resume]} (resume: {resume}): the run starts again {place}"
        self.log(text)
        self.reporter.note(text)

    def enter(self, cursor: Cursor) -> bool:
        """Stand at a position: save if it is time, key randomness to it. False where an earlier sitting went past."""
        if cursor < self.resumed_at:
            return False
        self.cursor = cursor
        self.saver.save_if_due()
        name = f"{cursor.stage.name.lower()}-begin" if cursor.step < 0 else cursor.stage.name.lower()
        fault_point(name)
        self.random.enter(cursor.task, name, cursor.phase, cursor.step)
        if cursor.stage != Stage.PHASE:
            self.reporter.stage(cursor.task, name)
        return True

    def remaining_tasks(self) -> Iterator[Task]:
        """Tasks not completed, each with its model built."""
        for task in self.stream.tasks[max(0, self.resumed_at.task) :]:
            self.build(task)
            yield task

    def build(self, task: Task) -> None:
        """Grow the head and let the strategy create its parameters; once per task, replayed on resuming."""
        self.services.task = task.index
        self._allot(task.index)
        if task.index < self.services.built:
            return
        self.random.enter(task.index, "build")
        if self.keeps_model:
            self.objective.grow(self.model, task)
        with hook(self.strategy, "build", task.index, self.log):
            self.strategy.build(self.services.view(task))
        self.services.built = task.index + 1

    def _allot(self, task: int) -> None:
        """Tell the strategy how many steps the budget gives a task."""
        if self.allowance is not None and (steps := self.allowance.steps[task]) is not None:
            self.strategy.config = self.strategy.config.model_copy(update={"steps": steps})

    def lines(self, task: Task) -> Iterator[Line]:
        """The ways to the task's end: one, or two where the task forks."""
        return lines(self, task)

    def plan(self, task: Task) -> list[Phase]:
        """What the strategy plans for the task, checked."""
        self._allot(task.index)
        self.random.enter(task.index, "phases")
        with hook(self.strategy, "phases", task.index, self.log):
            return check_plan(self.strategy, self.strategy.phases(self.services.view(task)))

    def phases(self, task: Task) -> Iterator[ActivePhase]:
        """The phases that are not done on this line, each begun (fresh) or taken up where it stood.

        Where the trunk of a phase is done, the task forks: on the line that takes the branch, it goes on at once.
        A task that was learned elsewhere has forked before its first phase, if at all.
        """
        plan = self.plan(task)
        for number, part in stretches(plan, Line(task.index) if adoption.adopts(self, task) else self.line):
            phase = plan[number]
            if self.line.at(Stage.PHASE, number, LAST_STEP) < self.resumed_at:
                continue
            if phase.optimizer is not None and adoption.adopts(self, task):
                continue
            active = ActivePhase(self, task, number, phase, last=number == len(plan) - 1, part=part)
            fresh = part != "branch" and self.enter(self.line.at(Stage.PHASE, number, -1))
            self.reporter.stage(task.index, phase.name)
            if fresh:
                active.begin()
            self.random.enter(task.index, "phase-data", number)
            active.prepare(self.carried, fresh)
            self.active = active
            yield active
            if active.part == "trunk" and active.finished and active.anneal_start is not None:
                set_aside(self, phase.resume_from)
                if self.line.view == "branch":
                    active.branch_off()
                    yield active
            self.carried = active.slots()
            self.active = None
            active.leave()

    def read_inputs(self, inputs: Inputs, phase: str) -> None:
        """From here on batches hold `inputs`: a raw strategy's backbone is frozen by its first phase on features."""
        services = self.services
        if inputs == "features" and services.features is None:
            extract = self.strategy.extract
            services.features = Features(
                {}, lambda: self.model, self.objective, self.environment, folder=None, extract=lambda _, x: extract(x)
            )
        elif inputs == "raw" and services.features is not None:
            raise RunFailed(f"phase {phase!r} reads raw inputs, but the backbone is frozen: its features are read")

    def begin_task(self, task: Task) -> None:
        if measures(self, task):
            keep_beginning(self, task)
        self._boundary_hook("begin_task", task)
        if adoption.adopts(self, task):
            self.adopt(task)

    def adopt(self, task: Task) -> None:
        """The first task was learned elsewhere: go on from there."""
        adoption.adopt(self, task)

    def end_task(self, task: Task) -> None:
        self._boundary_hook("end_task", task)
        if not self.line.kept:
            return
        with hook(self.strategy, "diagnostics", task.index, self.log):
            self.diagnostics += entry(self.strategy.diagnostics(), task.index)
        if measures(self, task):
            self.geometry += update_geometry(self, task)
        self._same_everywhere(f"after task {task.index}")
        stored = self.stored_bytes()
        self.meters.totals["stored_bytes"] = max(self.meters.totals["stored_bytes"], stored)
        limit = self.spec.budget.get("memory")
        if limit is not None and stored > limit:
            raise RunFailed(
                f"the strategy stores {stored:,} bytes after task {task.index}, over --budget memory={limit:,.0f}: "
                "let it store less, or raise the budget"
            )

    def _boundary_hook(self, name: str, task: Task) -> None:
        with hook(self.strategy, name, task.index, self.log), self.meters.counted("flops_train"):
            getattr(self.strategy, name)(self.services.view(task))

    # -- steps ---------------------------------------------------------------------------------------------------

    def stepped(self, batch: Batch) -> None:
        """Count a step."""
        assert self.active is not None
        self.meters.add("steps_branch" if self.active.part == "branch" else "steps", 1)
        self.meters.add("samples_train", len(batch))
        for key, amount in self.objective.counts(batch).items():
            self.meters.totals[key] = self.meters.totals.get(key, 0) + amount
        self.reporter.stepped(self.cursor.task, self.active.step + 1, self.active.phase_steps, self.loss)

    def count_flops(self, active: ActivePhase, parts: int) -> AbstractContextManager[Any]:
        """Count loss and gradients of a step, all its parts, and measure its memory, where it is one to count."""
        if not active.counting:
            return nullcontext()
        both = ExitStack()
        both.enter_context(StepCount(self.meters, active.key, parts))
        if not self.environment.compile:  # torch's compiler saves what it likes
            active.activations = Activations([self.model, *self.services.snapshots.models()])
            both.enter_context(active.activations.measured())
        return both

    def count_more(self, active: ActivePhase) -> AbstractContextManager[Any]:
        """The same of what a strategy computes in a step besides loss and gradients."""
        return StepCount(self.meters, active.key, parts=1) if active.counting else nullcontext()

    def measure_memory(self, active: ActivePhase) -> None:
        """After a step whose activations were measured."""
        if active.activations is not None:
            models = [self.model, *self.services.snapshots.models()]
            self.meters.measured(step_bytes(models, active.optimizer.state, active.activations.peak))
            active.activations = None

    def budget_spent(self) -> bool:
        """Whether training must stop here; said once."""
        if self.stopped_at_step is None and self.spec.budget:
            spent = {"steps": self.meters.totals["steps"], "seconds": self.meters.total_seconds()}
            over = [key for key, limit in self.spec.budget.items() if key in spent and spent[key] >= limit]
            over += self._overspent()
            if self.ranks.agreed(bool(over)):
                self.stopped_at_step = self.step
                for key in over[:1]:
                    limit = self.spec.budget[key]
                    self.warn(f"budget {key}={limit:g} is spent: training stopped at step {self.step}")
        return self.stopped_at_step is not None

    def _overspent(self) -> list[str]:
        """Budgets that were shared out before training, where its steps have turned out dearer than they were then."""
        if self.allowance is None:
            return []
        return [key for key, limit in self.allowance.limits.items() if self._spent(key) > limit * ROUNDING]

    def _spent(self, key: str) -> float:
        """FLOPs of training so far, for `maf` adjusted by memory."""
        assert self.allowance is not None
        return self.meters.totals["flops_train"] * (float(self.allowance.ratio) if key == "maf" else 1.0)

    def diverged(self, task: int, step: int, phase: str) -> NoReturn:
        """Stop here. The table says so, too: every set that is traced scores NaN at the step that failed."""
        if self.line.view != "branch":
            self._append(self.evaluator.diverged(self.step + 1, task), self.evaluator.values)
        where = f"task {task}, phase {phase!r}, step {step}" + (" (of a branch)" if self.line.view == "branch" else "")
        raise Diverged(f"the loss is not finite in {where}: try a lower --set lr=...")

    def _warn_of_shares(self) -> None:
        """Say what keeps a run on several devices from the numbers of one."""
        if self.ranks.size > 1 and not self.environment.sync_bn and has_batch_statistics(self.model):
            self.warn(
                f"the model has batch statistics, and each of {self.ranks.size} devices takes those of its own share: "
                "the numbers are not those of one device (--sync-bn makes them so)"
            )

    def _same_everywhere(self, when: str) -> None:
        """Whether all ranks hold the same model and state: a strategy may part them by acting, outside of `loss`, on
        what differs by rank. On GPUs kernels that are not deterministic may do so, too: there it is said, no more."""
        if self.ranks.size == 1 or self.ranks.equal(final_state_hash(self)):
            return
        text = (
            f"strategy {type(self.strategy).__name__}: {when} the {self.ranks.size} processes of the run do not hold "
            "the same state; outside of `loss`, hooks must do the same on all of them"
        )
        if self.environment.device.type == "cpu":
            raise RunFailed(f"{text} (use --devices 1)")
        self.warn(text)

    def stored_bytes(self) -> int:
        """Bytes a strategy keeps between tasks: its state, its snapshots and the tasks' data it reads again."""
        from clbench.state import stored_bytes

        kept = self.services.snapshots.bytes() + self.services.bytes_of_kept_samples()
        return stored_bytes(vars(self.strategy.state)) + kept

    # -- evaluation ----------------------------------------------------------------------------------------------

    def evaluate_boundary(self, tasks_seen: int) -> None:
        """All sets, whole; between two tasks this is the switch's trace evaluation, too."""
        self.random.enter("evaluation", self.step, tasks_seen)
        with suppress(_StopEvaluating):
            repeats = 0 <= self.table.last_step < self.step
            rows = self.evaluator.boundary(self.step, tasks_seen, repeats, self.line)
            self._append(rows, self.evaluator.values)
            if tasks_seen == 0 and (found := self.invalid_base()):
                self.warn(told(found))
            return
        self.saver.stop()

    def invalid_base(self) -> dict[str, float] | None:
        """Scores of a model that knew too little of the held-out sets before training; None of one that knew enough."""
        if self.objective.direction == "lower":
            return None
        return invalid_base(self.table.table, self.stream.eval_sets, self.objective.primary)

    def evaluate_trace(self, task: Task) -> None:
        """The fixed subset, inside a task."""
        self.random.enter("evaluation", self.step, task.index)
        rows = self.evaluator.trace(self.step, task.index)
        self._append(rows, self.evaluator.values)

    def evaluating(self) -> None:
        """Called between chunks: a boundary evaluation can be interrupted, nothing has changed since its cursor."""
        if self.cursor.stage in (Stage.INITIAL, Stage.EVALUATE) and self.ranks.agreed(self.interrupted):
            raise _StopEvaluating

    def take_over(self, rows: list[Row], values: list[Tensor]) -> None:
        """Rows that an upstream's training measured, and the values of their blocks."""
        self._append(rows, values)

    def _append(self, rows: list[Row], values: list[Tensor]) -> None:
        self.table.append(rows)
        self.losses.append(values)
        self.reporter.evaluated(rows)

    # -- the end -------------------------------------------------------------------------------------------------

    def cost(self) -> dict[str, Any]:
        """The cost part of the record."""
        cost = self.meters.summary() | self.adopted.get("cost", {})
        parameters = dict(self.model.named_parameters()) if self.keeps_model else {}
        frozen = self.builder.described()["parameters"] if self.builder.all_frozen else 0
        cost["parameters"] = frozen + sum(p.numel() for p in parameters.values())
        cost["parameters_trained"] = sum(p.numel() for name, p in parameters.items() if name in self.trained)
        if self.allowance is not None:
            cost["maf_train"] = self._spent("maf")
            cost["memory_full_bytes"] = self.allowance.full.bytes
        if self.services.features is not None:
            cost["features_computed"] = self.services.features.computed
        return cost

    def close(self) -> None:
        if self.services.features is not None and self.ranks.first:
            self.services.features.flush()
        self.table.close()
        self.losses.close()
        self.reporter.finished()


class _StopEvaluating(Exception):
    """Leave an evaluation before its end: the model gets its own weights back on the way."""
