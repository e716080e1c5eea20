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
from clbench.conformance.trial import Outcome, Trial, first_run, short_settings
from clbench.errors import UserError, did_you_mean
from clbench.models import describe
from clbench.registry import load_strategy
from clbench.strategy import Needs, Strategy

CHECKED = ("classification", "language_modeling", "contrastive")
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
PAIRS = {
    "sets": ["stripes:noisy"],
    "held_out": ["stripes:coloured"],
    "pretraining": ["stripes:clean"],
    "tasks": 3,
    "mixture": [0, 1, 0],
    "train_per_concept": 12,
    "test_per_concept": 5,
    "pool_per_concept": 6,
}
SMALL_CLIP = "micro-clip?pretrained=false,width=16"


def check(strategy: str, objective: str | None = None) -> Iterator[Finding]:
    """Every probe of a strategy (a name, or file.py:Class), one after another. Raises UserError where there is none.

    objective: the only one it is tried on; None: all that it works with. Everything runs in forked children with one
    thread, in a temporary folder; ten to twenty seconds a stream for a strategy that trains small models.
    """
    needs = load_strategy(strategy).needs
    tried = _tried_on(strategy, needs, objective)
    with TemporaryDirectory(prefix="clbench-check-") as folder:
        for name in tried:
            trial = trial_on(name, strategy, Path(folder))
            yield from _on_digits(trial, needs) if trial.has_classes else _on_others(trial, needs)


def trial_on(objective: str, strategy: str, folder: Path) -> Trial:
    """The strategy on the kit's stream of an objective."""
    kind, settings = load_strategy(strategy), short_settings(strategy)
    if objective == "classification":
        model = _model(kind, "image", "pixels" if kind.inputs == "features" else "mlp")
        sized = {**DIGITS, "sizes": UNEQUAL, **kind.checked_on}
        return Trial(strategy, "split-digits", sized, settings, folder, model=model)
    if objective == "language_modeling":
        model = _model(kind, "tokens", None)
        return Trial(strategy, "text-shift", {**TEXT, **kind.checked_on}, settings, folder, False, model)
    model = _model(kind, "pairs", SMALL_CLIP)
    return Trial(strategy, "fomo", {**PAIRS, **kind.checked_on}, settings, folder, False, model)


def _tried_on(strategy: str, needs: Needs, objective: str | None) -> list[str]:
    """The objectives that it works with, or the one that is asked for. Raises UserError where nothing is left."""
    if objective is not None and objective not in CHECKED:
        raise UserError(f"unknown objective {objective!r}{did_you_mean(objective, CHECKED)}")
    works_with = CHECKED if needs.objectives is None else needs.objectives
    tried = [name for name in CHECKED if name in works_with and objective in (None, name)]
    if not tried:
        own, asked = ", ".join(works_with) or "nothing", objective or ", ".join(CHECKED)
        raise UserError(f"strategy {strategy} works with {own}; to be checked: {asked}")
    return tried


def _model(kind: type[Strategy], takes: str, other: str | None) -> str | None:
    """The model that the strategy names, if it takes such inputs; else another."""
    return kind.checked_with if kind.checked_with and describe(kind.checked_with).kind == takes else other


def _on_digits(trial: Trial, needs: Needs) -> Iterator[Finding]:
    whole, name = first_run(trial, PositionsLook()), "unequal tasks"
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


def _on_others(trial: Trial, needs: Needs) -> Iterator[Finding]:
    whole = first_run(trial, PositionsLook())
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
