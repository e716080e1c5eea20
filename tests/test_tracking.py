"""MLflow: what is logged, that nobody waits for it, and what is said when it cannot be."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clbench.cli.ui import ui_command
from clbench.errors import RunFailed, UserError
from clbench.record import read_record
from clbench.table import EvaluationTable
from clbench.tracking import curves, finals, log_run, parameters, results_of, tracking_uri

Runs = dict[tuple[str, int], Path]
Copy = Callable[[str, int], Path]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("CLBENCH_TRACKING", raising=False)


@pytest.fixture(scope="module")
def logged(
    finished_runs: Runs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[tuple[str, int], Path]]]:
    """A results folder whose two runs were logged by two processes at once into a new store; one of them again."""
    import shutil

    results = tmp_path_factory.mktemp("tracked") / "results"
    folders = {}
    for key in (("replay", 0), ("finetune", 1)):
        source = finished_runs[key]
        folders[key] = results / "runs" / source.parts[-3] / source.parts[-2] / source.name
        shutil.copytree(source, folders[key])
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        children = [
            subprocess.Popen([sys.executable, "-m", "clbench.tracking", str(folder)], stderr=subprocess.PIPE)
            for folder in folders.values()
        ]
        for child in children:
            _, errors = child.communicate()
            assert child.returncode == 0, errors
            assert errors == b""
        log_run(folders["replay", 0], wait=True)
        assert list(Path.cwd().iterdir()) == []
    yield results, folders


def query(results: Path, statement: str) -> list[Any]:
    with sqlite3.connect(results / "mlflow.db") as store:
        return store.execute(statement).fetchall()


def test_every_run_is_there_once(logged: tuple[Path, Runs]) -> None:
    results, folders = logged
    found = query(
        results,
        "select e.name, r.name, r.status from runs r join experiments e using (experiment_id)"
        " where r.lifecycle_stage = 'active' order by r.name",
    )
    names = sorted(f"{strategy}-{folder.name}" for (strategy, _), folder in folders.items())
    assert found == [("split-digits", name, "FINISHED") for name in names]
    assert len(query(results, "select * from runs")) == 2


def test_parameters_metrics_curves_and_tags_are_complete(logged: tuple[Path, Runs]) -> None:
    results, folders = logged
    folder = folders["replay", 0]
    record = read_record(folder)
    [(run,)] = query(results, f"select run_uuid from runs where name = 'replay-{folder.name}'")
    assert dict(query(results, f"select key, value from params where run_uuid = '{run}'")) == parameters(record)
    points = query(results, f"select key, step, value from metrics where run_uuid = '{run}'")
    expected = {(name, step): value for name, step, value in curves(folder)}
    expected |= {(name, record["cost"]["steps"]): value for name, value in finals(record).items()}
    assert {(key, step): value for key, step, value in points} == expected
    tags = dict(query(results, f"select key, value from tags where run_uuid = '{run}'"))
    assert (tags["strategy"], tags["seed"], tags["content"]) == ("replay", "0", record["stream"]["content"])
    assert "stores_samples" in tags["needs"]


def test_artifacts_lie_beside_the_store(logged: tuple[Path, Runs]) -> None:
    results, _ = logged
    files = sorted(path.name for path in (results / "mlflow-artifacts").rglob("*") if path.is_file())
    assert files.count("record.json") == files.count("evaluations.parquet") == files.count("config.yaml") == 2


def test_nothing_is_said_in_the_log_when_all_is_well(logged: tuple[Path, Runs]) -> None:
    for folder in logged[1].values():
        log = folder / "log.txt"
        assert not log.exists() or "MLflow" not in log.read_text()


def test_curves_are_the_table_by_steps(finished_runs: Runs) -> None:
    folder = finished_runs["replay", 0]
    rows = EvaluationTable.read(folder / "evaluations.parquet").rows
    points = {(name, step): value for name, step, value in curves(folder)}
    name = rows[-1].eval_set
    last = max((row for row in rows if row.eval_set == name and row.kind == "boundary"), key=lambda row: row.step)
    assert points[f"boundary/{name}", last.step] == last.value
    assert len(points) == len(curves(folder))
    scored = {(row.kind, row.eval_set, row.step) for row in rows if row.value is not None}
    assert len(points) == len(scored)


def test_parameters_are_flat(finished_runs: Runs) -> None:
    record = read_record(finished_runs["replay", 0])
    flat = parameters(record)
    assert flat["strategy_settings.lr"] == str(record["spec"]["strategy_settings"]["lr"])
    assert flat["seed"] == "0"
    assert "data_root" not in flat


def test_off_means_off(run_copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLBENCH_TRACKING", "off")
    folder = run_copy("nmc", 0)
    before = sorted(folder.iterdir())
    log_run(folder, say=pytest.fail)
    assert sorted(folder.iterdir()) == before
    assert not (results_of(folder) / "mlflow.db").exists()


def test_a_server_that_is_down_is_one_line(run_copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{port}")
    folder = run_copy("nmc", 0)
    said: list[str] = []
    log_run(folder, say=said.append)
    assert len(said) == 1
    assert "not reachable" in said[0] and f"clbench runs track {folder.name}" in said[0]
    assert "secret" not in said[0] and "\n" not in said[0]
    with pytest.raises(RunFailed, match="not reachable"):
        log_run(folder, wait=True)


def test_nobody_waits_for_a_server_that_never_answers(run_copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call returns while the child is still trying; the child's failure ends up in log.txt."""
    folder = run_copy("nmc", 0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        log_run(folder, say=pytest.fail)
        log = folder / "log.txt"
        assert log.exists() and log.read_text() == ""
        deadline = time.monotonic() + 120
        while not log.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
    lines = log.read_text().splitlines()
    assert len(lines) == 1 and "not logged to MLflow" in lines[0]


def test_importing_is_cheap() -> None:
    code = "import sys, clbench.tracking; sys.exit(any(name in sys.modules for name in ('mlflow', 'torch', 'pyarrow')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_store_is_the_named_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert results_of(tmp_path / "out" / "runs" / "stream" / "strategy" / "run") == tmp_path / "out"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    assert tracking_uri(tmp_path) == "http://elsewhere:5000"


def test_pages_without_a_store_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no tracked runs"):
        ui_command(tmp_path, 5000)
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="choose another with --port"):
            ui_command(tmp_path, taken.getsockname()[1])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    with pytest.raises(UserError, match="open http://elsewhere:5000 in a browser"):
        ui_command(tmp_path, 5000)


def test_pages_replace_the_process_by_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").touch()
    called: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: called.append(arguments))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ui_command(tmp_path, port)
    [(program, arguments, environment)] = called
    assert program == sys.executable and arguments[1:4] == ["-m", "mlflow", "server"]
    assert f"sqlite:///{tmp_path / 'mlflow.db'}" in arguments and str(port) in arguments
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
