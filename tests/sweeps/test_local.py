"""The local engine: real processes, killed, stopped and capped."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from clbench.launch import start_run
from clbench.record import read_record
from clbench.runs import is_active
from clbench.sweeps.job import Ended, Event, Job, Note, Progress, Started
from clbench.sweeps.local import LocalEngine, _needs, _Waiting, remove_stillborn

from .small_jobs import result_of, run_folders, small_job


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))


def sweep(
    jobs: Sequence[Job], out: Path, engine: LocalEngine | None = None, watch: Callable[[Event], None] | None = None
) -> tuple[dict[int, Ended], list[Event]]:
    """All events, and how each job ended; each ends once."""
    events = []
    for event in (engine or LocalEngine(2, 2)).run(jobs, out, threading.Event()):
        events.append(event)
        if watch is not None:
            watch(event)
    ends = [event for event in events if isinstance(event, Ended)]
    assert sorted(end.job for end in ends) == sorted(job.number for job in jobs)
    return {end.job: end for end in ends}, events


def folder_of(ended: Ended) -> Path:
    assert ended.folder is not None, ended.error
    return ended.folder


def pid_of(event: Started) -> int:
    return int(event.where.split()[-1])


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_runs_equal_those_of_clbench_run(tmp_path: Path) -> None:
    jobs = [small_job(1, "nmc"), small_job(2, seed=1), small_job(3, "replay")]
    ends, events = sweep(jobs, tmp_path / "sweep")
    for job in jobs:
        assert ends[job.number].status == "completed", ends[job.number].error
        alone, _ = start_run(job.spec, tmp_path / "alone")
        assert result_of(folder_of(ends[job.number])) == result_of(alone)
        assert read_record(folder_of(ends[job.number]))["spec"] == read_record(alone)["spec"]
    assert len({pid_of(event) for event in events if isinstance(event, Started)}) == 3, "a process for each run"


def test_failures_stop_nothing_and_leave_what_clbench_run_leaves(tmp_path: Path) -> None:
    jobs = [small_job(1, "raising.py:Raising", hook="end_task"), small_job(2, epochs=-1), small_job(3, lr=1e30)]
    ends, _ = sweep([*jobs, small_job(4)], tmp_path, LocalEngine(2, 2, output=tmp_path))
    assert [ends[number].status for number in (1, 2, 3, 4)] == ["failed", "failed", "diverged", "completed"]
    assert "raised in end_task" in str(ends[1].error) and "epochs" in str(ends[2].error)
    assert ends[2].folder is None and len(run_folders(tmp_path)) == 3
    assert "a strategy that prints" in (tmp_path / "1.txt").read_text()


def test_a_worker_that_dies_is_replaced_and_its_run_continued(tmp_path: Path) -> None:
    job = small_job(1, "dying.py:Dies", lives=str(tmp_path / "lives"), deaths=2)
    ends, events = sweep([job, small_job(2)], tmp_path / "sweep")
    assert ends[1].status == ends[2].status == "completed"
    assert [event.attempt for event in events if isinstance(event, Started) and event.job == 1] == [1, 2, 3]
    notes = [event.text for event in events if isinstance(event, Note)]
    assert len(notes) == 2 and "SIGKILL" in notes[0] and "taken up again" in notes[0]
    assert len(run_folders(tmp_path / "sweep")) == 2, "in the same folder"
    alone, _ = start_run(job.spec, tmp_path / "alone")  # it has died often enough
    assert result_of(folder_of(ends[1])) == result_of(alone)


def test_a_worker_that_dies_again_and_again_fails_with_the_reason(tmp_path: Path) -> None:
    always = small_job(1, "dying.py:Dies", lives=str(tmp_path / "lives"), deaths=99)
    ends, _ = sweep([always, small_job(2, "dying.py:DiesInSetup"), small_job(3)], tmp_path / "sweep")
    assert [ends[number].status for number in (1, 2, 3)] == ["failed", "failed", "completed"]
    error = "its process was killed (SIGKILL; out of memory?), 3 times"
    record = read_record(folder_of(ends[1]))
    assert (record["status"], record["error"], ends[1].error, ends[2].error) == ("failed", error, error, error)
    assert ends[2].folder is None and len(run_folders(tmp_path / "sweep")) == 2, "no half folder is left"


def test_the_process_that_workers_are_forked_from_may_die(tmp_path: Path) -> None:
    from multiprocessing.forkserver import _forkserver

    killed: list[int] = []

    def kill(event: Event) -> None:
        if isinstance(event, Started) and event.job == 1 and not killed:
            killed.append(_forkserver._forkserver_pid)  # type: ignore[attr-defined]
            os.kill(killed[0], signal.SIGKILL)

    jobs = [small_job(number, seed=number) for number in (1, 2, 3)]
    ends, _ = sweep(jobs, tmp_path / "sweep", watch=kill)
    assert killed and {end.status for end in ends.values()} == {"completed"}
    alone, _ = start_run(jobs[0].spec, tmp_path / "alone")
    assert result_of(folder_of(ends[1])) == result_of(alone)


def test_stopping_saves_what_runs_and_begins_nothing(tmp_path: Path) -> None:
    jobs = [small_job(number, "stopping.py:Slow", seed=number, epochs=30) for number in (1, 2, 3)]
    stop = threading.Event()
    ends = {}
    for event in LocalEngine(2, 2).run(jobs, tmp_path, stop):
        if isinstance(event, Progress) and "/" in event.doing.partition(",")[2]:
            stop.set()
        if isinstance(event, Ended):
            ends[event.job] = event
    assert {end.status for end in ends.values()} == {"interrupted"} and len(ends) == 3
    assert ends[3].folder is None and read_record(folder_of(ends[1]))["status"] == "interrupted"
    assert any((folder_of(ends[1]) / "checkpoint").iterdir())


def test_closing_the_iterator_kills_the_workers(tmp_path: Path) -> None:
    jobs = [small_job(number, "stopping.py:Slow", epochs=30) for number in (1, 2)]
    events: Iterator[Event] = LocalEngine(2, 2).run(jobs, tmp_path, threading.Event())
    pids = []
    for event in events:
        if isinstance(event, Started):
            pids.append(pid_of(event))
        if isinstance(event, Progress) and len(pids) == 2:
            break
    events.close()  # type: ignore[attr-defined]
    assert all(gone(pid) for pid in pids)
    assert not any(is_active(folder) for folder in run_folders(tmp_path))


def test_never_more_threads_than_cores(tmp_path: Path) -> None:
    jobs = [small_job(1, cpus=8), small_job(2), small_job(3)]
    running: set[int] = set()

    def look(event: Event) -> None:
        if isinstance(event, Started):
            running.add(event.job)
        elif isinstance(event, Ended):
            running.discard(event.job)
        assert 1 not in running or running == {1}

    ends, events = sweep(jobs, tmp_path, LocalEngine(3, 2), look)
    (note,) = [event.text for event in events if isinstance(event, Note)]
    assert "asks for up to 8 threads" in note and "2 are used" in note
    assert read_record(folder_of(ends[1]))["environment"]["threads"] == 2


def test_the_processes_of_a_run_count_too(tmp_path: Path) -> None:
    """Two processes of one thread fill two cores; more threads than that are divided between them."""
    apart = small_job(1)
    two = replace(apart, number=2, spec=apart.spec.model_copy(update={"devices": 2}))
    four = replace(two, number=3, spec=two.spec.model_copy(update={"threads": 2}))
    notes = list(LocalEngine(3, 2)._cap([_Waiting(job, _needs(job, False)) for job in (apart, two, four)]))
    assert [_needs(job, False).cpus for job in (apart, two, four)] == [1, 2, 4]
    assert len(notes) == 1 and "asks for up to 4 threads" in notes[0].text


def test_each_gpu_is_given_to_one_job_at_a_time(tmp_path: Path) -> None:
    """The devices are made up; which ones a run would see is what counts."""
    jobs = [small_job(number, "seeing.py:Sees", seed=number) for number in range(4)]
    ends, _ = sweep(jobs, tmp_path, LocalEngine(2, 2, gpus=["GPU-a", "GPU-b"], output=tmp_path))
    assert all(end.status == "completed" for end in ends.values())
    seen = [(tmp_path / f"{number}.txt").read_text().split()[0] for number in range(4)]
    assert set(seen[:2]) == {"GPU-a", "GPU-b"} and set(seen) == {"GPU-a", "GPU-b"}


def test_only_what_nobody_works_on_is_cleared_away(tmp_path: Path) -> None:
    ended = folder_of(sweep([small_job(1)], tmp_path)[0][1])
    dead, unlocked = (ended.parent / name for name in ("dead", "unlocked"))
    for folder in (dead, unlocked):
        folder.mkdir()
    (dead / ".lock").touch()
    remove_stillborn(tmp_path)
    assert sorted(folder.name for folder in run_folders(tmp_path)) == sorted([ended.name, "unlocked"])


@pytest.mark.slow
def test_a_killed_worker_continues_from_its_checkpoint(tmp_path: Path) -> None:
    job = small_job(1, "stopping.py:Slow", epochs=60)
    killed = []

    def kill(event: Event) -> None:
        if isinstance(event, Started):
            started.append(event)
        saved = any(tmp_path.glob("sweep/runs/*/*/*/checkpoint/0*"))
        if isinstance(event, Progress) and saved and not killed:
            killed.append(pid_of(started[-1]))
            os.kill(killed[0], signal.SIGKILL)

    started: list[Started] = []
    ends, events = sweep([job], tmp_path / "sweep", watch=kill)
    assert killed and ends[1].status == "completed"
    again = [event for event in events[events.index(started[1]) :] if isinstance(event, Progress)]
    assert again[1].fraction > 0.1, "not from its beginning"
    alone, _ = start_run(job.spec, tmp_path / "alone")
    assert result_of(folder_of(ends[1])) == result_of(alone)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["finetune", "replay", "ewc", "der", "lwf", "si", "gdumb"])
def test_two_threads_give_the_bytes_of_two_threads(tmp_path: Path, strategy: str) -> None:
    job = small_job(1, strategy, cpus=2)
    ends, _ = sweep([job], tmp_path / "sweep")
    alone, _ = start_run(job.spec, tmp_path / "alone")
    assert result_of(folder_of(ends[1])) == result_of(alone)
