"""The files of a sweep: readable after a crash; one sweep at a time."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from clbench.errors import UserError
from clbench.sweeps.job import Ended, Note, Progress, Started
from clbench.sweeps.journal import Journal, only_sweep, read_journal
from clbench.sweeps.schedule_report import Busy, occupation


def test_events_are_lines_in_their_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "mine", pytest.fail)
    journal.event(Started(1, "process 5"))
    journal.event(Progress(1, 0.5, "task 1"))
    journal.event(Note("a note", 1))
    journal.event(Ended(1, "failed", Path("runs/x"), "why", 1.5))
    journal.close()
    lines = read_journal(tmp_path / "sweeps/mine")
    assert [line["event"] for line in lines] == ["started", "note", "ended"]
    assert lines[2] | {"time": ""} == {
        "time": "", "event": "ended", "job": 1, "status": "failed", "folder": "runs/x", "error": "why", "seconds": 1.5,
    }  # fmt: skip


def test_half_a_line_spoils_no_other(tmp_path: Path) -> None:
    first = Journal(tmp_path, "mine", pytest.fail)
    first.line("begin")
    first.close()
    with (tmp_path / "sweeps/mine/journal.jsonl").open("a") as file:
        file.write('{"time": "2026", "event": "sta')
    second = Journal(tmp_path, "mine", pytest.fail)
    second.line("end")
    second.close()
    assert [line["event"] for line in read_journal(tmp_path / "sweeps/mine")] == ["begin", "end"]
    assert read_journal(tmp_path / "nowhere") == []


def test_empty_outputs_are_cleared_away(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "mine", pytest.fail)
    (journal.output / "1.txt").write_text("")
    (journal.output / "2.txt").write_text("step\n")
    journal.close()
    assert [file.name for file in journal.output.iterdir()] == ["2.txt"]


@pytest.mark.parametrize("name", ["../up", "/etc", "..", "a/b", "", "x" * 300])
def test_any_name_gives_a_folder_in_its_place(tmp_path: Path, name: str) -> None:
    journal = Journal(tmp_path / "out", name, pytest.fail)
    journal.close()
    assert journal.folder.resolve().parent == (tmp_path / "out/sweeps").resolve()


def test_two_sweeps_on_one_folder(tmp_path: Path) -> None:
    with only_sweep(tmp_path / "out", "first"):
        with pytest.raises(UserError, match=rf"another sweep \(first, process {os.getpid()}\) is at work in"):  # noqa: SIM117
            with only_sweep(tmp_path / "out", "second"):
                pass
        with only_sweep(tmp_path / "other", "second"):
            pass
    with only_sweep(tmp_path / "out", "second"):
        pass


def test_a_killed_sweep_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; from clbench.sweeps.journal import only_sweep\n"
        f"with only_sweep(Path({str(tmp_path)!r}), 'a'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    with only_sweep(tmp_path, "b"):
        pass


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --out"), only_sweep(tmp_path / "file" / "out", "a"):
        pass
    with pytest.raises(UserError, match="choose another --out"):
        Journal(tmp_path / "file", "a", pytest.fail)


def test_a_disk_that_fills_up_is_told_once_and_stops_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    journal = Journal(tmp_path, "mine", said.append)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        for _ in range(9):
            journal.line("begin")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    journal.line("end")
    journal.close()
    assert len(said) == 1 and "journal is not kept" in said[0]
    events = [line["event"] for line in read_journal(journal.folder)]
    assert events[0] == "begin" and events[-1] == "end"


def test_occupation_adds_up_by_hand() -> None:
    """Two lanes: 0-4 and 5-9 on one, 1-3 and 3-6 on the other; the engine ends at 10.

    Up to the last start, at 5, the runs fill 8 of 10 s; after it 5 of 10: the second lane, done at 6, waits 3 s
    for the first: that is the tail. The rest is overhead.
    """
    found = occupation([Busy(0, 4), Busy(5, 9), Busy(1, 3), Busy(3, 6)], 2, 10.0)
    assert (found.busy, found.tail, found.overhead) == (13, 3, 4)
    assert found.lanes * found.wall == found.busy + found.tail + found.overhead
    assert occupation([], 2, 1.0).overhead_share is None


def test_a_folder_that_is_moved_in_mid_sweep_is_no_reason_to_fail(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "results", "s", print)
    (tmp_path / "results").rename(tmp_path / "moved")
    journal.line("end")
    journal.close()
    assert [line["event"] for line in read_journal(tmp_path / "moved" / "sweeps" / "s")] == ["end"]
