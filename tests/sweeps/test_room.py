"""What fits beside what: threads, memory, GPUs (of which a machine needs none for this)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clbench import machine
from clbench.sweeps.job import Resources
from clbench.sweeps.room import Place, Room

NEEDS = st.builds(
    Resources,
    cpus=st.integers(1, 6),
    gpus=st.sampled_from([0, 0.25, 0.5, 1, 2]),
    memory=st.none() | st.integers(1, 100),
)


@given(st.lists(st.tuples(NEEDS, st.booleans()), max_size=30), st.integers(1, 5), st.integers(1, 4))
def test_nothing_is_ever_oversubscribed(wishes: list[tuple[Resources, bool]], jobs: int, cores: int) -> None:
    room = Room(jobs, cores, 120, ["a", "b"])
    taken: list[Place] = []
    for needs, leave in wishes:
        place = room.take(needs)
        assert place is not None or taken, "one job always runs"
        if place is not None:
            taken.append(place)
        assert len(taken) <= jobs and sum(one.cpus for one in taken) <= cores
        assert len(taken) == 1 or sum(one.memory for one in taken) <= 120
        for name in "ab":
            assert sum(one.part for one in taken if name in one.gpus) <= 1 + 1e-9
        if leave and taken:
            room.give_back(taken.pop(0))
    for place in taken:
        room.give_back(place)
    assert room.take(Resources(cores, 2, 120)) == Place(cores, 120, ("a", "b"), 1.0), "everything was given back"


def test_each_job_has_a_gpu_of_its_own() -> None:
    room = Room(4, 4, None, ["0", "1"])
    first, second = room.take(Resources(1, 1)), room.take(Resources(1, 1))
    assert first and second and {first.gpus, second.gpus} == {("0",), ("1",)}
    assert room.take(Resources(1, 1)) is None
    assert room.take(Resources(1, 0)) is not None, "a job without one need not wait"
    room.give_back(first)
    third = room.take(Resources(1, 1))
    assert third and third.gpus == first.gpus


def test_halves_share_a_gpu_before_they_open_another() -> None:
    room = Room(4, 4, None, ["0", "1"])
    halves = [room.take(Resources(1, 0.5)) for _ in range(2)]
    whole = room.take(Resources(1, 1))
    assert {half.gpus for half in halves if half} == {("0",)} and whole and whole.gpus == ("1",)


def test_without_gpus_nobody_waits_for_one() -> None:
    room = Room(2, 2)
    assert room.take(Resources(1, 1)) == Place(1, 0, (), 1.0) and room.take(Resources(1, 8)) is not None


def test_memory_that_does_not_fit_waits_and_one_always_runs() -> None:
    room = Room(4, 4, 10)
    big = room.take(Resources(1, 0, 100))
    assert big is not None and room.take(Resources(1, 0, 1)) is None and not room.full
    room.give_back(big)
    assert (
        room.take(Resources(1, 0, 6)) and room.take(Resources(1, 0, 6)) is None and room.take(Resources(1)) is not None
    )


def test_limits_of_a_container_count(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert machine.cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.cores(tmp_path) == machine.cores(tmp_path / "none") >= 1
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable:      50 kB\n")
    assert machine.available_memory(tmp_path, tmp_path) == 50 * 1024
    (tmp_path / "memory.max").write_text("30000\n")
    (tmp_path / "memory.current").write_text("20000\n")
    (tmp_path / "memory.stat").write_text("anon 5000\ninactive_file 4000\n")
    assert machine.available_memory(tmp_path, tmp_path) == 14000
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.available_memory(tmp_path, tmp_path) == 50 * 1024
    assert machine.available_memory(tmp_path / "none", tmp_path / "none") is None


def test_limits_of_an_older_container(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("100000")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000")
    assert machine.cores(tmp_path) == 1
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1")
    assert machine.cores(tmp_path) == machine.cores(tmp_path / "none")


def test_cores_where_the_system_knows_no_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.cores(tmp_path / "none") == os.cpu_count()
