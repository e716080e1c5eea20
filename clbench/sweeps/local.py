"""The local engine: the jobs of a sweep in worker processes on this machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from clbench import machine
from clbench.errors import RunFailed, UserError
from clbench.runs import is_active
from clbench.spec import make_spec, read_spec_file
from clbench.sweeps.job import Ended, Event, Job, Note, Resources, Started
from clbench.sweeps.processes import Assignment, Begun, WorkerProcess, ensure_server, start_server, wait_for_news
from clbench.sweeps.room import Place, Room

ATTEMPTS = 3
STARTS = 3
SECONDS_BETWEEN_LOOKS = 0.1
BEFORE_THE_RECORD = {".lock", "config.yaml", "log.txt", "evaluations.jsonl", "block_losses.raw"}


class LocalEngine:
    """Runs up to `jobs` jobs at a time (default: as many as there are cores), in the order given as far as they fit.

    Never do the threads of the jobs under way exceed `cores` (default: those this process may use). Jobs whose memory
    is known start only where it fits into `memory` (bytes; default: what is available); a job that wants a GPU has one
    of `gpus` (names for CUDA_VISIBLE_DEVICES; default: those torch finds) to itself. One job always runs. A worker
    that dies is replaced up to 2 times, and its run continued. output: a folder for what runs print, a file for each.
    """

    def __init__(
        self,
        jobs: int | None = None,
        cores: int | None = None,
        memory: int | None = None,
        gpus: Sequence[str] | None = None,
        output: Path | None = None,
    ) -> None:
        self.cores = cores or machine.cores()
        self.jobs = jobs or self.cores
        self.memory = memory
        self.gpus = gpus
        self.output = output

    def run(self, jobs: Sequence[Job], out: Path, stop: threading.Event) -> Iterator[Event]:
        """See `clbench.sweeps.job.Engine`. Closing the iterator kills the workers. Raises RunFailed where no process
        can be started."""
        if not jobs:
            return
        gpus = self._devices(jobs)
        queue = [_Waiting(job, _needs(job, bool(gpus))) for job in jobs]
        yield from self._cap(queue)
        memory = machine.available_memory() if self.memory is None else self.memory
        room = Room(self.jobs, self.cores, memory, gpus)
        start_server([job.spec for job in jobs])
        running: list[_Attempt] = []
        spare = _Spare()
        try:
            while queue or running:
                if stop.is_set():
                    for attempt in running:
                        attempt.stop()
                    yield from (_never_begun(waiting) for waiting in queue)
                    queue.clear()
                for waiting, place in _fitting(queue, room):
                    running.append(_Attempt(waiting, place, spare.take(), out, self.output))
                    yield Started(waiting.job.number, f"process {running[-1].worker.pid}", waiting.attempt)
                spare.prepare(bool(queue))
                for attempt in _with_news(running):
                    yield from attempt.news()
                    if not attempt.over:
                        continue
                    running.remove(attempt)
                    room.give_back(attempt.place)
                    if attempt.ended is not None:
                        yield attempt.ended
                        continue
                    outcome, again = attempt.after_death(out, stop.is_set())
                    yield outcome
                    queue[:0] = again
        finally:
            spare.dismiss()
            for attempt in running:
                attempt.worker.kill()

    def _devices(self, jobs: Sequence[Job]) -> Sequence[str]:
        if self.gpus is not None or all(job.spec.device == "cpu" for job in jobs):
            return self.gpus or ()
        return machine.gpu_names()

    def _cap(self, queue: list[_Waiting]) -> Iterator[Note]:
        """Runs that ask for more threads than there are cores get the cores there are."""
        capped = []
        for waiting in queue:
            spec = waiting.job.spec
            most = max(1, self.cores // spec.devices)  # every process of a run has its own
            if spec.threads and spec.threads > most and waiting.job.resume is None:
                waiting.job = replace(waiting.job, spec=spec.model_copy(update={"threads": most}))
                capped.append(waiting)
        if capped:
            which = f"{capped[0].job.label} asks" if len(capped) == 1 else f"{len(capped)} runs ask"
            most = max(waiting.needs.cpus for waiting in capped)
            yield Note(
                f"{which} for up to {most} threads, and there are {self.cores} cores: {self.cores} are used (results "
                "equal those of another machine byte for byte only at equal thread counts)"
            )


@dataclass
class _Waiting:
    """A job in the queue. attempt: the number of the one to come; seconds: of those before."""

    job: Job
    needs: Resources
    attempt: int = 1
    seconds: float = 0.0


class _Attempt:
    """A job under way in a worker process."""

    def __init__(self, waiting: _Waiting, place: Place, worker: WorkerProcess, out: Path, output: Path | None) -> None:
        self.waiting = waiting
        self.job = waiting.job
        self.place = place
        self.worker = worker
        self.folder: Path | None = None
        self.ended: Ended | None = None
        self.over = False
        self._stopped = False
        self._began = time.perf_counter()
        self._exit_code = 0
        file = (output / f"{self.job.number}.txt").resolve() if output is not None else None
        with suppress(OSError):  # where the process is gone already, its end is the next news of it
            worker.give(Assignment(self.job, out, Path.cwd(), _environment(waiting, place), file))

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self.worker.stop()

    def news(self) -> Iterator[Event]:
        """What the worker says; `over` is set once it has ended."""
        dead = not self.worker.alive
        for message in self.worker.messages():
            if isinstance(message, Begun):
                self.folder = message.folder
            elif isinstance(message, Ended):
                self.ended = replace(message, seconds=message.seconds + self.waiting.seconds)
            else:
                yield message
        if dead or self.ended is not None:
            self._exit_code = self.worker.join()
            self.over = True

    def after_death(self, out: Path, stopping: bool) -> tuple[Event, list[_Waiting]]:
        """What to tell of a worker that ended without a word, and the job to put back into the queue, if any."""
        number, seconds = self.job.number, self.waiting.seconds + time.perf_counter() - self._began
        remove_stillborn(out)
        reason = f"its process {_exit_text(self._exit_code)}"
        if stopping:
            return Ended(number, "interrupted", self.folder, reason, seconds), []
        if self.waiting.attempt < ATTEMPTS:
            job = replace(self.job, resume=self.folder or self.job.resume)
            again = _Waiting(job, self.waiting.needs, self.waiting.attempt + 1, seconds)
            return Note(f"{self.job.label}: {reason}; it is taken up again", number), [again]
        error = f"{reason}, {ATTEMPTS} times"
        if self.folder is not None:
            from clbench.sweeps.worker import record_failure

            record_failure(self.folder, error)
        return Ended(number, "failed", self.folder, error, seconds), []


class _Spare:
    """One worker process begun ahead, so that no run waits for it."""

    def __init__(self) -> None:
        self._worker: WorkerProcess | None = None

    def take(self) -> WorkerProcess:
        worker, self._worker = self._worker, None
        if worker is not None and worker.alive:
            return worker
        return _new_worker()

    def prepare(self, wanted: bool) -> None:
        if wanted and self._worker is None:
            self._worker = _new_worker()

    def dismiss(self) -> None:
        if self._worker is not None:
            self._worker.kill()


def remove_stillborn(out: Path) -> None:
    """Delete run folders whose process died before it wrote a record: they hold a lock nobody has, and nothing else."""
    for folder in (out / "runs").glob("*/*/*"):
        with suppress(OSError):
            names = {path.name for path in folder.iterdir()}
            if ".lock" in names and names <= BEFORE_THE_RECORD and not is_active(folder):
                for name in names:
                    (folder / name).unlink()
                folder.rmdir()


def _new_worker() -> WorkerProcess:
    """Where the process that workers are forked from dies at that moment, another is started."""
    for tries_left in reversed(range(STARTS)):
        try:
            ensure_server()
            return WorkerProcess()
        except (OSError, EOFError) as error:
            if not tries_left:
                raise RunFailed(f"cannot start a worker process: {error}") from None
            time.sleep(SECONDS_BETWEEN_LOOKS)
    raise AssertionError


def _fitting(queue: list[_Waiting], room: Room) -> Iterator[tuple[_Waiting, Place]]:
    """The first jobs for which there is room, taken out of the queue."""
    for waiting in list(queue):
        place = room.take(waiting.needs)
        if place is not None:
            queue.remove(waiting)
            yield waiting, place
        elif room.full:
            return


def _with_news(running: list[_Attempt]) -> list[_Attempt]:
    ready = wait_for_news([attempt.worker for attempt in running], SECONDS_BETWEEN_LOOKS)
    return [attempt for attempt in running if attempt.worker in ready]


def _never_begun(waiting: _Waiting) -> Ended:
    return Ended(waiting.job.number, "interrupted", None, None, waiting.seconds)


def _needs(job: Job, gpus: bool) -> Resources:
    """What a job takes here: the threads of all processes of its run; GPUs where it would use some without asking."""
    spec = job.spec
    if job.resume is not None:
        with suppress(UserError):
            spec = make_spec(read_spec_file(job.resume / "config.yaml"))
    cpus = spec.threads * spec.devices if spec.threads else job.resources.cpus
    uses_gpu = gpus and spec.device != "cpu"
    return replace(job.resources, cpus=cpus, gpus=(job.resources.gpus or spec.devices) if uses_gpu else 0)


def _environment(waiting: _Waiting, place: Place) -> dict[str, str]:
    """The sweep's environment with the job's threads and GPUs."""
    threads = waiting.job.spec.threads or place.cpus  # of each process
    found = {**os.environ, **machine.thread_environment(threads)}
    if place.gpus:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(place.gpus)
    return found


def _exit_text(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed (SIGKILL; out of memory?)"
    if code < 0:
        with suppress(ValueError):
            return f"was killed ({signal.Signals(-code).name})"
    return f"ended without a result (exit code {code})"
