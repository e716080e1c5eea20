"""What the nodes of a Ray cluster run: one job in a process of its own, and the actor that carries what is said."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clbench.machine import thread_environment
from clbench.sweeps.job import Ended, Event, Job, Progress
from clbench.sweeps.shipping import Packed, pack, unpack

SECONDS_BETWEEN_REPORTS = 0.4
PATIENCE = 30.0
SCRATCH = "clbench-scratch-"


@dataclass(frozen=True)
class Task:
    """A job as it travels. out: the sweep's results folder, used where the file `token` in it can be seen.

    files: the content of strategy and stream files by the path that the specification names. resume: reference to the
    packed folder of `job.resume`, None where there is none.
    """

    job: Job
    attempt: int
    out: Path
    token: str
    files: dict[str, bytes] = field(default_factory=dict)
    resume: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Report:
    """What a worker says every now and then. folder: of the run in the results folder itself, if it lies there."""

    job: int
    attempt: int
    where: str
    versions: dict[str, str]
    events: list[Event]
    folder: Path | None


@dataclass(frozen=True)
class Result:
    """How a job ended. packed: its run folder where that lies on the node only, `run` its STREAM/STRATEGY/RUN."""

    ended: Ended
    run: str | None = None
    packed: Packed | None = None


class Channel:
    """The actor between workers and the sweep: reports one way, the request to stop the other."""

    def __init__(self) -> None:
        self._reports: list[Report] = []
        self._stopping = False

    def report(self, report: Report) -> bool:
        """Take a report; whether the worker is to stop."""
        self._reports.append(report)
        return self._stopping

    def stop(self) -> None:
        self._stopping = True

    def take(self) -> list[Report]:
        """What has arrived since the last call."""
        taken, self._reports = self._reports, []
        return taken


def run_task(task: Task, channel: Any) -> Result:
    """Do a job in this process, which must be fresh: in the results folder where this node sees it, else in a scratch
    folder that is removed, its run folder being returned."""
    _set_environment(task.job)
    from clbench.registry import read_from
    from clbench.sweeps.worker import Watch, execute

    with _scratch() as scratch:
        for number, (path, content) in enumerate(task.files.items()):
            copy = scratch / "files" / str(number) / Path(path).name
            unpack({copy.name: content}, copy.parent)
            read_from(Path(path), copy)
        shared = (task.out / task.token).is_file()
        out = task.out if shared else scratch / "results"
        job = _with_resumed_folder(task, out, shared)
        voice = _Voice(task, channel, shared)
        watch = Watch(job, voice.say)
        voice.begin(watch)
        try:
            ended = execute(job, out, watch)
        finally:
            voice.end()
        if shared:
            return Result(ended)
        if ended.error is not None:
            ended = replace(ended, error=ended.error.replace(str(out), str(task.out)))
        if ended.folder is None:
            return Result(ended)
        _correct_error(ended.folder, str(out), str(task.out))
        run = ended.folder.relative_to(out / "runs").as_posix()
        return Result(replace(ended, folder=None), run, pack(ended.folder, ended.status == "interrupted"))


def _set_environment(job: Job) -> None:
    """Before anything that reads it is imported."""
    os.environ.update(thread_environment(job.spec.threads or job.resources.cpus))
    if not job.resources.gpus and job.spec.device != "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _with_resumed_folder(task: Task, out: Path, shared: bool) -> Job:
    """The job with the folder to continue from, as this node sees it."""
    import ray

    from clbench.runs import is_active

    folder = task.job.resume
    if folder is None:
        return task.job
    if shared:
        deadline = time.monotonic() + PATIENCE
        while task.attempt > 1 and is_active(folder) and time.monotonic() < deadline:
            time.sleep(0.2)  # a worker of a lost node needs a moment to end
        return replace(task.job, resume=None) if task.attempt > 1 and is_active(folder) else task.job
    if not task.resume:
        return replace(task.job, resume=None)
    local = out / "runs" / Path(*folder.parts[-3:])
    unpack(ray.get(task.resume[0]), local)
    return replace(task.job, resume=local)


def _correct_error(folder: Path, scratch: str, out: str) -> None:
    """A record's error names the run's folder: the one it will have."""
    from clbench.record import read_record, write_record

    record = read_record(folder)
    if scratch in (error := record["error"] or ""):
        write_record(folder, record | {"error": error.replace(scratch, out)})


class _Voice:
    """Reports from a thread of its own, so that the run never waits, and hands a request to stop to the run."""

    def __init__(self, task: Task, channel: Any, shared: bool) -> None:
        self._task = task
        self._channel = channel
        self._shared = shared
        self._where = f"{socket.gethostname()}, process {os.getpid()}"
        self._events: list[Event] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def say(self, event: Event) -> None:
        """Keep an event for the next report; of two about progress in one report, the later counts."""
        with self._lock:
            if isinstance(event, Progress) and self._events and isinstance(self._events[-1], Progress):
                self._events.pop()
            self._events.append(event)

    def begin(self, watch: Any) -> None:
        from clbench.engine.environment import package_versions

        self._watch = watch
        self._versions = package_versions()
        self._report()
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        with suppress(Exception):  # the channel is gone with the sweep
            self._report()

    def _work(self) -> None:
        while not self._over.wait(SECONDS_BETWEEN_REPORTS):
            try:
                self._report()
            except Exception:  # the sweep is gone, or going; Ray ends this process then
                return

    def _report(self) -> None:
        import ray

        with self._lock:
            events, self._events = self._events, []
        folder = self._watch.folder if self._shared else None
        report = Report(self._task.job.number, self._task.attempt, self._where, self._versions, events, folder)
        if ray.get(self._channel.report.remote(report)):
            self._watch.stop()


@contextmanager
def _scratch() -> Iterator[Path]:
    """A temporary folder, removed at the end; those of processes that were killed are removed first."""
    parent = Path(tempfile.gettempdir())
    for old in parent.glob(f"{SCRATCH}*"):
        with suppress(OSError), (old / ".lock").open("r+") as handle:
            if time.time() - old.stat().st_mtime < PATIENCE:
                continue  # perhaps not locked yet
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH))
    try:
        with (folder / ".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
