"""The kit: which probes are tried on which streams, and in what order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from clbench.conformance.findings import Finding
from clbench.conformance.looks import PositionsLook
from clbench.conformance.needs import declared_needs, gradient_free, is_undeclared, task_id_at_test, use
from clbench.conformance.probes import (
    Subject,
    between_boundaries,
    classes_seen,
    continual_evaluation,
    determinism,
    future_tasks,
    prediction_order,
    predictions,
    resume,
    unread_test_data,
)
from clbench.conformance.trial import Outcome, Trial, short_settings, warm_up
from clbench.errors import UserError
from clbench.registry import load_strategy
from clbench.strategy import Needs

CHECKED = ("classification", "language_modeling")
UNEQUAL = [3, 5, 2]
DIGITS = {"train_per_class": 40, "test_per_class": 20}
Looked = Callable[[Subject, Outcome], Finding]
COMPARING: dict[str, Callable[[Subject], Finding]] = {
    "resume": resume,
    "continual evaluation": continual_evaluation,
    "future tasks": future_tasks,
    "test data": unread_test_data,
}
TEXT = {"tokens": 1536, "context": 16, "eval_blocks": 48}


def check(strategy: str) -> Iterator[Finding]:
    """Every probe of a strategy (a name, or file.py:Class), one after another. Raises UserError where there is none.

    Everything runs in forked children with one thread, in a temporary folder; about ten seconds a stream for a
    strategy that trains small models.
    """
    kind = load_strategy(strategy)
    needs, model = kind.needs, kind.checked_with or ("pixels" if kind.inputs == "features" else "mlp")
    if needs.objectives is not None and not set(needs.objectives) & set(CHECKED):
        own, known = ", ".join(needs.objectives) or "nothing", ", ".join(CHECKED)
        raise UserError(f"strategy {strategy} works with {own}; checked are {known}")
    with TemporaryDirectory(prefix="clbench-check-") as folder:
        settings = short_settings(strategy)
        if needs.objectives is None or "classification" in needs.objectives:
            sized = {**DIGITS, "sizes": UNEQUAL, **kind.checked_on}
            digits = Trial(strategy, "split-digits", sized, settings, Path(folder), model=model)
            yield from _on_digits(digits, needs)
        if needs.objectives is None or "language_modeling" in needs.objectives:
            text = {**TEXT, **kind.checked_on}
            yield from _on_text(Trial(strategy, "text-shift", text, settings, Path(folder), has_classes=False), needs)


def _on_digits(trial: Trial, needs: Needs) -> Iterator[Finding]:
    warm_up(trial)
    whole, name = trial.run(PositionsLook()), "unequal tasks"
    if not whole.error:
        yield Finding(name, trial.stream, "pass", f"tasks of 3, 5 and 2 classes: {len(whole.rows)} rows")
        yield from _probes(Subject(trial, needs, whole))
        return
    if is_undeclared(whole.error):
        yield Finding("declared needs", trial.stream, "fail", whole.error)
        return
    equal = replace(trial, stream_settings={k: v for k, v in trial.stream_settings.items() if k != "sizes"})
    on_equal = equal.run(PositionsLook())
    if on_equal.error:
        yield Finding("runs", trial.stream, "fail", on_equal.error)
        return
    yield Finding(name, trial.stream, "fail", f"tasks of 3, 5 and 2 classes, unlike equal ones: {whole.error}")
    yield from _probes(Subject(equal, needs, on_equal))


def _on_text(trial: Trial, needs: Needs) -> Iterator[Finding]:
    warm_up(trial)
    whole = trial.run(PositionsLook())
    if whole.error:
        yield Finding("declared needs" if is_undeclared(whole.error) else "runs", trial.stream, "fail", whole.error)
        return
    yield from _probes(Subject(trial, needs, whole))


def _probes(subject: Subject) -> Iterator[Finding]:
    """Every probe but the first, on a stream that the strategy runs on."""
    yield from _tried(subject, use, {"declared needs": declared_needs, "gradient free": gradient_free})
    yield task_id_at_test(subject)
    looked: dict[str, Looked] = {"prediction order": prediction_order, "between boundaries": between_boundaries}
    if subject.trial.has_classes:
        looked["classes seen"] = classes_seen
    yield from _tried(subject, predictions, looked)
    first = determinism(subject)
    yield first
    for name, probe in COMPARING.items():
        if first.status == "fail":
            yield subject.finding(name, "skip", "two equal runs differ: nothing to compare with")
        else:
            yield probe(subject)


def _tried(subject: Subject, look: Callable[[Subject], Outcome], judged: dict[str, Looked]) -> Iterator[Finding]:
    """Probes that share one run. The run itself fails where the extra calls of the kit do."""
    outcome = look(subject)
    if not outcome.error:
        yield from (probe(subject, outcome) for probe in judged.values())
        return
    first, *others = judged
    yield subject.finding(first, "fail", outcome.error)
    yield from (subject.finding(name, "skip", f"{first} failed") for name in others)
