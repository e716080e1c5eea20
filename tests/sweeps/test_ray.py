"""The Ray engine on real local clusters of several nodes: equal bytes, lost nodes, killed workers, stops."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clbench.errors import UserError
from clbench.record import read_record
from clbench.registry import load_strategy, read_from, source_hash
from clbench.runs import is_active
from clbench.sweeps.job import Ended, Event, Job, Note, Progress, Resources, Started
from clbench.sweeps.local import LocalEngine
from clbench.sweeps.ray_cluster import joined, needs, unmet
from clbench.sweeps.ray_engine import RayEngine

from .small_jobs import EXAMPLES, result_of, run_folders, small_job

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'clbench[ray]'")

STORE = 100 << 20
EPOCHS = 4


def slow_jobs(seconds: float = 0.1) -> list[Job]:
    """Three, slow enough to be caught at work; without the sleep their results are the same."""
    return [small_job(n, "stopping.py:Slow", seed=n, seconds=seconds, epochs=EPOCHS) for n in (1, 2, 3)]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without cores and two nodes of one core each."""
    from ray.cluster_utils import Cluster

    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_AUTH_MODE", "disabled")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE})
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=STORE)
    yield made
    ray.shutdown()
    made.shutdown()
    patch.undo()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """The results of the slow jobs, from the local engine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        ends, _ = sweep(LocalEngine(), slow_jobs(seconds=0), tmp_path_factory.mktemp("local"))
    return {number: result_of(folder_of(end)) for number, end in ends.items()}


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes do not see the results folder: runs are done in scratch folders and travel as bytes."""

    @contextmanager
    def token(out: Path) -> Iterator[str]:
        out.mkdir(parents=True, exist_ok=True)
        yield "nobody-has-this"

    monkeypatch.setattr("clbench.sweeps.ray_engine._token", token)


def sweep(
    engine: RayEngine | LocalEngine,
    jobs: Sequence[Job],
    out: Path,
    watch: Callable[[Event, threading.Event], None] = lambda event, stop: None,
) -> tuple[dict[int, Ended], list[Event]]:
    """Run to the end; the ends by job, checked to be one each, and all events."""
    stop = threading.Event()
    events = []
    for event in engine.run(jobs, out, stop):
        events.append(event)
        watch(event, stop)
    ends = [event for event in events if isinstance(event, Ended)]
    assert sorted(end.job for end in ends) == sorted(job.number for job in jobs)
    return {end.job: end for end in ends}, events


def folder_of(end: Ended) -> Path:
    assert end.status == "completed", end.error
    assert end.folder is not None
    return end.folder


def attempts(events: Sequence[Event], job: int) -> list[int]:
    return [event.attempt for event in events if isinstance(event, Started) and event.job == job]


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def nothing_else_in(out: Path) -> bool:
    return {path.name for path in out.iterdir()} <= {"runs"}


# -- without a cluster -----------------------------------------------------------------------------------------------


def test_ray_missing_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'clbench\[ray\]'"):
        sweep(RayEngine(), [small_job()], tmp_path)


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("address", ["nonsense", "host:port", "", "127.0.0.1:99999"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(UserError, match="HOST:PORT"), joined(address):
        pass


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_no_cluster_at_the_address(form: str) -> None:
    with pytest.raises(UserError, match=r"no Ray cluster at .*refused"), joined(form.format(closed_port())):
        pass


def test_something_else_at_the_address() -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(UserError, match="something else answers"), joined(f"127.0.0.1:{server.server_port}"):
            pass
    finally:
        server.shutdown()
        server.server_close()


def test_what_no_node_can_hold() -> None:
    found = [{"CPU": 4.0, "memory": 8e9}, {"CPU": 2.0, "GPU": 1.0, "memory": 16e9}, {"memory": 1e9}]
    assert unmet({"CPU": 4}, found) is None
    assert unmet({"CPU": 2, "GPU": 0.5}, found) is None
    for wanted in ({"CPU": 5}, {"CPU": 3, "GPU": 1}, {"CPU": 1, "GPU": 2}, {"memory": 17e9}, {"CPU": 1, "GPU": 1.5}):
        problem = unmet(wanted, found)
        assert problem is not None and problem.startswith("asks for") and "\n" not in problem
    assert "no cores at all" in str(unmet({"CPU": 1}, []))


def test_resources_as_ray_names_them() -> None:
    job = small_job(cpus=3)
    assert needs(job) == {"CPU": 3}
    assert needs(replace(job, resources=Resources(2, 0.5, 10**9))) == {"CPU": 2, "GPU": 0.5, "memory": 1e9}
    assert needs(replace(job, spec=job.spec.model_copy(update={"device": "cuda"}))) == {"CPU": 3, "GPU": 1}


def test_a_file_that_lies_elsewhere_keeps_its_source_hash(tmp_path: Path) -> None:
    path, copy = tmp_path / "mine" / "method.py", tmp_path / "copy.py"
    copy.write_bytes((EXAMPLES / "stopping.py").read_bytes())
    name = f"{path}:Slow"
    with pytest.raises(UserError, match="no such strategy file"):
        load_strategy(name)
    read_from(path, copy)
    assert source_hash(load_strategy(name)) == source_hash(load_strategy(f"{EXAMPLES / 'stopping.py'}:Slow"))


def test_a_bad_waiting_time_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLBENCH_RAY_WAIT", "long")
    with pytest.raises(UserError, match="CLBENCH_RAY_WAIT=long"):
        RayEngine()


# -- on clusters -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_results_are_those_of_the_local_engine(cluster: Any, apart: None, tmp_path: Path) -> None:
    """Of built-in strategies and of a user's file; what fails does so alone, in one line, and is gathered."""
    mine = tmp_path / "mine.py"
    shutil.copy(EXAMPLES / "raising.py", mine)
    jobs = [small_job(1, f"{mine}:Raising"), small_job(2, f"{mine}:Raising", hook="loss"), small_job(3, "replay")]
    jobs.append(replace(small_job(4), resources=Resources(1, gpus=2)))
    jobs.append(replace(small_job(5), resources=Resources(1, memory=10**15)))
    local, _ = sweep(LocalEngine(), jobs[:3], tmp_path / "local")

    def remove(event: Event, stop: threading.Event) -> None:
        if isinstance(event, Ended) and event.folder is not None:
            mine.unlink(missing_ok=True)  # the other runs of it have what travelled

    engine = RayEngine(cluster.address, (tmp_path / "there").as_uri(), jobs=1)
    ends, events = sweep(engine, jobs, tmp_path / "ray", remove)
    for number in (1, 3):
        folder, other = folder_of(ends[number]), folder_of(local[number])
        assert result_of(folder) == result_of(other)
        assert read_record(folder)["spec_hash"] == read_record(other)["spec_hash"]
        assert read_record(folder)["strategy"] == read_record(other)["strategy"]
        assert read_record(folder)["spec"] == read_record(other)["spec"]
        there = tmp_path / "there" / folder.relative_to(tmp_path / "ray")
        assert (there / "record.json").read_bytes() == (folder / "record.json").read_bytes()
    assert (ends[2].status, ends[2].error) == (local[2].status, local[2].error)
    assert ends[2].status == "failed" and attempts(events, 2) == [1]
    assert ends[2].folder is not None and "ZeroDivisionError" in (ends[2].folder / "log.txt").read_text()
    assert "2 GPUs" in str(ends[4].error) and "1000000.0 GB" in str(ends[5].error)
    assert any(isinstance(event, Progress) for event in events)
    assert nothing_else_in(tmp_path / "ray")


@pytest.mark.slow
@pytest.mark.parametrize("sees", ["shared", "apart"])
def test_a_node_lost_in_mid_sweep(
    sees: str, cluster: Any, undisturbed: dict[int, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if sees == "apart":
        request.getfixturevalue("apart")
    extra = cluster.add_node(num_cpus=2, object_store_memory=STORE)
    raylet = extra.all_processes["raylet"][0].process.pid
    jobs = slow_jobs()
    on_extra: set[int] = set()

    def lose(event: Event, stop: threading.Event) -> None:
        if isinstance(event, Started) and parent_of(int(event.where.rpartition(" ")[2])) == raylet:
            on_extra.add(event.job)
        trained = isinstance(event, Progress) and event.fraction > 0 and event.job in on_extra
        if trained and extra in cluster.worker_nodes:
            cluster.remove_node(extra, allow_graceful=False)

    ends, events = sweep(RayEngine(cluster.address), jobs, tmp_path / "ray", lose)
    assert {n: result_of(folder_of(end)) for n, end in ends.items()} == undisturbed
    assert extra not in cluster.worker_nodes
    again = [n for n in ends if attempts(events, n) == [1, 2]]
    assert again and all(attempts(events, n) in ([1], [1, 2]) for n in ends)
    assert sum("its node was lost" in event.text for event in events if isinstance(event, Note)) == len(again)
    assert len(run_folders(tmp_path / "ray")) == len(jobs)
    assert nothing_else_in(tmp_path / "ray")


@pytest.mark.slow
def test_a_killed_worker_is_replaced_but_not_for_ever(cluster: Any, tmp_path: Path) -> None:
    lives = [tmp_path / "once", tmp_path / "always"]
    once = small_job(1, "dying.py:Dies", lives=str(lives[0]), deaths=1)
    always = small_job(2, "dying.py:Dies", lives=str(lives[1]), deaths=100)
    ends, events = sweep(RayEngine(cluster.address, retries=1), [once, always], tmp_path / "ray")
    assert (attempts(events, 1), attempts(events, 2)) == ([1, 2], [1, 2])
    assert ends[2].status == "failed" and "its worker died, 2 times" in str(ends[2].error)
    assert ends[2].folder is None or read_record(ends[2].folder)["status"] == "failed"
    local, _ = sweep(LocalEngine(), [once], tmp_path / "local")
    assert result_of(folder_of(ends[1])) == result_of(folder_of(local[1]))


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_later(cluster: Any, undisturbed: dict[int, Any], apart: None, tmp_path: Path) -> None:
    """Where nodes see the results folder: `test_the_command_with_a_ray_of_its_own`."""
    jobs = slow_jobs()

    def press(event: Event, stop: threading.Event) -> None:
        if isinstance(event, Progress) and event.fraction > 0:
            stop.set()

    ends, _ = sweep(RayEngine(cluster.address), jobs, tmp_path / "ray", press)
    assert {end.status for end in ends.values()} == {"interrupted"}
    under_way = {n: end.folder for n, end in ends.items() if end.folder is not None}
    assert under_way and len(under_way) < len(jobs)
    for folder in under_way.values():
        assert read_record(folder)["status"] == "interrupted"
        assert "clbench-scratch" not in (folder / "record.json").read_text()
        assert any((folder / "checkpoint").iterdir())
    rest = [replace(job, resume=under_way.get(job.number)) for job in jobs]
    ends, _ = sweep(RayEngine(cluster.address), rest, tmp_path / "ray")
    assert all(ends[n].folder == folder for n, folder in under_way.items())
    assert len(run_folders(tmp_path / "ray")) == len(jobs)
    for number, end in ends.items():
        assert result_of(folder_of(end)) == undisturbed[number]
        assert not (folder_of(end) / "checkpoint").exists()
        assert not (folder_of(end) / "evaluations.jsonl").exists()


@pytest.mark.slow
def test_an_abandoned_sweep_leaves_no_worker(cluster: Any, tmp_path: Path) -> None:
    jobs = [small_job(n, "stopping.py:Slow", seed=n, seconds=5) for n in (1, 2)]
    events = RayEngine(cluster.address).run(jobs, tmp_path / "ray", threading.Event())
    next(event for event in events if isinstance(event, Progress))
    events.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 15
    folders = run_folders(tmp_path / "ray")
    while any(is_active(folder) for folder in folders) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert folders and not any(is_active(folder) for folder in folders)
    assert nothing_else_in(tmp_path / "ray")


@pytest.mark.slow
def test_a_job_waits_for_nodes_that_may_come(cluster: Any, tmp_path: Path) -> None:
    job = small_job(1, cpus=2)
    ends, _ = sweep(RayEngine(cluster.address), [job], tmp_path / "ray")
    assert ends[1].status == "failed" and "2 CPUs" in str(ends[1].error)
    ends = {}
    engine = RayEngine(cluster.address, wait_for_nodes=120)
    waiting = threading.Thread(target=lambda: ends.update(sweep(engine, [job], tmp_path / "ray")[0]))
    waiting.start()
    added = cluster.add_node(num_cpus=2, object_store_memory=STORE)
    waiting.join()
    local, _ = sweep(LocalEngine(cores=2), [job], tmp_path / "local")
    assert result_of(folder_of(ends[1])) == result_of(folder_of(local[1]))
    cluster.remove_node(added)


@pytest.mark.slow
def test_the_command_with_a_ray_of_its_own(tmp_path: Path) -> None:
    """Ctrl-C saves what is under way; the same command goes on; stdout is JSON and nothing else; nothing is left."""
    suite = tmp_path / "suite.yaml"
    stream = {"stream": "split-digits", "tasks": 2, "train_per_task": 48, "test_per_task": 20, "seeds": "0-1"}
    slow = {"strategy": str(EXAMPLES / "stopping.py:Slow"), "seconds": 0.1, "epochs": EPOCHS}
    suite.write_text(
        json.dumps({"name": "mine", "runs": [{"strategy": "nmc", **stream}, {**slow, **stream, "seeds": 0}]})
    )
    command = [sys.executable, "-m", "clbench", "sweep", str(suite), "--engine", "ray", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "TMPDIR": "/tmp", "CLBENCH_TRACKING": "off"}
    environment.pop("RAY_AUTH_MODE", None)
    before = set(Path("/tmp").glob("clbench-ray-*"))
    first = subprocess.Popen([*command, "--json"], stdout=-1, stderr=-1, env=environment, text=True)
    while first.poll() is None and not list((tmp_path / "out").glob("runs/*/Slow/*/evaluations.jsonl")):
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 130, err
    assert json.loads(out)["status"] == "interrupted"
    second = subprocess.run([*command, "--json"], capture_output=True, env=environment, text=True, timeout=120)
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["counts"]["completed"] == 3
    assert "Traceback" not in err + second.stderr
    assert set(Path("/tmp").glob("clbench-ray-*")) <= before
