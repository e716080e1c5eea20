"""The jobs of a sweep on a Ray cluster that has been joined: given, heard, taken up again, ended."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clbench.errors import ClbenchError, RunFailed, UserError
from clbench.files import disk_error
from clbench.sweeps.gathering import Gathering
from clbench.sweeps.job import Ended, Event, Job, Note, Started, Status
from clbench.sweeps.local import remove_stillborn
from clbench.sweeps.ray_cluster import needs, nodes, unmet
from clbench.sweeps.ray_worker import Channel, Report, Result, Task, run_task
from clbench.sweeps.shipping import pack, place

SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_BETWEEN_COUNTS = 3.0
SECONDS_UNTIL_A_WORD = 30.0
AHEAD = 16


@dataclass(frozen=True)
class Limits:
    """jobs: at most so many at a time (None: as many as fit). retries: how often a job whose worker or node is lost is
    taken up again. wait_for_nodes: seconds that a job which no node can hold waits for one that may come."""

    jobs: int | None
    retries: int
    wait_for_nodes: float


@dataclass
class _Attempt:
    """A job that waits for a worker, or has one.

    attempt counts from 1; seconds: of the attempts before. shared: its run to resume needs no sending, since nodes see
    the results folder. folder: of its run there, once it has one.
    """

    job: Job
    attempt: int = 1
    seconds: float = 0.0
    shared: bool = False
    begun: float | None = None
    folder: Path | None = None
    unmet_since: float | None = None


class RayJobs:
    """The jobs of one call of `RayEngine.run`. shared: nodes see the results folder, since they are this machine."""

    def __init__(
        self,
        jobs: Sequence[Job],
        out: Path,
        token: str,
        limits: Limits,
        gathering: Gathering | None,
        shared: bool,
    ) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._channel: Any = ray.remote(num_cpus=0)(Channel).options(scheduling_strategy=here).remote()
        self._function: Any = ray.remote(max_calls=1, max_retries=0)(run_task)
        self._limits = limits
        self._out = out
        self._token = token
        self._gathering = gathering
        self._queue = deque(_Attempt(_with_whole_path(job), shared=shared) for job in jobs)
        self._given: dict[Any, _Attempt] = {}
        self._files: dict[str, bytes] = {}
        self._nodes = nodes()
        self._counted = self._last_word = time.monotonic()
        self._versions: dict[str, str] | None = None
        self._stopped = False

    def run(self, stop: threading.Event) -> Iterator[Event]:
        import ray

        while self._queue or self._given:
            if stop.is_set() and not self._stopped:
                yield from self._stop()
            yield from self._count_nodes()
            yield from self._give()
            done: list[Any] = []
            if self._given:
                done, _ = ray.wait(list(self._given), num_returns=1, timeout=SECONDS_BETWEEN_LOOKS)
            elif self._queue:
                time.sleep(SECONDS_BETWEEN_LOOKS)
            for report in self._ask(self._channel.take):
                yield from self._hear(report)
            for reference in done:
                yield from self._end(self._given.pop(reference), reference)
            yield from self._gathered()

    def kill(self) -> None:
        """End what is under way at once."""
        import ray

        for reference in self._given:
            with suppress(Exception):
                ray.cancel(reference, force=True)
        if self._given:
            ray.wait(list(self._given), num_returns=len(self._given), timeout=5)
        with suppress(Exception):
            ray.kill(self._channel)

    def _ask(self, method: Any) -> Any:
        import ray
        from ray.exceptions import RayActorError

        try:
            return ray.get(method.remote())
        except RayActorError:
            raise RunFailed(
                "the sweep's own Ray actor on this machine died, and the runs under way with it: start the sweep again"
            ) from None

    # -- giving --------------------------------------------------------------------------------------------------

    def _give(self) -> Iterator[Event]:
        """Hand jobs to Ray: as many as can run, and some ahead, so that an autoscaler sees that there are more."""
        while self._queue and len(self._given) < self._at_once():
            attempt = self._queue.popleft()
            problem = unmet(needs(attempt.job), self._nodes)
            if problem is None or self._may_wait(attempt):
                try:
                    self._given[self._submit(attempt)] = attempt
                except (ClbenchError, OSError) as error:
                    yield self._ended(attempt, "failed", None, str(error))
            else:
                yield self._ended(attempt, "failed", None, problem)

    def _at_once(self) -> int:
        if self._limits.jobs is not None:
            return self._limits.jobs
        return AHEAD + int(sum(node.get("CPU", 0.0) for node in self._nodes))

    def _submit(self, attempt: _Attempt) -> Any:
        job = attempt.job
        resume: tuple[Any, ...] = ()
        if job.resume is not None and not attempt.shared:
            import ray

            resume = (ray.put(pack(job.resume, unfinished=True)),)
        files = {path: self._content(path) for name in (job.spec.strategy, job.spec.stream) if (path := _file_of(name))}
        task = Task(job, attempt.attempt, self._out, self._token, files, resume)
        wanted = needs(job)
        remote = self._function.options(
            name=job.label,
            num_cpus=wanted.get("CPU", 0),
            num_gpus=wanted.get("GPU", 0),
            memory=int(wanted["memory"]) if "memory" in wanted else None,
        )
        return remote.remote(task, self._channel)

    def _content(self, path: str) -> bytes:
        """Of a user's file, as it was when it was first asked for: all runs of a sweep have the same."""
        if path not in self._files:
            try:
                self._files[path] = Path(path).read_bytes()
            except OSError as error:
                raise UserError(f"cannot read {path}: {error.strerror or error}") from None
        return self._files[path]

    # -- waiting -------------------------------------------------------------------------------------------------

    def _count_nodes(self) -> Iterator[Event]:
        """Every few seconds: whether what waits can still be held by a node, and whether anything is under way."""
        now = time.monotonic()
        if now - self._counted < SECONDS_BETWEEN_COUNTS:
            return
        self._counted, self._nodes = now, nodes()
        for reference, attempt in list(self._given.items()):
            problem = unmet(needs(attempt.job), self._nodes) if attempt.begun is None else None
            if problem is None:
                attempt.unmet_since = None
            elif not self._may_wait(attempt):
                self._cancel(reference)
                del self._given[reference]
                yield self._ended(attempt, "failed", None, problem)
        if any(attempt.begun is not None for attempt in self._given.values()):
            self._last_word = now
        elif self._given and now - self._last_word > SECONDS_UNTIL_A_WORD:
            self._last_word = now + 10 * SECONDS_UNTIL_A_WORD
            yield Note(f"{len(self._given)} runs wait for room on the cluster (`ray status` shows what takes it)")

    def _may_wait(self, attempt: _Attempt) -> bool:
        now = time.monotonic()
        attempt.unmet_since = attempt.unmet_since or now
        return now - attempt.unmet_since < self._limits.wait_for_nodes

    # -- hearing -------------------------------------------------------------------------------------------------

    def _hear(self, report: Report) -> Iterator[Event]:
        attempt = next((a for a in self._given.values() if a.job.number == report.job), None)
        if attempt is None or attempt.attempt != report.attempt:
            return
        if attempt.begun is None:
            attempt.begun = time.monotonic()
            yield Started(report.job, report.where, report.attempt)
            yield from self._compare_versions(report)
        attempt.folder = report.folder or attempt.folder
        yield from report.events

    def _compare_versions(self, report: Report) -> Iterator[Event]:
        first = self._versions = self._versions or report.versions
        names = sorted(first.keys() | report.versions.keys())
        for name in (name for name in names if first.get(name) != report.versions.get(name)):
            yield Note(
                f"{report.where} has {name} {report.versions.get(name)}, another node {first.get(name)}: runs equal "
                "each other byte for byte only at equal versions"
            )

    def _gathered(self) -> Iterator[Event]:
        if self._gathering is not None:
            for text in self._gathering.notes():
                yield Note(text)

    # -- ending --------------------------------------------------------------------------------------------------

    def _end(self, attempt: _Attempt, reference: Any) -> Iterator[Event]:
        import ray
        from ray.exceptions import RayError, RayTaskError, TaskCancelledError

        try:
            result: Result = ray.get(reference)
        except TaskCancelledError:
            yield self._ended(attempt, "interrupted", attempt.folder, None)
        except RayTaskError as error:
            status: Status = "interrupted" if self._stopped else "failed"
            yield self._ended(attempt, status, attempt.folder, _last_line(error))
        except RayError as error:
            yield from self._lost(attempt, error)
        else:
            yield self._finished(attempt, result)

    def _finished(self, attempt: _Attempt, result: Result) -> Ended:
        """Put the run folder in its place."""
        ended = result.ended
        folder = ended.folder
        if result.packed is not None and result.run is not None:
            resumed = attempt.job.resume
            again = resumed is not None and Path(result.run).parts == resumed.parts[-3:]
            try:
                folder = place(result.packed, self._out, result.run, again)
            except OSError as error:
                return self._ended(attempt, "failed", None, str(disk_error(error, self._out)))
        if folder is not None and ended.status != "interrupted" and self._gathering is not None:
            self._gathering.put(folder)
        return replace(ended, folder=folder, seconds=ended.seconds + attempt.seconds)

    def _lost(self, attempt: _Attempt, error: Exception) -> Iterator[Event]:
        """Its worker or its node is gone: from the last checkpoint on, where the results folder has it, else afresh."""
        reason = _reason_of_loss(error)
        remove_stillborn(self._out)
        if self._stopped:
            yield self._ended(attempt, "interrupted", attempt.folder, reason)
        elif attempt.attempt > self._limits.retries:
            text = f"{reason}, {attempt.attempt} times"
            if attempt.folder is not None:
                from clbench.sweeps.worker import record_failure

                record_failure(attempt.folder, text)
            yield self._ended(attempt, "failed", attempt.folder, text)
        else:
            yield Note(f"{attempt.job.label}: {reason}; it is taken up again", attempt.job.number)
            job = replace(attempt.job, resume=attempt.folder or attempt.job.resume)
            shared = attempt.shared or attempt.folder is not None
            self._queue.appendleft(_Attempt(job, attempt.attempt + 1, self._seconds(attempt), shared))

    def _stop(self) -> Iterator[Event]:
        """What has not begun is not begun; what is under way is told by its next report."""
        self._stopped = True
        self._ask(self._channel.stop)
        for reference, attempt in list(self._given.items()):
            if attempt.begun is None:
                self._cancel(reference)
        for attempt in self._queue:
            yield self._ended(attempt, "interrupted", attempt.folder, None)
        self._queue.clear()

    def _cancel(self, reference: Any) -> None:
        import ray

        with suppress(Exception):  # over already
            ray.cancel(reference)

    def _ended(self, attempt: _Attempt, status: Status, folder: Path | None, error: str | None) -> Ended:
        return Ended(attempt.job.number, status, folder, error, self._seconds(attempt))

    def _seconds(self, attempt: _Attempt) -> float:
        return attempt.seconds + (0.0 if attempt.begun is None else time.monotonic() - attempt.begun)


def _with_whole_path(job: Job) -> Job:
    return job if job.resume is None else replace(job, resume=job.resume.resolve())


def _file_of(name: str) -> str | None:
    """The path in `file.py[:Class]`, None for a name."""
    path = name.partition(":")[0]
    return path if path.endswith(".py") else None


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"its worker could not do it: {lines[-1] if lines else type(error).__name__}"


def _reason_of_loss(error: Exception) -> str:
    from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

    if isinstance(error, OutOfMemoryError):
        return "its worker was ended because the node ran out of memory"
    if isinstance(error, NodeDiedError):
        return "its node was lost"
    if isinstance(error, WorkerCrashedError):
        return "its worker died"
    return f"its result was lost ({type(error).__name__})"
