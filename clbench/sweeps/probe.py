"""A short probe of a run in a process of its own, to estimate its time and memory; nothing of it is kept."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from clbench.errors import ClbenchError
from clbench.machine import thread_environment
from clbench.spec import RunSpec, make_spec

GRACE = 5.0
"""Seconds a probe may run on where it stands in a hook that cannot be left."""


@dataclass(frozen=True)
class Probe:
    """seconds and memory (bytes) of the whole run, as estimated. problem: why there is no figure, in one line; late:
    there was no time for one."""

    seconds: float | None
    memory: int | None
    problem: str | None = None
    late: bool = False


class ProbeProcess:
    """A probe of a run for `cap` seconds at most (start of the process and reading of data included).

    `result` or `kill` ends it, and nothing of it is left.
    """

    def __init__(self, spec: RunSpec, cap: float) -> None:
        from clbench.sweeps.processes import start_server

        self._cap = cap
        self._folder = tempfile.TemporaryDirectory(prefix="clbench-probe-")
        start_server([spec])
        task = {
            "spec": spec.model_dump(mode="json"),
            "until": time.time() + cap,
            "folder": self._folder.name,
            "place": str(Path.cwd()),
            "environment": {**os.environ, **thread_environment(spec.threads or 1)},
        }
        self.until = time.monotonic() + cap + GRACE
        self.process = multiprocessing.get_context("forkserver").Process(target=_child, args=(task,))
        self.process.start()

    def result(self) -> Probe:
        """What it found, if it has ended; else it is ended without a figure."""
        ended = self.process.exitcode is not None
        code = self.process.exitcode
        try:
            found = json.loads((Path(self._folder.name) / "answer.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        self.kill()
        if found is not None:
            return Probe(**found)
        if ended:
            return Probe(None, None, f"its process ended with code {code}")
        return Probe(None, None, f"no figure within {self._cap:.0f} s", late=True)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self._folder.cleanup()


def next_ended(probes: Sequence[ProbeProcess]) -> ProbeProcess:
    """Wait for the first of these to end, or to be over its time."""
    seconds = min(probe.until for probe in probes) - time.monotonic()
    wait([probe.process.sentinel for probe in probes], max(0.0, seconds))
    for probe in probes:
        if probe.process.exitcode is not None:
            return probe
    return min(probes, key=lambda probe: probe.until)


def measure(spec: RunSpec, folder: Path, until: float) -> dict[str, Any]:
    """Cut a run short in `folder`, until the clock (`time.time`) says `until`; the fields of a `Probe` of it."""
    from clbench.engine.cost import peak_memory_bytes
    from clbench.engine.reporter import Reporter
    from clbench.launch import Prepared
    from clbench.run import run
    from clbench.sweeps.probe_session import ProbeOver, ProbeSession

    problem = None
    built = Prepared(spec)
    session = built.session(folder, Reporter(), None, kind=ProbeSession)
    assert isinstance(session, ProbeSession)
    session.limit = until - time.time()
    try:
        run(session)
    except ProbeOver:
        pass
    except ClbenchError as error:
        problem = str(error)
    finally:
        session.table.close()
    seconds = session.seconds() if problem is None else None
    late = seconds is None and problem is None
    if late:
        problem = "no step was done in its time"
    return {"seconds": seconds, "memory": peak_memory_bytes(), "problem": problem, "late": late}


def _child(task: Mapping[str, Any]) -> None:
    """The probe's process: silent, and in the place and environment of its parent."""
    folder = Path(task["folder"])
    os.chdir(task["place"])
    os.environ.clear()
    os.environ.update(task["environment"])
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    try:
        found = measure(make_spec(task["spec"]), folder, task["until"])
    except Exception as error:
        problem = str(error) if isinstance(error, ClbenchError) else f"{type(error).__name__}: {error}"
        found = {"seconds": None, "memory": None, "problem": " ".join(problem.split())}
    (folder / "answer.json").write_text(json.dumps(found), encoding="utf-8")
