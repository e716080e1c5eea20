"""One job of a sweep, done in the process that calls: what the workers of every engine run."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from clbench.engine.reporter import Reporter
from clbench.engine.share import RunShare
from clbench.errors import ClbenchError, Interrupted, UserError
from clbench.record import now, read_record, write_record
from clbench.runs import is_active, never_began
from clbench.sweeps.job import Ended, Event, Job, Note, Progress, Status

if TYPE_CHECKING:
    from torch import Tensor

    from clbench.engine.session import Session

SECONDS_BETWEEN = 0.25
PATIENCE = 10.0


class Watch(Reporter):
    """Tells `send` how far a run is, a few times a second at most, and hands a request to stop on to it.

    folder: of the run, once it has begun. `send` is called in the thread that runs the job.
    """

    def __init__(self, job: Job, send: Callable[[Event], None]) -> None:
        self.job = job
        self.folder: Path | None = None
        self.stopping = False
        self._send = send
        self._session: Session | None = None
        self._share = RunShare()
        self._stage = "begins"
        self._sent = 0.0

    def stop(self) -> None:
        """Interrupt the run at its next position. May be called from another thread, or a signal's handler."""
        self.stopping = True
        if self._session is not None:
            self._session.interrupted = True

    def started(self, session: Session) -> None:
        self.folder = session.folder
        self._session = session
        session.interrupted = session.interrupted or self.stopping
        self._share = RunShare([len(task.train) for task in session.stream.tasks])
        self._share.enter(session.resumed_at.task)
        self._report(self._doing(session.resumed_at.task))

    def stage(self, task: int, name: str) -> None:
        self._stage = name.replace("_", " ")
        self._share.enter(task)
        if time.perf_counter() - self._sent >= SECONDS_BETWEEN:
            self._report(self._doing(task))

    def stepped(self, task: int, step: int, length: int, loss: Tensor | None) -> None:
        if time.perf_counter() - self._sent < SECONDS_BETWEEN:
            return
        self._share.step(task, step, length)
        self._report(f"{self._doing(task)} {step}/{length}")

    def note(self, text: str) -> None:
        if self._session is None or not self._session.interrupted:
            self._send(Note(f"{self.job.label}: {text}", self.job.number))

    def _doing(self, task: int) -> str:
        return f"task {max(0, task) + 1}/{self._share.tasks}, {self._stage}"

    def _report(self, doing: str) -> None:
        self._sent = time.perf_counter()
        self._send(Progress(self.job.number, self._share.reached, doing))


def execute(job: Job, out: Path, watch: Watch) -> Ended:
    """Run a job, or continue it, in this process, and say how it ended; nothing is raised.

    The run's folder and its record are those that `clbench run` leaves, and so is the line of an error. A run that
    cannot be continued (another source, another package version) starts afresh, and a note says why.
    """
    started = time.perf_counter()
    status: Status = "completed"
    folder, error = None, None
    try:
        folder = _run(job, out, watch)
    except ClbenchError as failure:
        folder, status, error = failure.folder or watch.folder, _status(failure), str(failure)
        if folder is not None and isinstance(failure, UserError) and never_began(folder):
            shutil.rmtree(folder, ignore_errors=True)  # a mistake in the specification: there is no run to keep
            folder = None
    except KeyboardInterrupt:
        folder, status, error = watch.folder, "interrupted", "interrupted at once"
    except BaseException as failure:
        folder, status = watch.folder, "failed"
        error = f"the run ended with {type(failure).__name__}: {' '.join(str(failure).split()) or 'no message'}"
        if folder is not None:
            record_failure(folder, error)
    return Ended(job.number, status, folder, error, time.perf_counter() - started)


def record_failure(folder: Path, error: str) -> None:
    """Write "failed" into the record of a run whose process ended before it could. A disk that refuses it is let be."""
    with suppress(ClbenchError, OSError):
        record = read_record(folder)
        if record["status"] == "running":
            write_record(folder, record | {"status": "failed", "error": error, "finished": now()})


def _run(job: Job, out: Path, watch: Watch) -> Path:
    from clbench.engine.checkpoint import AllDamaged
    from clbench.launch import resume_run, start_run

    if watch.stopping:
        raise Interrupted("interrupted before it began")
    if job.resume is not None:
        try:
            _wait_until_free(job.resume)
            if read_record(job.resume)["status"] != "completed":
                resume_run(job.resume, watch)
            return job.resume
        except (UserError, AllDamaged) as refusal:
            if watch.folder is not None or is_active(job.resume):
                raise
            watch.note(f"starts afresh: {_reason(refusal)}")
    return start_run(job.spec, out, watch)[0]


def _reason(refusal: ClbenchError) -> str:
    """Without the advice to do what is being done."""
    return str(refusal).partition("; start afresh")[0].partition(": start afresh")[0]


def _wait_until_free(folder: Path) -> None:
    """A worker whose sweep was killed may need a moment to end."""
    deadline = time.perf_counter() + PATIENCE
    while is_active(folder) and time.perf_counter() < deadline:
        time.sleep(0.05)


def _status(failure: ClbenchError) -> Status:
    from clbench.engine.session import Diverged

    if isinstance(failure, Interrupted):
        return "interrupted"
    return "diverged" if isinstance(failure, Diverged) else "failed"
