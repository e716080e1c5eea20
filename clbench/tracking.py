"""Logging finished runs and sweeps to MLflow, in a process of its own: none of them waits for its tracking.

The record is complete without it. CLBENCH_TRACKING=off turns it off, =wait logs before going on. The store is
MLFLOW_TRACKING_URI, or mlflow.db in the results folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from clbench.errors import RunFailed
from clbench.urls import without_secrets

CONNECT_SECONDS = 1.0
NICENESS = 10
OFF = ("off", "0", "no", "false")
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "GIT_PYTHON_REFRESH": "quiet",
    "PYTHONWARNINGS": "ignore",
}
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
REPORTED = ("name", "status", "engine", "seconds", "counts")  # of a sweep's report


def log_run(folder: Path, say: Callable[[str], None] | None = None, wait: bool = False) -> None:
    """Log the run in `folder` to MLflow in a detached process of low priority; returns at once.

    What goes wrong there is written to the run's log.txt. A tracking server that does not answer within a second is
    told to `say` (default: a line on stderr), and nothing is started. With `wait`, or CLBENCH_TRACKING=wait, the call
    returns when the run is logged; only with the argument it raises RunFailed where that fails.
    """
    tell = say or _say
    mode = os.environ.get("CLBENCH_TRACKING", "").lower()
    if mode in OFF and not wait:
        return
    folder = folder.resolve()
    uri = tracking_uri(results_of(folder))
    if not _answers(uri):
        text = (
            f"MLflow at {without_secrets(uri)} is not reachable; the record is complete without it; "
            f"later: clbench runs track {folder.name}"
        )
        if wait:
            raise RunFailed(text)
        tell(text)
        return
    try:
        with (folder / "log.txt").open("ab") as log:
            child = _start_child([str(folder)], log)
        failed = child.wait() != 0 if wait or mode == "wait" else False
    except OSError as error:
        tell(f"the run is not logged to MLflow: {error}")
        return
    if failed:
        text = f"the run is not logged to MLflow: see {folder / 'log.txt'}; again: clbench runs track {folder.name}"
        if wait:
            raise RunFailed(text)
        tell(text)


def results_of(folder: Path) -> Path:
    """The results folder of a run in RESULTS/runs/STREAM/STRATEGY/RUN; elsewhere, the folder the run lies in."""
    parents = folder.resolve().parents
    return parents[3] if len(parents) > 3 and parents[2].name == "runs" else parents[0]


def tracking_uri(results: Path) -> str:
    """MLFLOW_TRACKING_URI, or the SQLite store in the results folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{results.resolve() / 'mlflow.db'}"


class SweepTracking:
    """Logs a sweep to MLflow: a parent run named after it with a nested run for each run, in one detached process of
    low priority for all of them.

    What goes wrong there is written to tracking.log in the sweep's folder; what goes wrong here is told to `say`
    (default: a line on stderr), once. No call waits for the store, or raises.
    """

    def __init__(self, name: str, out: Path, say: Callable[[str], None] | None = None, folder: Path | None = None):
        """name: of the suite. out: the results folder. folder: of the sweep's own files, by default `out`."""
        self._name = name
        self._out = Path(out).resolve()
        self._log = (folder or self._out) / "tracking.log"
        self._tell = say or _say
        self._child: subprocess.Popen[bytes] | None = None
        self._told: set[str] = set()
        self._off = os.environ.get("CLBENCH_TRACKING", "").lower() in OFF

    def run_ended(self, folder: Path) -> None:
        """A run is over: it is logged, once, whatever its status."""
        path = str(Path(folder).resolve())
        if path not in self._told:
            self._told.add(path)
            self._send({"run": path})

    def close(self, report: dict[str, Any] | None = None) -> None:
        """The sweep is over. report: what its report.json holds; its finished runs are logged too, if they are not yet,
        and the figures and boards at the end are of all of them. CLBENCH_TRACKING=wait: wait until that is done."""
        report = report or {}
        for run in report.get("runs") or ():
            if run.get("folder") and run.get("status") != "interrupted":
                self.run_ended(Path(run["folder"]))
        if self._child is None:
            return
        self._send({"end": {key: value for key, value in report.items() if key in REPORTED}})
        child, self._child = self._child, None
        if child is None or child.stdin is None:
            return
        with contextlib.suppress(OSError):
            child.stdin.close()
        if os.environ.get("CLBENCH_TRACKING", "").lower() == "wait" and child.wait() != 0:
            self._tell(f"the sweep is not wholly logged to MLflow: see {self._log}")

    def _send(self, message: dict[str, Any]) -> None:
        """A line for the child, which reads all the time; one that does not within a second is given up."""
        if self._off or (self._child is None and not self._start()):
            return
        assert self._child is not None and self._child.stdin is not None
        line = json.dumps(message).encode() + b"\n"
        deadline = time.monotonic() + CONNECT_SECONDS
        while line:
            try:
                line = line[os.write(self._child.stdin.fileno(), line) :]
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return self._give_up("its process does not answer")
                time.sleep(0.01)
            except OSError as error:
                return self._give_up(f"its process has ended ({error.strerror or error})")

    def _start(self) -> bool:
        uri = tracking_uri(self._out)
        if not _answers(uri):
            self._give_up(f"MLflow at {without_secrets(uri)} is not reachable")
            return False
        try:
            with self._log.open("ab") as log:
                self._child = _start_child(["--sweep", self._name, str(self._out)], log, subprocess.PIPE)
        except OSError as error:
            self._give_up(str(error))
            return False
        assert self._child.stdin is not None
        os.set_blocking(self._child.stdin.fileno(), False)
        return True

    def _give_up(self, reason: str) -> None:
        self._off, self._child = True, None
        self._tell(f"{reason}; the records are complete without it; the same sweep again logs what is missing")


def _answers(uri: str) -> bool:
    """Whether a tracking server accepts a connection; stores that are files need none."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return True
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


def _start_child(arguments: list[str], log: IO[bytes], stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """This module in a process and session of its own, with `log` for its stderr."""
    environment = {**PATIENCE, **os.environ, **QUIET}
    if Path(__file__).parents[1] != Path.cwd():
        environment["PYTHONSAFEPATH"] = "1"
    return subprocess.Popen(
        [sys.executable, "-m", "clbench.tracking", *arguments],
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        stderr=log,
        env=environment,
        start_new_session=True,
    )


def _say(text: str) -> None:
    sys.stderr.write(f"clbench: {text}\n")


def main(arguments: list[str]) -> int:
    """The child: log one run, or follow a sweep (--sweep NAME RESULTS); the exit code. Every failure is one line, which
    the parent sends to log.txt or tracking.log."""
    os.environ.update(QUIET)
    for key, value in PATIENCE.items():
        os.environ.setdefault(key, value)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    from clbench.tracking_store import Store
    from clbench.tracking_sweep import complain, follow, one_line

    try:
        if arguments[0] == "--sweep":
            results = Path(arguments[2])
            return follow(Store(tracking_uri(results), results), arguments[1])
        folder = Path(arguments[0])
        results = results_of(folder)
        Store(tracking_uri(results), results).log(folder)
    except Exception as error:
        complain(one_line(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
