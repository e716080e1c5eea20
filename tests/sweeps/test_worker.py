"""One job in this process: the same run and the same errors as `clbench run`'s."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clbench.launch import start_run
from clbench.record import read_record, write_record
from clbench.sweeps.job import Ended, Event, Job, Note, Progress
from clbench.sweeps.worker import Watch, execute, record_failure

from .small_jobs import result_of, run_folders, small_job


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))


def do(job: Job, out: Path, stop_at: float | None = None) -> tuple[Ended, list[Event]]:
    """Run a job; with `stop_at`, ask it to stop once it reports that share."""
    events: list[Event] = []

    def send(event: Event) -> None:
        events.append(event)
        if stop_at is not None and isinstance(event, Progress) and event.fraction >= stop_at:
            watch.stop()

    watch = Watch(job, send)
    return execute(job, out, watch), events


def test_a_job_gives_the_run_that_clbench_run_gives(tmp_path: Path) -> None:
    job = small_job(7)
    ended, events = do(job, tmp_path / "sweep")
    assert (ended.job, ended.status, ended.error) == (7, "completed", None) and ended.seconds > 0
    assert ended.folder is not None and ended.folder.parent == tmp_path / "sweep/runs/split-digits/finetune"
    alone, _ = start_run(job.spec, tmp_path / "alone")
    assert result_of(ended.folder) == result_of(alone)
    shares = [event.fraction for event in events if isinstance(event, Progress)]
    assert shares == sorted(shares) and 0 <= shares[0] <= shares[-1] <= 1


def test_progress_is_told_a_few_times_a_second_at_most(tmp_path: Path) -> None:
    ended, events = do(small_job(epochs=60), tmp_path)
    assert len(events) <= 4 * ended.seconds + 2


def test_a_mistake_in_the_specification_leaves_no_folder(tmp_path: Path) -> None:
    ended, _ = do(small_job(epochs=-1), tmp_path)
    assert (ended.status, ended.folder) == ("failed", None)
    assert ended.error is not None and "epochs" in ended.error and "\n" not in ended.error
    assert run_folders(tmp_path) == []


def test_what_raises_is_recorded_in_one_line(tmp_path: Path) -> None:
    ended, _ = do(small_job(strategy="raising.py:Raising", hook="loss"), tmp_path)
    assert ended.status == "failed" and ended.folder is not None and ended.error is not None
    assert "Raising raised in loss" in ended.error and "\n" not in ended.error
    assert read_record(ended.folder)["error"] == ended.error


def test_divergence_is_told_apart(tmp_path: Path) -> None:
    ended, _ = do(small_job(lr=1e30), tmp_path)
    assert ended.status == "diverged" and ended.error is not None and "not finite" in ended.error


def test_a_strategy_that_exits_has_failed(tmp_path: Path) -> None:
    ended, _ = do(small_job(strategy="dying.py:Exits"), tmp_path)
    assert ended.status == "failed" and ended.error == "the run ended with SystemExit: 3"
    assert ended.folder is not None and read_record(ended.folder)["status"] == "failed"


def test_stopped_and_continued_it_ends_like_an_uninterrupted_run(tmp_path: Path) -> None:
    stopped, _ = do(small_job(), tmp_path, stop_at=0.0)
    assert stopped.status == "interrupted" and stopped.folder is not None
    assert read_record(stopped.folder)["status"] == "interrupted"
    continued, notes = do(small_job(resume=stopped.folder), tmp_path)
    assert (continued.status, continued.folder) == ("completed", stopped.folder)
    assert not [event for event in notes if isinstance(event, Note)]
    whole, _ = do(small_job(), tmp_path / "whole")
    assert whole.folder is not None and result_of(continued.folder) == result_of(whole.folder)
    again, _ = do(small_job(resume=stopped.folder), tmp_path)
    assert (again.status, again.folder) == ("completed", stopped.folder), "complete by now: nothing is run"


def test_a_job_that_is_stopped_before_it_begins_has_no_folder(tmp_path: Path) -> None:
    job = small_job()
    watch = Watch(job, lambda event: None)
    watch.stop()
    ended = execute(job, tmp_path, watch)
    assert (ended.status, ended.folder) == ("interrupted", None) and run_folders(tmp_path) == []


@pytest.mark.parametrize("change", ["versions", "source", "damaged", "gone"])
def test_a_run_that_cannot_be_continued_starts_afresh_and_says_so(tmp_path: Path, change: str) -> None:
    stopped, _ = do(small_job(), tmp_path, stop_at=0.0)
    assert stopped.folder is not None
    record: dict[str, Any] = read_record(stopped.folder)
    if change == "versions":
        record["environment"]["versions"]["torch"] = "1.0"
        write_record(stopped.folder, record)
    elif change == "source":
        record["strategy"]["source_hash"] = "0" * 64
        write_record(stopped.folder, record)
    elif change == "damaged":
        (stopped.folder / "record.json").write_text(json.dumps(record)[:100])
    else:
        (stopped.folder / "config.yaml").unlink()
    ended, events = do(small_job(resume=stopped.folder), tmp_path)
    assert ended.status == "completed" and ended.folder not in (None, stopped.folder)
    (note,) = [event.text for event in events if isinstance(event, Note)]
    assert note.startswith("finetune 1: starts afresh: ") and "\n" not in note


def test_damaged_checkpoints_are_no_reason_to_fail(tmp_path: Path) -> None:
    stopped, _ = do(small_job(), tmp_path, stop_at=0.0)
    assert stopped.folder is not None
    for file in stopped.folder.glob("checkpoint/*/tensors.safetensors"):
        file.write_bytes(b"not tensors")
    ended, events = do(small_job(resume=stopped.folder), tmp_path)
    assert ended.status == "completed" and ended.folder not in (None, stopped.folder)
    assert any("damaged" in event.text for event in events if isinstance(event, Note))


def test_a_failure_is_written_over_a_running_record_only(tmp_path: Path) -> None:
    ended, _ = do(small_job(), tmp_path)
    assert ended.folder is not None
    record_failure(ended.folder, "killed")
    assert read_record(ended.folder)["status"] == "completed"
    write_record(ended.folder, read_record(ended.folder) | {"status": "running"})
    record_failure(ended.folder, "killed")
    record = read_record(ended.folder)
    assert (record["status"], record["error"]) == ("failed", "killed") and record["finished"]
    record_failure(tmp_path / "nowhere", "killed")
