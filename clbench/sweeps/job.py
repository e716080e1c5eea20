"""What the parts of a sweep hand to each other: jobs, what happens to them, and the engines that run them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from clbench.spec import RunSpec

Status = Literal["completed", "diverged", "failed", "interrupted"]


@dataclass(frozen=True)
class Resources:
    """What one run takes. cpus: threads of the run; gpus: devices (0: none); memory: bytes, None where unknown."""

    cpus: int = 1
    gpus: float = 0
    memory: int | None = None


@dataclass(frozen=True)
class Job:
    """One run of a sweep. `spec` is resolved (every setting in full, `threads` set).

    resume: the folder of an interrupted run of this specification, None to start afresh.
    """

    number: int
    label: str
    spec: RunSpec
    resources: Resources = field(default_factory=Resources)
    resume: Path | None = None


@dataclass(frozen=True)
class Started:
    """A worker has taken the job up; `attempt` counts from 1. `where`: the worker or the node."""

    job: int
    where: str
    attempt: int = 1


@dataclass(frozen=True)
class Progress:
    """How far a job is: the share of its training steps that are done, and what it is doing."""

    job: int
    fraction: float
    doing: str


@dataclass(frozen=True)
class Note:
    """One line the user should see."""

    text: str
    job: int | None = None


@dataclass(frozen=True)
class Ended:
    """A job is over. folder: of the run in the results folder, None where it never had one. error: one line."""

    job: int
    status: Status
    folder: Path | None
    error: str | None
    seconds: float


Event = Started | Progress | Note | Ended


class Engine(Protocol):
    """Runs jobs somewhere. Every job gets exactly one `Ended`; their order is the engine's."""

    def run(self, jobs: Sequence[Job], out: Path, stop: threading.Event) -> Iterator[Event]:
        """Run all jobs; run folders land in `out`/runs/STREAM/STRATEGY/RUN, as `clbench.launch.start_run` makes them.

        Once `stop` is set no job is started, those under way are interrupted at their next position (saved, so that
        they can be resumed) and end as "interrupted"; so do those that never started, with no folder.
        """
        ...
