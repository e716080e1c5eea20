"""Logging finished runs to MLflow, in a process of its own: a run never waits for its tracking.

The record is complete without it. CLBENCH_TRACKING=off turns it off, =wait logs before going on. The store is
MLFLOW_TRACKING_URI, or mlflow.db in the results folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clbench.errors import RunFailed
from clbench.record import Record, read_record
from clbench.tracked import RUN_TAG, allowed_name, curves, finals, identity, parameters, tags_of

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

ARTIFACTS = ("record.json", "config.yaml", "evaluations.parquet", "log.txt")
METRICS_PER_CALL = 1000  # MLflow's limits
PARAMETERS_PER_CALL = 100
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
END_STATES = {"completed": "FINISHED", "interrupted": "KILLED"}


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
            f"MLflow at {_without_secrets(uri)} is not reachable; the record is complete without it; "
            f"later: clbench runs track {folder.name}"
        )
        if wait:
            raise RunFailed(text)
        tell(text)
        return
    command = [sys.executable, "-m", "clbench.tracking", str(folder)]
    environment = {**PATIENCE, **os.environ, **QUIET}
    if Path(__file__).parents[1] != Path.cwd():
        environment["PYTHONSAFEPATH"] = "1"
    try:
        with (folder / "log.txt").open("ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
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


def write_to_store(folder: Path) -> None:
    """Log a run in this process, once: what was logged of an earlier sitting of it is replaced. Imports mlflow."""
    record = read_record(folder)
    results = results_of(folder)
    uri = tracking_uri(results)
    with _alone(results) if uri.startswith("sqlite:") else contextlib.nullcontext():
        import logging

        logging.disable(logging.WARNING)
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        experiment = _experiment(client, record, results)
        earlier = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{identity(folder, record)}'")
        if any(_is_logged(run, record) for run in earlier):
            return
        _log(client, experiment, folder, record)
        for run in earlier:
            client.delete_run(run.info.run_id)


def _is_logged(run: Any, record: Record) -> bool:
    """Whether an earlier logging is whole and of the same sitting."""
    return run.info.status != "RUNNING" and run.data.tags.get("finished") == str(record["finished"])


def _log(client: MlflowClient, experiment: str, folder: Path, record: Record) -> None:
    from mlflow.entities import Param, RunStatus

    begun = _milliseconds(record["started"])
    ended = _milliseconds(record["finished"] or record["started"])
    name = f"{record['strategy']['name']}-{record['run']}"
    run = client.create_run(experiment, start_time=begun, tags=tags_of(folder, record), run_name=name).info.run_id
    pairs = [Param(key, value) for key, value in parameters(record).items()]
    for i in range(0, len(pairs), PARAMETERS_PER_CALL):
        client.log_batch(run, params=pairs[i : i + PARAMETERS_PER_CALL])
    metrics = _metrics(folder, record, ended)
    for i in range(0, len(metrics), METRICS_PER_CALL):
        client.log_batch(run, metrics=metrics[i : i + METRICS_PER_CALL])
    for artifact in ARTIFACTS:
        if (folder / artifact).is_file() and (folder / artifact).stat().st_size:
            client.log_artifact(run, str(folder / artifact))
    state = END_STATES.get(record["status"], "FAILED")
    client.set_terminated(run, status=RunStatus.to_string(RunStatus.from_string(state)), end_time=ended)


def _metrics(folder: Path, record: Record, when: int) -> list[Metric]:
    from mlflow.entities import Metric

    last = record["cost"].get("steps", 0)
    return [
        *(Metric(name, value, when, last) for name, value in finals(record).items()),
        *(Metric(name, value, when, step) for name, step, value in curves(folder)),
    ]


def _experiment(client: MlflowClient, record: Record, results: Path) -> str:
    """The experiment named after the stream; made where it is missing, brought back where it was deleted."""
    name = record["stream"]["name"]
    found = client.get_experiment_by_name(name)
    if found is None:
        own = not os.environ.get("MLFLOW_TRACKING_URI")
        place = (results / "mlflow-artifacts" / allowed_name(name).replace("/", "-")).as_uri() if own else None
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except Exception:
            found = client.get_experiment_by_name(name)  # another process was quicker
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


@contextlib.contextmanager
def _alone(results: Path) -> Iterator[None]:
    """One process at a time writes to the store of a results folder; the others wait, before they import mlflow."""
    with (results / "mlflow.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


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


def _without_secrets(uri: str) -> str:
    parts = urlsplit(uri)
    return uri.replace(f"{parts.netloc}", parts.netloc.rpartition("@")[2]) if "@" in parts.netloc else uri


def _milliseconds(moment: str) -> int:
    import calendar

    return calendar.timegm(time.strptime(moment, "%Y-%m-%dT%H:%M:%SZ")) * 1000


def _say(text: str) -> None:
    sys.stderr.write(f"clbench: {text}\n")


def main(arguments: list[str]) -> int:
    """The child: log one run; the exit code. Every failure is one line, which the parent sends to log.txt."""
    os.environ.update(QUIET)
    for key, value in PATIENCE.items():
        os.environ.setdefault(key, value)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    try:
        write_to_store(Path(arguments[0]))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        sys.stderr.write(f"{stamp} not logged to MLflow: {type(error).__name__}: {reason}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
