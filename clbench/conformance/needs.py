"""Whether a strategy declares what it uses, and uses what it declares."""

from __future__ import annotations

from collections.abc import Iterator

from clbench.conformance.findings import Finding
from clbench.conformance.looks import UseLook
from clbench.conformance.probes import Subject
from clbench.conformance.trial import Outcome
from clbench.engine.hooks import BOUNDARY_HOOKS
from clbench.registry import load_strategy
from clbench.strategy import Strategy

UNDECLARED = ("without declaring it", "but declares task_boundaries=False", "declares gradient_free, but")
NAME = "declared needs"


def is_undeclared(error: str | None) -> bool:
    """Whether a run failed because the engine refused a use that is not declared."""
    return error is not None and any(words in error for words in UNDECLARED)


def use(subject: Subject) -> Outcome:
    """The run that notes what is used."""
    return subject.trial.run(UseLook())


def declared_needs(subject: Subject, look: Outcome) -> Finding:
    """Nothing undeclared is used or stored; what is declared and not used is a warning."""
    for kind, where, count, task in look.notes["stored"]:
        if not getattr(subject.needs, f"stores_{kind}"):
            evidence = f"{where} holds {kind} of {count} training samples in task {task}; declare stores_{kind}=True"
            return subject.finding(NAME, "fail", evidence)
    unused = list(_unused(subject, look))
    if unused:
        return subject.finding(NAME, "warn", f"declared and not used: {', '.join(unused)}")
    used = [f"{name}={value}" for name, value in _declared(subject)]
    return subject.finding(NAME, "pass", f"uses what it declares: {', '.join(used) or 'nothing'}")


def gradient_free(subject: Subject, look: Outcome) -> Finding:
    """No optimiser and no gradients if, and only if, gradient_free is declared."""
    name = "gradient free"
    phase, gradients = look.notes["optimised"], look.notes["gradients"]
    if subject.needs.gradient_free and gradients:
        evidence = f"declares gradient_free, but gradients are computed {gradients} times"
        return subject.finding(name, "fail", evidence)
    if not subject.needs.gradient_free and not phase and not gradients:
        return subject.finding(name, "warn", "no phase has an optimiser: gradient_free=True could be declared")
    words = "no optimiser, no gradients" if subject.needs.gradient_free else "trained by gradients"
    return subject.finding(name, "pass", f"{words}, as declared")


def task_id_at_test(subject: Subject) -> Finding:
    """A strategy that declares it takes the task's index in predict."""
    name = "task id at test"
    if not subject.needs.task_id_at_test:
        return subject.finding(name, "skip", "not declared")
    if not subject.trial.has_classes:
        return subject.finding(name, "skip", "the stream has no task-incremental form")
    outcome = subject.trial.run(stream_settings={**subject.trial.stream_settings, "scenario": "task"})
    if outcome.error:
        return subject.finding(name, "fail", f"on a task-incremental stream: {outcome.error}")
    return subject.finding(name, "pass", "runs on a task-incremental stream")


def _declared(subject: Subject) -> Iterator[tuple[str, bool]]:
    names = ("stores_samples", "stores_features", "sees_all_data", "knows_horizon", "task_boundaries")
    yield from ((name, True) for name in names if getattr(subject.needs, name))


def _unused(subject: Subject, look: Outcome) -> Iterator[str]:
    used, stored = look.notes["used"], {kind for kind, *_ in look.notes["stored"]}
    for need in ("sees_all_data", "knows_horizon", "stores_samples"):
        if getattr(subject.needs, need) and need not in used and need.removeprefix("stores_") not in stored:
            yield need
    if subject.needs.stores_features and "features" not in stored:
        yield "stores_features"
    kind = load_strategy(subject.trial.strategy)
    hooks = any(getattr(kind, name) is not getattr(Strategy, name) for name in BOUNDARY_HOOKS)
    if subject.needs.task_boundaries and not hooks and not look.notes["fields"]:
        yield "task_boundaries (no hook of a task's begin or end, nothing of a task but its data is read)"
