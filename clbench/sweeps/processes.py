"""Worker processes of the local engine: each is forked for one job from a process that has torch imported already.

So every run has a process of its own, in which no other ran, and does not pay for the imports. The process forked from
(multiprocessing's forkserver) imports and does nothing else: it never touches a GPU, a thread pool or a random number.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from clbench.machine import THREAD_VARIABLES, thread_environment
from clbench.registry import STRATEGIES, STREAMS, families, family_of, targets
from clbench.spec import RunSpec
from clbench.sweeps.job import Ended, Event, Job, Progress

PRELOADED = (
    "torch", "pyarrow.parquet", "safetensors.torch", "clbench.launch", "clbench.engine.assembly", "clbench.metrics",
    "clbench.models.build", "clbench.models.small", "clbench.objectives.classification", "clbench.data.cache",
    "clbench.data.decode", "clbench.data.digits", "clbench.table_files", "clbench.transforms", "clbench.sweeps.worker",
)  # fmt: skip
LIBRARIES = {"timm": "timm", "hf": "transformers"}
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Assignment:
    """What a worker process is told. output: the file that takes what the run prints."""

    job: Job
    out: Path
    folder: Path
    environment: dict[str, str]
    output: Path | None


@dataclass(frozen=True)
class Begun:
    """A worker's run has its folder."""

    folder: Path


Message = Event | Begun


class WorkerProcess:
    """A process that waits for its one job, does it and ends. `connection` becomes readable when there is news."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        self.connection, theirs = context.Pipe()
        try:
            self.process = context.Process(target=_serve, args=(theirs,))
            self.process.start()
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        return self.process.pid or 0

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def give(self, assignment: Assignment) -> None:
        """Raises OSError where the process is gone."""
        self.connection.send(assignment)

    def stop(self) -> None:
        """Ask the run to stop at its next position."""
        with suppress(OSError):
            self.connection.send("stop")

    def messages(self) -> Iterator[Message]:
        """Everything that has arrived."""
        with suppress(EOFError, OSError):
            while self.connection.poll():
                yield self.connection.recv()

    def join(self) -> int:
        """Wait for the end; the exit code, negative for a signal."""
        self.process.join()
        code = self.process.exitcode or 0
        self.connection.close()
        self.process.close()
        return code

    def kill(self) -> None:
        with suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
        self.join()


def wait_for_news(workers: Sequence[WorkerProcess], seconds: float) -> list[WorkerProcess]:
    """Those with a message or at their end, as soon as there is one."""
    handles: list[Any] = [handle for worker in workers for handle in (worker.connection, worker.process.sentinel)]
    ready = set(wait(handles, seconds))
    return [worker for worker in workers if worker.connection in ready or worker.process.sentinel in ready]


def start_server(specs: Sequence[RunSpec]) -> None:
    """Start the process that workers are forked from, with what these runs import; the first call counts."""
    multiprocessing.get_context("forkserver").set_forkserver_preload([*PRELOADED, *_modules(specs)])
    ensure_server()


def ensure_server() -> None:
    """Start that process again where it has died.

    Its threads are held at one while it imports, and Ctrl-C is kept from it and from workers that are not ready.
    """
    with _held(SIGNALS), _one_thread():
        resource_tracker.ensure_running()
        forkserver.ensure_running()


@contextmanager
def _one_thread() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(thread_environment(1))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _modules(specs: Sequence[RunSpec]) -> list[str]:
    """clbench's own modules that these runs import, and the libraries of their models; other people's code is left to
    the workers, since nobody knows what it does when imported."""
    found = set()
    for spec in specs:
        for name, group in ((spec.strategy, STRATEGIES), (spec.stream, STREAMS)):
            family = family_of(name, group)
            target = families(group)[family[0]] if family else targets(group).get(name, "")
            module = target.partition(":")[0]
            if module.startswith("clbench."):
                found.add(module)
        library = LIBRARIES.get((spec.backbone or "").partition(":")[0])
        found |= {library} if library else set()
    return sorted(found)


@contextmanager
def _held(signals: Sequence[signal.Signals]) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# -- in the worker ---------------------------------------------------------------------------------------------------


def _serve(connection: Connection) -> None:
    """The life of a worker process."""
    requests = _Requests()
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: requests.stop())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        assignment: Assignment = connection.recv()
    except (EOFError, OSError):
        return
    _settle(assignment)
    from clbench.sweeps.worker import execute

    watch = requests.watch(assignment.job, lambda event: _send(connection, event))
    threading.Thread(target=_listen, args=(connection, requests), daemon=True).start()
    _send(connection, execute(assignment.job, assignment.out, watch))


class _Requests:
    """A request to stop, which may come before the run."""

    def __init__(self) -> None:
        self.stopping = False
        self._watch: Any = None

    def stop(self) -> None:
        self.stopping = True
        if self._watch is not None:
            self._watch.stop()

    def watch(self, job: Job, send: Callable[[Message], None]) -> Any:
        """A `Watch` that obeys, and tells of the run's folder first."""
        from clbench.engine.session import Session
        from clbench.sweeps.worker import Watch

        class Telling(Watch):
            def started(self, session: Session) -> None:
                send(Begun(session.folder))
                super().started(session)

        self._watch = Telling(job, send)
        if self.stopping:
            self._watch.stop()
        return self._watch


def _settle(assignment: Assignment) -> None:
    """Take over folder, environment and output of the sweep."""
    os.chdir(assignment.folder)
    os.environ.clear()
    os.environ.update(assignment.environment)
    if assignment.output is not None:
        with suppress(OSError):
            handle = os.open(assignment.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            os.close(handle)


def _listen(connection: Connection, requests: _Requests) -> None:
    """Requests of the sweep; where it is gone, so is this process, at once."""
    try:
        while connection.recv():
            requests.stop()
    except (EOFError, OSError):
        os._exit(1)


def _send(connection: Connection, message: Message) -> None:
    """A message to the sweep. News of progress is dropped where nobody reads; everything else waits."""
    if isinstance(message, Progress) and not _has_room(connection):
        return
    try:
        connection.send(message)
    except OSError:
        os._exit(1)
    if isinstance(message, Ended):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()


def _has_room(connection: Connection) -> bool:
    import select

    return bool(select.select([], [connection], [], 0)[1])
