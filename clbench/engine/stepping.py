"""A phase being run: batches, losses and updates of its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clbench.engine.cursor import Stage
from clbench.engine.fork import Part, branch_steps
from clbench.engine.hooks import hook, overrides
from clbench.engine.mixing import Mixer
from clbench.engine.optimizers import Slots, build_optimizer, set_slots, slots_of, update
from clbench.engine.rates import Rates
from clbench.engine.sampling import Sampler
from clbench.errors import RunFailed, UserError
from clbench.models.modes import running_statistics, set_mode
from clbench.phase import Phase
from clbench.samples import Batch

if TYPE_CHECKING:
    from clbench.engine.session import Session
    from clbench.engine.step_memory import Activations
    from clbench.stream import Task

CUDA_FINITE_CHECK = 50


class ActivePhase:
    """One phase of one task. Trainability, modes, sampler and optimiser are derived from the plan on every entry.

    part: all of it, or of a phase that forks its trunk or its branch. length: steps to its end; phase_steps: of the
    phase in all; anneal_start: where the branch begins, None where there is none. finished: all steps were taken.
    """

    def __init__(
        self, session: Session, task: Task, number: int, phase: Phase, last: bool, part: Part = "whole"
    ) -> None:
        self.session = session
        self.task = task
        self.number = number
        self.phase = phase
        self.last = last
        self.part: Part = part
        self.finished = False
        self.strategy = session.strategy
        self.step = 0
        self.key = ""
        self.counting = False
        self.activations: Activations | None = None
        self.mixer = None if phase.sources is None else Mixer(session, task, number, phase)
        self._loss_hook = phase.loss or self.strategy.loss
        self._after_step = phase.after_step or self.strategy.after_step
        self._penalised = overrides(self.strategy, "after_backward")
        self._constrain: Callable[[], None] | None = None
        self._bad = torch.zeros((), dtype=torch.bool, device=session.environment.device)

    def begin(self) -> None:
        """`Phase.begin`, on fresh entry."""
        if self.mixer is not None:
            self.mixer.begin()
        if self.phase.begin is None:
            return
        name = f"{self.phase.name}.begin"
        counted = self.session.meters.counted("flops_train")
        with hook(self.strategy, name, self.task.index, self.session.log), counted:
            self.phase.begin()

    def prepare(self, slots: Slots, fresh: bool) -> None:
        """Everything a step reads that is not in a checkpoint; `slots`: the optimiser state to carry or to restore."""
        session, phase = self.session, self.phase
        if phase.inputs is not None:
            session.read_inputs(phase.inputs, phase.name)
        with hook(self.strategy, f"{phase.name}.data", self.task.index, session.log):
            self.samples = phase.data() if callable(phase.data) else phase.data
        self.sampler = Sampler(phase, len(self.samples), session.random, (self.task.index, self.number))
        self.length = self.sampler.length
        if self.mixer is None:
            self._check_single_pass()
        else:
            self.mixer.prepare(self.samples, fresh)
            self.length = self.mixer.length
        self._divide(self.part)
        if phase.update is not None and session.ranks.size > 1:
            raise UserError(f"phase {phase.name!r} does its own updates: it runs on one device (--devices 1)")
        self.parameters = {}
        self.statistics: list[Tensor] = []
        if phase.optimizer is None and session.services.features is not None:
            return
        for name, parameter in session.model.named_parameters():
            if name not in session.builder.frozen:
                fixed = session.services.features is not None and name.startswith("backbone.")
                parameter.requires_grad_(not fixed and (phase.trainable is None or phase.trainable(name)))
        set_mode(session.model, phase.mode)
        if phase.optimizer is None:
            return
        self.parameters = {n: p for n, p in session.model.named_parameters() if p.requires_grad}
        session.trained |= self.parameters.keys()
        self.statistics = running_statistics(session.model)
        self._constrain = getattr(session.model, "constrain", None)
        groups = phase.parameter_groups(self.parameters) if phase.parameter_groups else None
        self.optimizer = build_optimizer(phase.optimizer, groups or [{"params": list(self.parameters.values())}])
        policy = phase.optimizer_state if fresh else "keep"
        if policy != "reset":
            set_slots(self.optimizer, self.parameters, slots, policy)
        branch = 0 if self.anneal_start is None else self.phase_steps - self.anneal_start
        self.rates = Rates(session, self.task, phase, self.phase_steps, branch, self._start)

    def _divide(self, part: Part) -> None:
        """Take the phase's steps apart, `length` of them, into those of the trunk and those of the branch."""
        self.phase_steps = self.length
        branch = 0 if part == "whole" else branch_steps(self.phase, self.phase_steps)
        self.anneal_start = self.phase_steps - branch if branch else None
        self._take(part)

    def _take(self, part: Part) -> None:
        self.part, self.finished = part, False
        trunk = self.phase_steps if self.anneal_start is None else self.anneal_start
        self.first, self.length = (trunk, self.phase_steps) if part == "branch" else (0, trunk)
        inside = self.session.evaluator.plan.steps(trunk)
        self.evaluation_steps: frozenset[int] = frozenset() if part == "branch" else inside

    def branch_off(self) -> None:
        """Go on with the steps of the branch, where the trunk has ended."""
        self._take("branch")

    def leave(self) -> None:
        """Outside phases everything that may be trained is trainable, in train mode, without gradients.

        So hooks between phases find the same on resuming as in an uninterrupted run.
        """
        if self.mixer is not None:
            self.mixer.leave()
        if self.session.keeps_model:
            self.session.builder.release(self.session.model)

    def slots(self) -> Slots:
        """The optimiser's tensors by parameter name; where the phase has no optimiser, those carried through it."""
        if self.phase.optimizer is None:
            return self.session.carried
        return slots_of(self.optimizer, {p: name for name, p in self.session.model.named_parameters()})

    @property
    def _start(self) -> int:
        """The step that this sitting, or this line, begins with."""
        at = self.session.resumed_at
        here = at == self.session.line.at(Stage.PHASE, self.number, at.step)
        return max(self.first, at.step) if here else self.first

    @property
    def steps(self) -> Iterator[int]:
        """The steps still to do, each entered as a position of the run; ends early when a budget is spent.

        After a step `evaluation_due` looks at the budget, and nobody else: where a clock stops training, and what is
        evaluated there, is then the same when the run is repeated with that number of steps. A branch is taken to its
        end: it is no part of that number.
        """
        session = self.session
        for step in range(self._start, self.length):
            spent = session.stopped_at_step is not None or (step == 0 and session.budget_spent())
            if spent and self.part != "branch":
                return
            session.enter(session.line.at(Stage.PHASE, self.number, step))
            self.step = step
            yield step
        self.finished = True

    def batch(self, step: int) -> Batch:
        if self.mixer is not None:
            return self.mixer.batch(step)
        return self.session.services.batch(
            self.samples, self.sampler.positions(step), self.phase.view, self.sampler.epoch(step)
        )

    def update(self, batch: Batch) -> None:
        """Loss, backward, `after_backward`, clip, optimiser step: one update. Gradient-free phases have none."""
        self._reckon(batch)
        if self.phase.optimizer is None:
            return
        for parameter in self.parameters.values():
            parameter.grad = None
        if self.phase.update is not None:
            self._own_update(self.phase.update, batch)
            return
        session, ranks = self.session, self.session.ranks
        with session.count_flops(self, ranks.parts(batch)), ranks.sharing(batch, session.random) as share:
            loss = self._loss(share)
            loss.backward()
        session.loss = ranks.average(self.parameters.values(), self.statistics, loss.detach(), session.interrupted)
        self._check_finite(session.loss)
        if self._penalised:
            with session.count_more(self), hook(self.strategy, "after_backward", self.task.index, self.session.log):
                self.strategy.after_backward(batch)
        if self.phase.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.phase.clip)
        self._set_rates()
        update(self.optimizer)

    def _reckon(self, batch: Batch) -> None:
        """Add the cost of the step that begins, where it is known from another one; else it will be counted."""
        meters = self.session.meters
        self.key = f"{self.task.index}.{self.number}.{len(batch)}"
        self.counting = meters.counts(self.step, self.key)
        if self.counting:
            meters.flops_per_step[self.key] = 0.0
        meters.add("flops_train", meters.flops_per_step[self.key])

    def _set_rates(self) -> None:
        rate = self.rates.at(self.step, annealing=self.part == "branch")
        for group in self.optimizer.param_groups:
            lowest = group.get("min_lr", 0.0)
            group["lr"] = lowest + (group["peak_lr"] - lowest) * rate

    def _own_update(self, update: Callable[[Batch, torch.optim.Optimizer], Tensor], batch: Batch) -> None:
        session = self.session
        self._set_rates()
        counted, called = session.count_flops(self, 1), hook(self.strategy, "update", self.task.index, session.log)
        with counted, called, session.environment.autocast():
            loss = update(batch, self.optimizer)
        session.loss = loss.detach()
        self._check_finite(session.loss)

    def after_step(self, batch: Batch) -> None:
        if self._constrain is not None and self.phase.optimizer is not None:
            self._constrain()
        session = self.session
        session.measure_memory(self)
        called = hook(self.strategy, "after_step", self.task.index, session.log)
        with session.count_more(self), called, torch.no_grad():
            self._after_step(batch)
        session.updates += self.phase.optimizer is not None
        session.stepped(batch)

    def _loss(self, batch: Batch) -> Tensor:
        with hook(self.strategy, "loss", self.task.index, self.session.log):
            with self.session.environment.autocast():
                loss = self._loss_hook(batch)
            if loss is None:
                raise RunFailed(
                    f"strategy {type(self.strategy).__name__}: loss returned None in phase {self.phase.name!r}, "
                    "which has an optimiser"
                )
        return loss

    def _check_single_pass(self) -> None:
        again = self.samples.index is self.task.train.index and self.length > self.sampler.per_epoch
        if self.session.stream.single_pass and again:
            raise UserError(
                f"{self.session.stream.name} is an online stream: one pass over a task's data, "
                f"but phase {self.phase.name!r} takes {self.length} steps of {self.sampler.per_epoch} (set epochs=1)"
            )

    def _check_finite(self, loss: Tensor) -> None:
        """Stop a diverged run; on a GPU looked at every 50 steps, without a synchronisation per step."""
        if loss.device.type == "cuda":
            self._bad |= ~torch.isfinite(loss)
            if self.step % CUDA_FINITE_CHECK and self.step != self.length - 1:
                return
            finite = not bool(self._bad)
        else:
            finite = bool(torch.isfinite(loss))
        if not finite:
            self.session.diverged(self.task.index, self.step, self.phase.name)

    def evaluation_due(self, step: int) -> bool:
        """Whether to evaluate after this step. A task's last evaluation may be the boundary's own: not done twice.
        Inside a branch nothing is evaluated."""
        if self.part == "branch":
            return False
        ends = step + 1 == self.length or self.session.budget_spent()
        if ends and self.last and self.session.evaluator.last_step_is_boundary():
            return False
        return step + 1 in self.evaluation_steps or (ends and bool(self.evaluation_steps))
