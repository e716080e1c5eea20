"""MLflow: what is logged, that nobody waits for it, and what is said when it cannot be."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clbench.cli.ui import ui_command
from clbench.errors import RunFailed, UserError
from clbench.record import read_record
from clbench.table import EvaluationTable
from clbench.tracked import curves, finals, parameters
from clbench.tracking import SweepTracking, log_run, results_of, tracking_uri

Runs = dict[tuple[str, int], Path]
Copy = Callable[[str, int], Path]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("CLBENCH_TRACKING", raising=False)


@pytest.fixture
def logged(finished_runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A results folder and its run, which two processes logged at once into a store that did not exist."""
    source = finished_runs["replay", 0]
    results = tmp_path_factory.mktemp("tracked") / "results"
    folder = results / "runs" / source.parts[-3] / source.parts[-2] / source.name
    shutil.copytree(source, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("CLBENCH_TRACKING", "wait")
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        other = subprocess.Popen([sys.executable, "-m", "clbench.tracking", str(folder)], stderr=subprocess.PIPE)
        log_run(folder, say=pytest.fail)
        _, errors = other.communicate()
        assert (other.returncode, errors) == (0, b"")
        assert list(Path.cwd().iterdir()) == []
    return results, folder


def query(results: Path, statement: str) -> list[Any]:
    with sqlite3.connect(results / "mlflow.db") as store:
        return store.execute(statement).fetchall()


@pytest.mark.slow
def test_a_logged_run_is_there_once_and_complete(logged: tuple[Path, Path]) -> None:
    results, folder = logged
    found = query(
        results,
        "select e.name, r.name, r.status, r.lifecycle_stage from runs r join experiments e using (experiment_id)",
    )
    assert found == [("split-digits", f"replay-{folder.name}", "FINISHED", "active")]
    record = read_record(folder)
    assert dict(query(results, "select key, value from params")) == parameters(record)
    points = query(results, "select key, step, value from metrics")
    expected = {(name, step): value for name, step, value in curves(folder)}
    expected |= {(name, record["cost"]["steps"]): value for name, value in finals(record).items()}
    assert {(key, step): value for key, step, value in points} == expected
    tags = dict(query(results, "select key, value from tags"))
    assert (tags["strategy"], tags["seed"], tags["content"]) == ("replay", "0", record["stream"]["content"])
    assert "stores_samples" in tags["needs"]
    files = sorted(path.name for path in (results / "mlflow-artifacts").rglob("*") if path.is_file())
    assert [name for name in files if name != "log.txt"] == [
        "config.yaml",
        "evaluations.parquet",
        "overview.png",
        "record.json",
    ]
    assert (folder / "log.txt").read_text() == "", "something was said though all went well"


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


def sweep_of(results: Path, runs: list[Path]) -> list[Path]:
    """Copies of runs in a results folder."""
    folders = []
    for source in runs:
        folder = results / "runs" / source.parts[-3] / source.parts[-2] / source.name
        shutil.copytree(source, folder)
        folders.append(folder)
    return folders


def report_of(folders: list[Path], status: str = "completed") -> dict[str, Any]:
    runs = [{"folder": str(folder), "status": "completed"} for folder in folders]
    return {"status": status, "seconds": 2.5, "engine": "local", "counts": {"completed": len(folders)}, "runs": runs}


@pytest.mark.slow
def test_a_sweep_is_a_parent_with_nested_runs_in_one_experiment(
    finished_runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it is continued: the same parent, nothing logged twice."""
    monkeypatch.setenv("CLBENCH_TRACKING", "wait")
    results = tmp_path / "results"
    folders = sweep_of(results, [finished_runs[key] for key in (("finetune", 0), ("replay", 0), ("replay", 1))])
    first = SweepTracking("the sweep", results, say=pytest.fail)
    first.run_ended(folders[0])
    first.run_ended(folders[0])
    first.close(report_of(folders[:1], status="interrupted"))
    [(parent, status)] = query(results, "select run_uuid, status from runs where name = 'the sweep'")
    assert status == "KILLED"
    second = SweepTracking("the sweep", results, say=pytest.fail)
    second.run_ended(folders[1])
    second.close(report_of(folders))
    assert (results / "tracking.log").read_text() == ""
    assert query(results, "select name from experiments where name not in ('Default')") == [("the sweep",)]
    runs = dict(query(results, "select run_uuid, status from runs where lifecycle_stage = 'active'"))
    assert len(runs) == 4 and set(runs.values()) == {"FINISHED"}
    nested = dict(query(results, "select run_uuid, value from tags where key = 'mlflow.parentRunId'"))
    assert nested == {run: parent for run in runs if run != parent}
    finals_of = query(results, f"select key, value from latest_metrics where run_uuid = '{parent}'")
    assert dict(finals_of) == {"runs/completed": 3.0, "sweep/seconds": 2.5}
    averages = {value for (value,) in query(results, "select value from latest_metrics where key = 'average'")}
    assert averages == {read_record(folder)["metrics"]["average"] for folder in folders}
    artifacts = results / "mlflow-artifacts" / "the sweep" / parent / "artifacts"
    files = {str(path.relative_to(artifacts)) for path in artifacts.rglob("*") if path.is_file()}
    place = "figures/split-digits"
    assert files == {
        "leaderboard.md",
        "leaderboard.json",
        "leaderboard.html",
        f"{place}/comparison.png",
        f"{place}/comparison.pdf",
        f"{place}/finetune.png",
        f"{place}/replay.png",
    }
    note = query(results, "select value from tags where key = 'mlflow.note.content'")
    assert "replay" in note[0][0] and (artifacts / f"{place}/comparison.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_sweep_that_was_killed_ends_its_parent(
    finished_runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child sees its stdin end, whatever became of the sweep; a run that cannot be read costs one line only."""
    results = tmp_path / "results"
    [folder] = sweep_of(results, [finished_runs["nmc", 0]])
    (results / "broken").mkdir()
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom clbench.tracking import SweepTracking\n"
        "tracking = SweepTracking('cut', Path(sys.argv[1]))\n"
        "for folder in sys.argv[2:]:\n    tracking.run_ended(Path(folder))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    arguments = [sys.executable, "-c", script, str(results), str(results / "broken"), str(folder)]
    assert subprocess.run(arguments).returncode == -9
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (results / "mlflow.db").exists() and (results / "mlflow-artifacts").exists():
            with contextlib.suppress(sqlite3.OperationalError):
                if ("cut", "KILLED") in query(results, "select name, status from runs"):
                    break
        time.sleep(0.2)
    names = sorted(query(results, "select name, status from runs"))
    assert names == [("cut", "KILLED"), (f"nmc-{folder.name}", "FINISHED")]
    lines = (results / "tracking.log").read_text().splitlines()
    assert len(lines) == 1 and "broken" in lines[0] and "record.json is missing" in lines[0]


def test_a_sweep_is_told_once_that_the_server_is_down(
    run_copy: Copy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{port}")
    folder, said = run_copy("nmc", 0), []
    tracking = SweepTracking("down", tmp_path, say=said.append)
    tracking.run_ended(folder)
    tracking.run_ended(tmp_path / "another")
    tracking.close(report_of([folder]))
    assert len(said) == 1 and "not reachable" in said[0] and "secret" not in said[0] and "\n" not in said[0]


def test_a_sweep_without_tracking_starts_nothing(
    run_copy: Copy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLBENCH_TRACKING", "off")
    before = sorted(tmp_path.iterdir())
    tracking = SweepTracking("off", tmp_path, say=pytest.fail)
    tracking.run_ended(tmp_path / "run")
    tracking.close(None)
    SweepTracking("empty", tmp_path, say=pytest.fail).close({"runs": []})
    assert sorted(tmp_path.iterdir()) == before


def test_a_child_that_dies_is_told_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is raised, and nobody waits for it."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    said: list[str] = []
    tracking = SweepTracking("dies", tmp_path, say=said.append)
    deadline = time.monotonic() + 30
    number = 0
    while not said and time.monotonic() < deadline:
        number += 1
        tracking.run_ended(tmp_path / str(number))
        time.sleep(0.05)
    tracking.close({"status": "completed"})
    assert len(said) == 1 and "its process has ended" in said[0]
