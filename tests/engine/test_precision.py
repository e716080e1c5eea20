"""Precision, memory format, compilation and threads: recorded, close to the plain numbers, fixed for a run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from clbench import machine
from clbench.engine.environment import Environment
from clbench.errors import UserError
from clbench.launch import resume_run
from clbench.spec import make_spec

Outcome = Callable[[Path], dict[str, Any]]
IMAGES = {"strategy_settings": {"steps": 5}, "backbone": "slim-resnet18"}
NEAR = 0.15  # of the average accuracy, on 360 test images after 24 steps


def environment(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "record.json").read_text())["environment"]
    return found


def average(outcome: dict[str, Any]) -> float:
    return float(outcome["metrics"]["average"])


def test_bf16_runs_and_is_recorded(runs: Any, outcome: Outcome) -> None:
    spec = {"strategy_settings": {"steps": 20}}
    plain = runs.finish("plain", runs.spec("replay", **spec))
    short = runs.finish("short", runs.spec("replay", **spec, precision="bf16"))
    assert (environment(plain)["precision"], environment(short)["precision"]) == ("fp32", "bf16")
    a, b = outcome(plain), outcome(short)
    assert a["state"] != b["state"]
    assert average(a) > 0.4
    assert average(b) == pytest.approx(average(a), abs=NEAR)


def test_channels_last_runs_and_is_recorded(runs: Any, outcome: Outcome) -> None:
    plain = runs.finish("plain", runs.spec("replay", **IMAGES))
    last = runs.finish("last", runs.spec("replay", **IMAGES, channels_last=True))
    assert (environment(plain)["channels_last"], environment(last)["channels_last"]) == (False, True)
    assert average(outcome(last)) == pytest.approx(average(outcome(plain)), abs=NEAR)


@pytest.mark.slow
def test_compiled_models_run_and_are_recorded(runs: Any, outcome: Outcome) -> None:
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("torch.compile needs a C++ compiler, and none is installed here")
    spec = {"strategy_settings": {"steps": 8}}
    plain = runs.finish("plain", runs.spec("finetune", **spec))
    compiled = runs.finish("compiled", runs.spec("finetune", **spec, compile=True))
    assert (environment(plain)["compile"], environment(compiled)["compile"]) == (False, True)
    assert average(outcome(compiled)) == pytest.approx(average(outcome(plain)), abs=NEAR)


@pytest.mark.parametrize("fault", ["phase:7", "end_task:2"])
def test_bf16_resumes_to_the_same_bytes(runs: Any, outcome: Outcome, fault: str) -> None:
    spec = runs.spec("der++", strategy_settings={"steps": 5}, precision="bf16")
    whole = outcome(runs.whole(spec))
    folder = runs.finish("killed", spec, fault)
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole


@pytest.mark.parametrize(
    ("line", "changed", "message"),
    [
        ("precision: fp32", "precision: bf16", "precision was fp32, is bf16"),
        ("channels_last: false", "channels_last: true", "channels_last was False, is True"),
        ("compile: false", "compile: true", "compile was False, is True"),
    ],
)
def test_a_changed_condition_is_refused(runs: Any, line: str, changed: str, message: str) -> None:
    folder = runs.finish("killed", runs.spec("finetune", strategy_settings={"steps": 5}), "phase:7")
    config = folder / "config.yaml"
    assert line in config.read_text().splitlines()
    config.write_text(config.read_text().replace(line, changed))
    with pytest.raises(UserError, match=message) as refused:
        resume_run(folder)
    assert "\n" not in str(refused.value)
    assert json.loads((folder / "record.json").read_text())["status"] == "running"


@pytest.mark.slow
def test_threads_are_those_of_the_first_sitting(tmp_path: Path, outcome: Outcome) -> None:
    """A run that took the machine's thread count keeps it where fewer cores are left when it is resumed.

    Its processes are fresh ones: OpenMP's threads do not survive a fork.
    """
    cores = sorted(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "clbench"]
    first = [
        *command,
        "run",
        "finetune",
        "split-digits",
        "--backbone",
        "mlp",
        "--set",
        "steps=3",
        "--eval-grid",
        "none",
    ]

    def ended(arguments: list[str], on: list[int], **more: str) -> int:
        variables = {**os.environ, "CLBENCH_CACHE": str(tmp_path / "cache"), **more}
        variables.pop("OMP_NUM_THREADS", None)
        pinned = partial(os.sched_setaffinity, 0, on)
        return subprocess.run(arguments, env=variables, preexec_fn=pinned, capture_output=True).returncode

    def run(name: str, **more: str) -> tuple[int, Path]:
        status = ended([*first, "--out", str(tmp_path / name)], cores, **more)
        return status, next((tmp_path / name).glob("runs/*/*/*"))

    status, whole = run("whole")
    assert (status, environment(whole)["threads"]) == (0, machine.cores())
    status, killed = run("killed", CLBENCH_FAULT="phase:6")
    assert status == -signal.SIGKILL
    assert ended([*command, "resume", str(killed)], cores[:1]) == 0
    assert environment(killed)["threads"] == machine.cores()
    assert outcome(killed) == outcome(whole)


@pytest.mark.parametrize(("told", "threads"), [("3", 3), ("2,1", 2), ("0", 4), ("many", 4), ("", 4)])
def test_the_threads_that_openmp_was_told_are_taken(monkeypatch: pytest.MonkeyPatch, told: str, threads: int) -> None:
    monkeypatch.setattr("clbench.machine.cores", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    spec = make_spec({"strategy": "finetune", "stream": "split-digits"})
    assert Environment(spec).threads == threads
    assert Environment(spec.model_copy(update={"threads": 5})).threads == 5
