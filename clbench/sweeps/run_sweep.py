"""A sweep being run: the jobs of a plan through an engine, into journal, display and tracking."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from clbench.errors import ClbenchError, RunFailed
from clbench.record import now, strategy_label
from clbench.sweeps.job import Ended, Engine, Event, Job, Note, Started, Status
from clbench.sweeps.journal import Journal
from clbench.sweeps.plan import Plan, Planned
from clbench.sweeps.schedule_report import Busy, Occupation, occupation

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Display(Protocol):
    """Shows a sweep while it lasts."""

    def event(self, event: Event) -> None: ...

    def note(self, text: str) -> None: ...


class Tracking(Protocol):
    """Logs runs somewhere, as they end."""

    def run_ended(self, folder: Path) -> None: ...

    def close(self, report: dict[str, Any]) -> None: ...


@dataclass
class Outcome:
    """A run of the suite after the sweep. before: it was complete already. seconds: None where it was not run."""

    planned: Planned
    status: Status
    folder: Path | None
    error: str | None = None
    seconds: float | None = None
    attempts: int = 0
    before: bool = False

    def as_dict(self) -> dict[str, Any]:
        spec = self.planned.job.spec
        return {
            "number": self.planned.job.number,
            "label": self.planned.job.label,
            "strategy": strategy_label(spec.strategy),
            "stream": strategy_label(spec.stream),
            "settings": self.planned.settings,
            "seed": spec.seed,
            "order_seed": spec.order_seed,
            "status": self.status,
            "before": self.before,
            "folder": None if self.folder is None else str(self.folder),
            "error": self.error,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "attempts": self.attempts,
        }


@dataclass
class SweepResult:
    """What a sweep came to. failure: why the engine itself gave up, where it did."""

    name: str
    folder: Path
    engine: str
    started: str
    outcomes: list[Outcome]
    seconds: float
    interrupted: bool
    occupation: Occupation
    failure: ClbenchError | None = None
    finished: str = field(default_factory=now)

    def count(self, *statuses: Status) -> int:
        return sum(outcome.status in statuses for outcome in self.outcomes)

    @property
    def exit_code(self) -> int:
        """0 all runs are done, 1 some failed or diverged, 130 interrupted."""
        if self.interrupted and self.count("interrupted"):
            return 130
        return 0 if self.count("completed") == len(self.outcomes) else 1

    def as_dict(self) -> dict[str, Any]:
        """What `report.json` holds."""
        statuses: tuple[Status, ...] = ("completed", "failed", "diverged", "interrupted")
        return {
            "name": self.name,
            "status": {0: "completed", 130: "interrupted"}.get(self.exit_code, "failed"),
            "engine": self.engine,
            "started": self.started,
            "finished": self.finished,
            "seconds": round(self.seconds, 3),
            "counts": {status: self.count(status) for status in statuses},
            "before": sum(outcome.before for outcome in self.outcomes),
            "error": str(self.failure) if self.failure else None,
            "scheduling": self.occupation.as_dict(),
            "runs": [outcome.as_dict() for outcome in self.outcomes],
        }


def run_sweep(
    plan: Plan,
    engine: Engine,
    engine_name: str,
    journal: Journal,
    display: Display,
    tracking: Tracking | None = None,
    seconds: Mapping[int, float] | None = None,
) -> SweepResult:
    """Run what is left of a plan; the longest jobs first where `seconds` (by job number) are known.

    Ctrl-C or SIGTERM: no job is started any more, and those under way are saved; a second one kills them. A failing run
    does not stop the others. The report is written whatever happens.
    """
    following = _Following(plan, journal, display, tracking)
    jobs = longest_first(plan.jobs, seconds or {})
    journal.line("begin", engine=engine_name, jobs=len(jobs), done=len(plan.runs) - len(jobs))
    started, clock, stop = now(), time.perf_counter(), threading.Event()
    failure: ClbenchError | None = None
    events = engine.run(jobs, plan.out, stop)
    with _stopping(stop, display.note):
        try:
            for event in events:
                following.event(event, time.perf_counter() - clock)
        except KeyboardInterrupt:
            display.note("interrupted at once; what was saved is kept")
        except ClbenchError as error:
            failure = error
        finally:
            close: Callable[[], None] = getattr(events, "close", lambda: None)
            close()
            wall = time.perf_counter() - clock
    result = SweepResult(
        name=plan.suite.name,
        folder=journal.folder,
        engine=engine_name,
        started=started,
        outcomes=following.outcomes(),
        seconds=wall,
        interrupted=stop.is_set(),
        occupation=occupation(following.busy, following.lanes, wall),
        failure=failure,
    )
    report = result.as_dict()
    try:
        journal.keep("report.json", report)
    except ClbenchError as error:
        result.failure = result.failure or RunFailed(str(error))
    journal.line("end", status=report["status"], counts=report["counts"])
    following.end(report)
    return result


def longest_first(jobs: Sequence[Job], seconds: Mapping[int, float]) -> list[Job]:
    """By estimate; those without one come first, in their order, since they may be long."""
    return sorted(jobs, key=lambda job: -seconds.get(job.number, float("inf")))


class _Following:
    """Takes down what happens to each run, and passes it on."""

    def __init__(self, plan: Plan, journal: Journal, display: Display, tracking: Tracking | None) -> None:
        self.busy: list[Busy] = []
        self.lanes = 0
        self._plan = plan
        self._journal = journal
        self._display = display
        self._tracking = tracking
        self._ended: dict[int, Ended] = {}
        self._attempts: dict[int, int] = {}
        self._running: set[int] = set()

    def event(self, event: Event, clock: float) -> None:
        self._journal.event(event)
        if isinstance(event, Started):
            self._attempts[event.job] = event.attempt
            self._running.add(event.job)
            self.lanes = max(self.lanes, len(self._running))
        elif isinstance(event, Ended):
            self._running.discard(event.job)
            self._ended[event.job] = event
            if event.seconds:
                self.busy.append(Busy(max(0.0, clock - event.seconds), clock))
            if event.folder is not None and event.status != "interrupted":
                self._track(event.folder)
        if isinstance(event, Note) and event.job is None:
            self._display.note(event.text)
        else:
            self._display.event(event)

    def end(self, report: dict[str, Any]) -> None:
        if self._tracking is not None:
            tracking = self._tracking
            self._tried(lambda: tracking.close(report))

    def outcomes(self) -> list[Outcome]:
        return [self._outcome(planned) for planned in self._plan.runs]

    def _outcome(self, planned: Planned) -> Outcome:
        number = planned.job.number
        if planned.action == "done":
            status: Status = "diverged" if planned.reason == "diverged" else "completed"
            return Outcome(planned, status, planned.folder, _error_of(planned, status), before=True)
        ended = self._ended.get(number)
        attempts = self._attempts.get(number, 0)
        if ended is None:
            return Outcome(planned, "interrupted", planned.folder, attempts=attempts)
        folder = ended.folder or (planned.folder if ended.status == "interrupted" else None)
        return Outcome(planned, ended.status, folder, ended.error, ended.seconds if attempts else None, attempts)

    def _track(self, folder: Path) -> None:
        if self._tracking is not None:
            tracking = self._tracking
            self._tried(lambda: tracking.run_ended(folder))

    def _tried(self, act: Callable[[], None]) -> None:
        """Tracking that fails stops no sweep; it is not tried again."""
        try:
            act()
        except Exception as error:
            self._tracking = None
            self._display.note(f"not logged to MLflow: {type(error).__name__}: {' '.join(str(error).split())}")


def _error_of(planned: Planned, status: Status) -> str | None:
    """The error in the record of a run that had diverged before."""
    from clbench.record import read_record

    if status == "completed" or planned.folder is None:
        return None
    with suppress(ClbenchError):
        return str(read_record(planned.folder)["error"])
    return None


@contextmanager
def _stopping(stop: threading.Event, say: Callable[[str], None]) -> Iterator[None]:
    """The first signal sets `stop`, the second raises KeyboardInterrupt, more change nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = 0

    def handle(number: int, frame: Any) -> None:
        nonlocal received
        received += 1
        if received == 1:
            stop.set()
            with suppress(RuntimeError):  # in the middle of another write to the terminal
                say("stopping: runs under way are being saved (Ctrl-C again: at once)")
        elif received == 2:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
