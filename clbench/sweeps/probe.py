"""A short probe of a run in a process of its own, to estimate its time and memory; nothing of it is kept."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clbench.errors import ClbenchError
from clbench.spec import RunSpec, make_spec

GRACE = 5.0
"""Seconds a probe may run on where it stands in a hook that cannot be left."""


@dataclass(frozen=True)
class Probe:
    """seconds and memory (bytes) of the whole run, as estimated. problem: why there is no figure, in one line."""

    seconds: float | None
    memory: int | None
    source: str
    problem: str | None = None


def probe_run(spec: RunSpec, cap: float) -> Probe:
    """Probe a run for `cap` seconds at most (start of the process and reading of data included), then stop it."""
    from clbench.sweeps.processes import start_server

    if spec.devices > 1:
        return Probe(None, None, "unknown", "a run on several devices is not probed")
    start_server([spec])
    with tempfile.TemporaryDirectory(prefix="clbench-probe-") as folder:
        task = {
            "spec": spec.model_dump(mode="json"),
            "until": time.time() + cap,
            "folder": folder,
            "place": str(Path.cwd()),
            "environment": _environment(spec.threads or 1),
        }
        child = multiprocessing.get_context("forkserver").Process(target=_child, args=(task,))
        child.start()
        try:
            child.join(cap + GRACE)
            ended = child.exitcode is not None
        finally:
            child.kill()
            child.join()
        if not ended:
            return Probe(None, None, "unknown", f"no figure within {cap:.0f} s")
        try:
            found = json.loads((Path(folder) / "answer.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return Probe(None, None, "unknown", f"its process ended with code {child.exitcode}")
    return Probe(found["seconds"], found["memory"], "probe" if found["seconds"] else "unknown", found["problem"])


def measure(spec: RunSpec, folder: Path, until: float) -> dict[str, Any]:
    """Cut a run short in `folder`, until the clock (`time.time`) says `until`; what the whole would take."""
    from clbench.engine.assembly import assemble
    from clbench.engine.cost import peak_memory_bytes
    from clbench.engine.reporter import Reporter
    from clbench.launch import Prepared
    from clbench.run import run
    from clbench.sweeps.probing import ProbeOver, ProbeSession

    problem = None
    built = Prepared(spec)
    session = assemble(built.spec, folder, built.stream, built.strategy, built.config, Reporter(), None, ProbeSession)
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
    if seconds is None and problem is None:
        problem = "no step was done in its time"
    return {"seconds": seconds, "memory": peak_memory_bytes(), "problem": problem}


def _environment(threads: int) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(threads))}


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
