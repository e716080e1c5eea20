"""A short probe of a run in a process of its own, to estimate its time and memory; nothing of it is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
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
    with tempfile.TemporaryDirectory(prefix="clbench-probe-") as folder:
        answer = Path(folder) / "answer.json"
        task = {"spec": spec.model_dump(mode="json"), "until": time.time() + cap, "answer": str(answer)}
        threads = str(spec.threads or 1)
        environment = {**os.environ, "CLBENCH_TRACKING": "off", "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        child = subprocess.Popen(
            [sys.executable, "-m", "clbench.sweeps.probe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # an interrupt of the sweep is the parent's to handle
        )
        try:
            child.communicate(json.dumps(task).encode(), timeout=cap + GRACE)
        except subprocess.TimeoutExpired:
            return Probe(None, None, "unknown", f"no figure within {cap:.0f} s")
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        try:
            found = json.loads(answer.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return Probe(None, None, "unknown", f"its process ended with code {child.returncode}")
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


def main() -> None:
    """The child: the task on stdin as JSON, the answer into the file it names."""
    task = json.loads(sys.stdin.read())
    answer = Path(task["answer"])
    try:
        found = measure(make_spec(task["spec"]), answer.parent, task["until"])
    except Exception as error:
        problem = str(error) if isinstance(error, ClbenchError) else f"{type(error).__name__}: {error}"
        found = {"seconds": None, "memory": None, "problem": " ".join(problem.split())}
    answer.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
