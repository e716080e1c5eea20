"""The probes: each answers one question about a strategy, with one line of evidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from clbench.conformance.altered import COMMON, no_future, other_future, other_test_data
from clbench.conformance.elsewhere import elsewhere
from clbench.conformance.findings import Finding, Status
from clbench.conformance.looks import PredictionLook, PrefixLook, ResumedLook
from clbench.conformance.trial import SAVE_EVERY, Outcome, Trial
from clbench.strategy import Needs
from clbench.table import Row

TOLERANCE = 1e-4


@dataclass
class Subject:
    """A strategy on a stream: what it declares, and a whole run of it that the others are compared with."""

    trial: Trial
    needs: Needs
    whole: Outcome

    def finding(self, probe: str, status: Status, evidence: str) -> Finding:
        return Finding(probe, self.trial.stream, status, " ".join(evidence.split()))


def determinism(subject: Subject) -> Finding:
    """Two runs are equal, the second in a new interpreter, where `hash()` of a text is another."""
    difference = subject.whole.difference(elsewhere(subject.trial))
    if difference:
        hint = "draw from torch's global generator or self.generator(...), never from time or hash()"
        return subject.finding("determinism", "fail", f"two runs of one specification: {difference}; {hint}")
    evidence = f"two runs: equal state, {len(subject.whole.rows)} equal rows, equal metrics"
    return subject.finding("determinism", "pass", evidence)


# -- resuming ----------------------------------------------------------------------------------------------------


def resume(subject: Subject) -> Finding:
    """Killed in a phase, between phases and in end_task, then resumed, it ends as the uninterrupted run.

    One that declares "task" or "none" is taken up at a task's border, or runs again from the beginning.
    """
    done, spared = [], set()
    for words, fault in _faults(subject.whole.notes["visits"]):
        folder = subject.trial.killed(fault)
        if folder is None:
            continue
        look = ResumedLook()
        outcome = subject.trial.resumed(folder, look)
        lost = _not_restored(subject.whole, outcome)
        difference = subject.whole.difference(outcome)
        if difference:
            names = f"; not restored: {', '.join(lost)} (keep it in self.state)" if lost else ""
            return subject.finding("resume", "fail", f"killed {words} and resumed: {difference}{names}")
        done.append(words)
        spared |= set(lost)
    if not done:
        return subject.finding("resume", "skip", "the run has no position to be killed at")
    without = f"; not restored, without effect: {', '.join(sorted(spared))}" if spared else ""
    again = {"task": " (its task begun again, as declared)", "none": " (the run begun again, as declared)"}
    words = f"killed {', '.join(done)}: equal state, table and metrics{again.get(subject.needs.resume, '')}{without}"
    return subject.finding("resume", "pass", words)


def _faults(visits: list[list]) -> Iterator[tuple[str, str]]:
    """Where to kill, in words and as a fault point: counted, as fault points are, over the whole run."""
    steps = [step for name, _, step in visits if name == "phase"]
    wanted = len(steps) * 3 // 5
    inside = [i for i, step in enumerate(steps) if step > SAVE_EVERY and step % SAVE_EVERY == SAVE_EVERY - 1]
    if inside:
        step = min(inside, key=lambda i: abs(i - wanted))
        yield f"at step {step + 1}", f"phase:{step + 1}"
    begins = [task for name, task, _ in visits if name == "phase-begin"]
    later = [i for i, task in enumerate(begins) if i and begins[i - 1] == task] or list(range(1, len(begins)))
    if later:
        yield "between phases", f"phase-begin:{later[len(later) // 2] + 1}"
    ends = sum(name == "end_task" for name, *_ in visits)
    if ends:
        yield "in end_task", f"end_task:{min(2, ends)}"


def _not_restored(whole: Outcome, outcome: Outcome) -> list[str]:
    """The strategy's own attributes that were other before the kill than they are after resuming."""
    before = whole.notes["attributes"].get(outcome.notes.get("at"))
    if before is None:
        return []
    after = outcome.notes["attributes"]
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


# -- evaluation --------------------------------------------------------------------------------------------------


def continual_evaluation(subject: Subject) -> Finding:
    """Evaluating at every step, or never inside a task, leaves the final state as it is."""
    if not subject.needs.predicts_between_boundaries:
        return subject.finding("continual evaluation", "skip", "declares predicts_between_boundaries=False")
    for grid, words in (("none", "off"), ("1", "at every step")):
        outcome = subject.trial.run(eval_grid=grid)
        if outcome.error or outcome.state != subject.whole.state:
            what = outcome.error or "another final state: predict or deploy changes what training reads"
            return subject.finding("continual evaluation", "fail", f"{words}: {what}")
    evidence = "off, at every fourth and at every step: equal final states"
    return subject.finding("continual evaluation", "pass", evidence)


def prediction_order(subject: Subject, look: Outcome) -> Finding:
    """A sample's scores depend on the sample: not on its neighbours, their order or number."""
    orders, alone = look.notes["orders"], look.notes["alone"]
    changed = [f"{name} (by up to {largest:.3g})" for name, largest in orders.items() if largest]
    if changed:
        evidence = f"scores of the same samples differ {', '.join(changed)}: something is computed over a test batch"
        return subject.finding("prediction order", "fail", evidence)
    largest, scale = alone
    if not largest <= TOLERANCE * scale:
        evidence = f"scores of a sample alone differ by up to {largest:.3g}: something is computed over a test batch"
        return subject.finding("prediction order", "fail", evidence)
    evidence = f"{len(orders)} orders and chunk sizes: bit-equal scores; batch size 1: within {largest:.2g}"
    return subject.finding("prediction order", "pass", evidence)


def classes_seen(subject: Subject, look: Outcome) -> Finding:
    """After a task, predict scores the classes seen so far and no others."""
    widths = look.notes["widths"]
    for task, shape, classes in widths:
        if shape[1] != classes:
            evidence = f"after task {task} predict gives {shape[1]} columns; {classes} classes were seen"
            return subject.finding("classes seen", "fail", evidence)
    found = ", ".join(str(shape[1]) for _, shape, _ in widths)
    return subject.finding("classes seen", "pass", f"columns after the tasks: {found}")


def between_boundaries(subject: Subject, look: Outcome) -> Finding:
    """Predictions move while a task is trained if, and only if, that is declared."""
    name, declared = "between boundaries", subject.needs.predicts_between_boundaries
    moved, unable = look.notes["moved"], look.notes["unable"]
    if declared and unable:
        return subject.finding(name, "fail", f"declares predicts_between_boundaries, but inside a task: {unable}")
    if declared and not moved:
        evidence = "predictions never change inside a task: declare predicts_between_boundaries=False"
        return subject.finding(name, "fail", evidence)
    if not declared and moved and not unable:
        evidence = "predictions change inside tasks: predicts_between_boundaries=False could be left out"
        return subject.finding(name, "warn", evidence)
    evidence = "predictions change inside tasks" if declared else "predictions change at boundaries alone"
    return subject.finding(name, "pass", f"{evidence}, as declared")


# -- leaks -------------------------------------------------------------------------------------------------------


def future_tasks(subject: Subject) -> Finding:
    """What is learned and predicted up to a task does not depend on later ones."""
    name, needs = "future tasks", subject.needs
    if needs.sees_all_data or needs.knows_horizon:
        declared = "sees_all_data" if needs.sees_all_data else "knows_horizon"
        return subject.finding(name, "skip", f"declares {declared}")
    original = subject.trial.run(PrefixLook())
    changes = {"with other data and labels in the later tasks": other_future, "without the later tasks": no_future}
    for words, alter in changes.items():
        outcome = subject.trial.run(PrefixLook(), alter=alter)
        if "state" not in outcome.notes:
            return subject.finding(name, "fail", f"{words} it fails: {outcome.error}")
        rows, expected = _prefix(outcome.rows), _prefix(original.rows)
        different = sum(a != b for a, b in zip(rows, expected, strict=False)) + abs(len(rows) - len(expected))
        if different:
            evidence = f"{words}, {different} of {len(expected)} rows of the first {COMMON} tasks are others"
            return subject.finding(name, "fail", evidence)
        if outcome.notes["state"] != original.notes["state"]:
            return subject.finding(name, "fail", f"{words}, the state after the first {COMMON} tasks is another")
    evidence = f"with other later tasks, or none: equal state and rows of the first {COMMON} tasks"
    return subject.finding(name, "pass", evidence)


def _prefix(rows: list[str]) -> list[Row]:
    """Rows of the common tasks' sets, up to the last common boundary."""
    table = [Row.from_json(row) for row in rows]
    ends = [r.step for r in table if r.kind == "boundary" and r.tasks_seen == COMMON]
    last = min(ends) if ends else -1
    return [
        r
        for r in table
        if r.step <= last and r.tasks_seen <= COMMON and r.belongs_to is not None and r.belongs_to < COMMON
    ]


def unread_test_data(subject: Subject) -> Finding:
    """Other test labels (of text: other test blocks) leave the trained state as it is."""
    outcome = subject.trial.run(alter=other_test_data)
    if outcome.error or outcome.state != subject.whole.state:
        what = outcome.error or "another final state: test data reach training"
        return subject.finding("test data", "fail", f"with other test labels: {what}")
    if outcome.rows == subject.whole.rows:
        return subject.finding("test data", "skip", "the scores do not depend on the labels")
    return subject.finding("test data", "pass", "with other test labels: equal final state")


def predictions(subject: Subject) -> Outcome:
    """The run that looks at predictions."""
    return subject.trial.run(PredictionLook())
