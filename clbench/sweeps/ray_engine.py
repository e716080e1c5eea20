"""The Ray engine: the jobs of a sweep on a Ray cluster, or on a Ray started here."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from clbench.errors import UserError
from clbench.files import disk_error
from clbench.sweeps.gathering import Gathering
from clbench.sweeps.job import Event, Job, Note
from clbench.sweeps.ray_cluster import joined
from clbench.sweeps.ray_jobs import Limits, RayJobs


class RayEngine:
    """Runs jobs on the Ray cluster at `address` (HOST:PORT, ray://HOST:PORT or auto; None: RAY_ADDRESS, else a Ray of
    its own on this machine).

    jobs: at most so many at a time (None: as many as fit). gather: an fsspec URL that finished run folders are put at,
    too. retries: how often a job whose worker or node is lost is taken up again. wait_for_nodes: seconds that a job
    which no node of the cluster can hold waits for one that an autoscaler may add (None: CLBENCH_RAY_WAIT, else 0).
    """

    def __init__(
        self,
        address: str | None = None,
        gather: str | None = None,
        jobs: int | None = None,
        retries: int = 3,
        wait_for_nodes: float | None = None,
    ) -> None:
        self.address = address if address is not None else os.environ.get("RAY_ADDRESS") or None
        self.gather = gather
        self.limits = Limits(jobs, retries, _seconds_to_wait() if wait_for_nodes is None else wait_for_nodes)

    def run(self, jobs: Sequence[Job], out: Path, stop: threading.Event) -> Iterator[Event]:
        """See `clbench.sweeps.job.Engine`. Closing the iterator kills the workers. Raises UserError where there is no
        Ray, no cluster, or no permission to write."""
        out = out.resolve()
        with ExitStack() as stack:
            token = stack.enter_context(_token(out))
            gathering = Gathering(self.gather, out) if self.gather is not None else None
            if gathering is not None:
                stack.callback(gathering.close)
            if jobs:
                started_here = stack.enter_context(joined(self.address))
                sweep = RayJobs(jobs, out, token, self.limits, gathering, shared=started_here)
                stack.callback(sweep.kill)
                yield from sweep.run(stop)
            if gathering is not None:
                for text in gathering.notes(wait=True):
                    yield Note(text)


@contextmanager
def _token(out: Path) -> Iterator[str]:
    """The name of a file in `out` by which a node knows that it sees the same folder."""
    token = out / f".sweep-{uuid4().hex}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        token.touch()
    except OSError as error:
        raise disk_error(error, out) from None
    try:
        yield token.name
    finally:
        with suppress(OSError):
            token.unlink()


def _seconds_to_wait() -> float:
    text = os.environ.get("CLBENCH_RAY_WAIT", "0")
    try:
        return max(0.0, float(text))
    except ValueError:
        raise UserError(f"CLBENCH_RAY_WAIT={text}: use a number of seconds") from None
