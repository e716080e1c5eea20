"""Evaluation: all sets in one pass over balanced chunks; rows for the table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from clbench.engine.cost import FlopCount
from clbench.engine.cursor import Line
from clbench.engine.faults import fault_point
from clbench.engine.grid import Plan, subset_size
from clbench.engine.hooks import hook, overrides
from clbench.engine.pools import ranks_in_class
from clbench.errors import RunFailed
from clbench.rng import derive_seed
from clbench.samples import Samples
from clbench.stream import EvalSet
from clbench.table import Row

if TYPE_CHECKING:
    from clbench.engine.session import Session

CHUNK = 64
CHUNK_STEP = 16
SMALLEST_CHUNK = 32
Values = dict[str, Tensor]
Scored = Mapping[str, Tensor | None]
Kind = Literal["boundary", "trace"]
Weights = Literal["deploy", "train", "anneal"]


class Evaluator:
    """Scores the strategy on the stream's sets: whole at boundaries, on a fixed subset in between.

    `at_switch` holds each set's per-sample values on the subset at the last switch (float32): the other half of the
    paired differences whose standard error the trace rows carry. It is part of the checkpoint. `values` are those of
    the latest evaluation, float32 [n] for every row of the primary metric that has a value.
    """

    def __init__(self, session: Session, plan: Plan) -> None:
        self.session = session
        self.plan = plan
        self.at_switch: Values = {}
        self.values: list[Tensor] = []
        self.flops_per_text = 0.0
        even, content = session.objective.scores_whole, session.stream.content
        self.subsets = {
            s.name: _subset(content, s, min(plan.subset, subset_size(s)) if even else plan.subset, even)
            for s in session.stream.eval_sets
        }

    def boundary(self, step: int, tasks_seen: int, repeats: bool, line: Line) -> list[Row]:
        """Rows of all sets, whole, and the trace rows of the subset at this switch, which cost nothing more.

        repeats: steps were taken since the last evaluation; where the strategy does nothing in `end_task`, the trace
        row of the last of them is the same evaluation and is written here. line: of a task that forks, the branch's
        rows are of weights `anneal`, the trunk's of weights `train`, and the switch is the line's that is kept.
        """
        with self.session.meters.seconds("seconds_evaluate"):
            sets = self.session.stream.eval_sets
            self.values = []
            self.session.meters.flops_per_evaluation = None
            values = self._values(sets, None)
            rows: list[Row] = []
            if line.view != "trunk":
                deployed: Weights = "anneal" if line.view == "branch" else "deploy"
                rows += self._rows("boundary", step, tasks_seen, values, {}, deployed)
            merged = overrides(self.session.strategy, "deploy")
            if line.view == "trunk" or (merged and line.view == "whole"):
                trained = self._values(sets, None, deployed=False) if merged else values
                rows += self._rows("boundary", step, tasks_seen, trained, {}, "train")
            if self.plan.points != 0:
                traced = {
                    s.name: v[self.subsets[s.name]]
                    for s in self._traced(tasks_seen)
                    if (v := values[s.name]) is not None
                }
                if repeats and line.view != "branch" and self.last_step_is_boundary():
                    rows += self._rows("trace", step, tasks_seen - 1, traced, self.at_switch)
                if line.kept:
                    self.at_switch = {name: value.clone() for name, value in traced.items()}
                    rows += self._rows("trace", step, tasks_seen, traced, {})
            return rows

    def last_step_is_boundary(self) -> bool:
        """Whether a task's last trace evaluation would repeat the boundary's: nothing happens in between."""
        return not overrides(self.session.strategy, "end_task")

    def trace(self, step: int, tasks_seen: int) -> list[Row]:
        """Rows of the subset of every set seen, of the current task's and of the held-out ones."""
        with self.session.meters.seconds("seconds_evaluate", "seconds_trace"):
            self.values = []
            values = self._values(self._traced(tasks_seen + 1), self.subsets)
            return self._rows("trace", step, tasks_seen, values, self.at_switch)

    def diverged(self, step: int, tasks_seen: int) -> list[Row]:
        """Trace rows of NaN: the run ended inside a task, without weights to score."""
        self.values = []
        if self.plan.points == 0:
            return []
        nothing = {s.name: torch.full((len(self.subsets[s.name]),), math.nan) for s in self._traced(tasks_seen + 1)}
        return self._rows("trace", step, tasks_seen, nothing, {})

    def _traced(self, tasks: int) -> list[EvalSet]:
        return [s for s in self.session.stream.eval_sets if s.belongs_to is None or s.belongs_to < tasks]

    # -- values --------------------------------------------------------------------------------------------------

    def _values(
        self, sets: Sequence[EvalSet], subsets: Values | None, deployed: bool = True
    ) -> dict[str, Tensor | None]:
        """Per-sample values of each set, float32 on the CPU; None for a set that cannot be scored."""
        session = self.session
        n_classes = session.n_classes()
        scorable = [s for s in sets if session.objective.scorable(s, n_classes)]
        values: dict[str, Tensor | None] = {s.name: None for s in sets}
        whole = session.objective.scores_whole
        with self.evaluating(deployed):
            self._prepare(scorable)
            for group in self._groups(scorable):
                values |= self._whole(group, subsets) if whole else self._one_pass(group, subsets)
        return values

    def _prepare(self, sets: Sequence[EvalSet]) -> None:
        """What the objective predicts once for all samples of these sets: texts of classes. Its FLOPs count whether it
        is known from an earlier evaluation or not, so that they do not depend on where a run was resumed."""
        session = self.session
        same = None if overrides(session.strategy, "predict") else getattr(session.model, "text_key", None)
        key = None if same is None else same()
        asked = session.objective.prepare_scoring(sets, self._texts, key)
        session.meters.add("flops_evaluate", self.flops_per_text * asked)

    def _texts(self, x: Any) -> Any:
        """What `predict` makes of inputs that are no samples, in chunks."""
        parts: list[Tensor] = []
        for filled, n in chunks(len(x)):
            with FlopCount() if not parts else nullcontext() as count:
                outputs = self._called(x[filled].to(self.session.environment.device), len(filled), {})
            if count is not None:
                self.flops_per_text = count.flops / len(filled)
            parts.append(outputs[:n])
        return torch.cat(parts)

    def _groups(self, sets: list[EvalSet]) -> list[list[EvalSet]]:
        """Sets that can share a pass: those of one pool, unless `predict` is given the task's index."""
        if self.session.gives_task_id:
            return [[s] for s in sets]
        pools: dict[int, list[EvalSet]] = {}
        for s in sets:
            pools.setdefault(id(s.data.pool), []).append(s)
        return list(pools.values())

    def _one_pass(self, sets: list[EvalSet], subsets: Values | None) -> dict[str, Tensor | None]:
        """One sequence of chunks over the rows of several sets."""
        positions = [torch.arange(len(s.data)) if subsets is None else subsets[s.name] for s in sets]
        index = torch.cat([s.data.index[p] for s, p in zip(sets, positions, strict=True)])
        owner = torch.cat([torch.full((len(p),), i) for i, p in enumerate(positions)])
        values = torch.zeros(len(index))
        samples = Samples(sets[0].data.pool, index)
        ranks = self.session.ranks
        for number, (filled, n) in enumerate(chunks(len(index), self.session.objective.chunk)):
            if number % ranks.size == 0:
                self.session.evaluating()
            if number % ranks.size != ranks.rank:
                self._count(len(filled), n)
                continue
            outputs, y = self._predict(samples, filled, n, sets[0])
            rows = filled[:n]
            for i in owner[rows].unique().tolist():
                mine = owner[rows] == i
                scores = self.session.objective.scores(outputs[mine], y[mine], sets[i])
                values[rows[mine]] = scores.float().cpu()
            fault_point("evaluate")
        values = ranks.combined(values)
        return {s.name: values[owner == i] for i, s in enumerate(sets)}

    def _whole(self, sets: list[EvalSet], subsets: Values | None) -> dict[str, Tensor | None]:
        """Answers to the rows of several sets, each asked once, and then the sets' values."""
        session, ranks = self.session, self.session.ranks
        objective = session.objective
        positions = [torch.arange(len(s.data)) if subsets is None else subsets[s.name] for s in sets]
        parts = [s.data.subset(p) for s, p in zip(sets, positions, strict=True)]
        index, place = torch.cat([part.index for part in parts]).unique(return_inverse=True)
        samples = Samples(sets[0].data.pool, index)
        todo = list(chunks(len(index), objective.chunk))
        divided = len(todo) >= ranks.size
        answers = None
        for number, (filled, n) in enumerate(todo):
            if number % ranks.size == 0 or not divided:
                session.evaluating()
            if divided and number % ranks.size != ranks.rank:
                self._count(len(filled), n)
                continue
            x = objective.asked(session.services.batch(samples, filled, "plain").x)
            with self._measured(len(filled)):
                found = objective.answers(self._called(x, len(filled), {}))[:n].float()
            self._count(len(filled), n)
            answers = found.new_zeros(len(index), *found.shape[1:]) if answers is None else answers
            answers[filled[:n]] = found
            fault_point("evaluate")
        assert answers is not None
        answers = ranks.combined(answers) if divided else answers
        mine = place.split([len(part) for part in parts])
        return {
            s.name: objective.score_whole(answers[rows.to(answers.device)], part, s).float().cpu()
            for s, part, rows in zip(sets, parts, mine, strict=True)
        }

    def _predict(self, samples: Samples, rows: Tensor, n: int, eval_set: EvalSet) -> tuple[Tensor, Tensor]:
        """Outputs and targets of the first `n` of these rows."""
        session = self.session
        batch = session.services.batch(samples, rows, "plain")
        keywords = {"task": eval_set.belongs_to} if session.gives_task_id else {}
        with self._measured(len(rows)):
            outputs = self._called(batch.x, len(rows), keywords)
        self._count(len(rows), n)
        return outputs[:n].float(), batch.y[:n]

    def _called(self, x: Any, n: int, keywords: dict[str, Any]) -> Any:
        """What the strategy predicts of `n` inputs."""
        session = self.session
        with hook(session.strategy, "predict", session.services.task, session.log):
            with session.environment.autocast():
                outputs = session.strategy.predict(x, **keywords)
            if outputs.shape[0] != n:
                raise RunFailed(
                    f"strategy {type(session.strategy).__name__}: predict returned {tuple(outputs.shape)} for "
                    f"{n} inputs"
                )
        return outputs

    def _count(self, rows: int, n: int) -> None:
        """A chunk of `rows` rows, `n` of which count, was evaluated here or by another rank."""
        meters = self.session.meters
        meters.add("flops_evaluate", (meters.flops_per_evaluation or 0.0) * rows)
        meters.add("samples_evaluate", n)

    @contextmanager
    def _measured(self, n: int) -> Iterator[None]:
        """FLOPs: counted on a boundary's first chunk, multiplied by the samples until the next boundary."""
        meters = self.session.meters
        if meters.flops_per_evaluation is None:
            with FlopCount() as count:
                yield
            meters.flops_per_evaluation = count.flops / n
        else:
            yield

    @contextmanager
    def evaluating(self, deployed: bool) -> Iterator[None]:
        """Eval mode, no gradients, the deployed weights; everything as it was afterwards."""
        session = self.session
        if not session.keeps_model:
            with torch.no_grad():
                yield
            return
        model = session.model
        modes = {name: module.training for name, module in model.named_modules()}
        other = None
        if deployed:
            with hook(session.strategy, "deploy", session.services.task, session.log):
                other = session.strategy.deploy()
        trained = {k: v.clone() for k, v in model.state_dict().items() if k in other} if other else {}
        model.eval()
        try:
            if other:
                model.load_state_dict(other, strict=False)
            with torch.no_grad():
                yield
        finally:
            if trained:
                model.load_state_dict(trained, strict=False)
            for name, module in model.named_modules():
                module.training = modes[name]

    # -- rows ----------------------------------------------------------------------------------------------------

    def _rows(
        self, kind: Kind, step: int, tasks_seen: int, values: Scored, paired: Values, weights: Weights = "deploy"
    ) -> list[Row]:
        objective, n_classes = self.session.objective, self.session.n_classes()
        sets = {s.name: s for s in self.session.stream.eval_sets}
        rows = []
        for name, per_sample in values.items():
            row = Row(
                step=step,
                tasks_seen=tasks_seen,
                eval_set=name,
                value=None,
                n=len(sets[name].data) if per_sample is None else len(per_sample),
                belongs_to=sets[name].belongs_to,
                kind=kind,
                metric=objective.primary,
                weights=weights,
                role=sets[name].role,
            )
            if per_sample is None:
                rows.append(row)
                continue
            self.values.append(per_sample)
            value = per_sample.double().mean().item()
            se = _paired_error(per_sample, paired.get(name))
            rows.append(replace(row, value=value, se=se, base=objective.base(sets[name], n_classes)))
            if kind == "boundary":
                further = objective.further(value, sets[name])
                rows += [replace(row, value=other, metric=metric) for metric, other in further.items()]
        return rows


def chunks(n: int, largest: int = CHUNK) -> Iterator[tuple[Tensor, int]]:
    """Positions 0..n-1 in chunks of `largest`, each with the number of its leading ones that count.

    A last, smaller chunk is filled up with repetitions to a multiple of 16, at least 32: results do not depend on the
    size of a chunk of images from 32 on, and a kernel library prepares itself anew for every new size.
    """
    for start in range(0, n, largest):
        rows = torch.arange(start, min(n, start + largest))
        size = min(largest, max(SMALLEST_CHUNK, math.ceil(len(rows) / CHUNK_STEP) * CHUNK_STEP))
        yield rows[torch.arange(size) % len(rows)], len(rows)


def _paired_error(values: Tensor, before: Tensor | None) -> float | None:
    if before is None or len(values) < 2:
        return None
    difference = (values - before).double()
    return (difference.std() / math.sqrt(len(values))).item()


def _subset(content: str, eval_set: EvalSet, size: int, even: bool) -> Tensor:
    """The first `size` of a permutation fixed by the stream and the set: shared by all runs of the stream. even: as
    many of each class, or all where it has fewer. A retrieval set is taken whole: how hard it is depends on its
    size."""
    if eval_set.kind == "retrieval":
        return torch.arange(len(eval_set.data))
    generator = torch.Generator()
    generator.manual_seed(derive_seed(0, "evaluation-subset", content, eval_set.name))
    order = torch.randperm(len(eval_set.data), generator=generator)
    if even:
        labels = eval_set.data.labels[order]
        order = order[ranks_in_class(torch.arange(len(order)), labels).argsort(stable=True)]
    return order[:size].sort().values
