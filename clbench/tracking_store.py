"""Writing runs into an MLflow store. Imports mlflow: used by the child processes that `clbench.tracking` starts."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench.record import Record, read_record
from clbench.tracked import RUN_TAG, allowed_name, curves, finals, identity, parameters, tags_of

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient

ARTIFACTS = ("record.json", "config.yaml", "evaluations.parquet", "log.txt")
METRICS_PER_CALL = 1000  # MLflow's limits
PARAMETERS_PER_CALL = 100
PARENT = "mlflow.parentRunId"
KIND = {"mlflow.experimentKind": "custom_model_development"}  # the pages open on runs, not on traces
END_STATES = {"completed": "FINISHED", "interrupted": "KILLED"}


class Store:
    """An MLflow store, and the results folder whose runs are logged."""

    def __init__(self, uri: str, results: Path) -> None:
        self.uri = uri
        self.results = results
        self._client: MlflowClient | None = None

    @contextlib.contextmanager
    def alone(self) -> Iterator[MlflowClient]:
        """One process at a time writes to the store of a results folder; the others wait, before they import mlflow."""
        with _lock(self.results) if self.uri.startswith("sqlite:") else contextlib.nullcontext():
            if self._client is None:
                logging.disable(logging.WARNING)
                from mlflow.tracking import MlflowClient

                self._client = MlflowClient(tracking_uri=self.uri)
            yield self._client

    def log(self, folder: Path, experiment: str | None = None, parent: str | None = None, figures: bool = True) -> None:
        """Log a run once: what was logged of an earlier sitting of it is replaced.

        experiment: a name, by default the stream's. parent: the MLflow run it is nested under.
        """
        record = read_record(folder)
        with self.alone() as client:
            place = self.experiment(client, experiment or record["stream"]["name"])
            earlier = client.search_runs([place], f"tags.`{RUN_TAG}` = '{identity(folder, record)}'")
            logged = next((run for run in earlier if _is_logged(run, record)), None)
            if logged is not None:
                if parent and logged.data.tags.get(PARENT) != parent:
                    client.set_tag(logged.info.run_id, PARENT, parent)
                return
            run = _log(client, place, folder, record, {PARENT: parent} if parent else {})
            for old in earlier:
                client.delete_run(old.info.run_id)
        if figures and record["status"] == "completed":
            self._log_figures(run, folder)

    def experiment(self, client: MlflowClient, name: str) -> str:
        """Id of the experiment with a name; made where it is missing, brought back where it was deleted."""
        found = client.get_experiment_by_name(name)
        if found is None:
            own = not os.environ.get("MLFLOW_TRACKING_URI")
            folder = allowed_name(name).replace("/", "-")
            place = (self.results / "mlflow-artifacts" / folder).as_uri() if own else None
            try:
                return str(client.create_experiment(name, artifact_location=place, tags=KIND))
            except Exception:
                found = client.get_experiment_by_name(name)  # another process was quicker
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _log_figures(self, run: str, folder: Path) -> None:
        """The run's curves as a picture; they are drawn while others may write."""
        from clbench.compare import compare
        from clbench.figures.material import Material
        from clbench.figures.write import overview, render

        material = Material(compare([folder], least=1))
        content = render(material, overview(material), "png")
        with self.alone() as client:
            log_bytes(client, run, content, "figures/overview.png")


def log_bytes(client: MlflowClient, run: str, content: bytes, name: str) -> None:
    """An artifact of a run, from memory. name: with its folders."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(name).name
        path.write_bytes(content)
        parent = str(Path(name).parent)
        client.log_artifact(run, str(path), None if parent == "." else parent)


def _is_logged(run: Run, record: Record) -> bool:
    """Whether an earlier logging is whole and of the same sitting."""
    return run.info.status != "RUNNING" and run.data.tags.get("finished") == str(record["finished"])


def _log(client: MlflowClient, experiment: str, folder: Path, record: Record, tags: dict[str, str]) -> str:
    from mlflow.entities import Param, RunStatus

    begun = milliseconds(record["started"])
    ended = milliseconds(record["finished"] or record["started"])
    name = f"{record['strategy']['name']}-{record['run']}"
    tags = {**tags_of(folder, record), **tags}
    run = str(client.create_run(experiment, start_time=begun, tags=tags, run_name=name).info.run_id)
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
    return run


def _metrics(folder: Path, record: Record, when: int) -> list[Metric]:
    from mlflow.entities import Metric

    last = record["cost"].get("steps", 0) + (record["cost"].get("upstream_steps") or 0)
    return [
        *(Metric(name, value, when, last) for name, value in finals(record).items()),
        *(Metric(name, value, when, step) for name, step, value in curves(folder)),
    ]


@contextlib.contextmanager
def _lock(results: Path) -> Iterator[None]:
    with (results / "mlflow.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def milliseconds(moment: str) -> int:
    """Since 1970, of a record's time."""
    import calendar

    return calendar.timegm(time.strptime(moment, "%Y-%m-%dT%H:%M:%SZ")) * 1000


def one_line(error: Any) -> str:
    """An error's type and message, cut."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
