"""The processes of a run on several devices start, stop, fail and resume as one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from clbench.errors import RunFailed, UserError
from clbench.launch import resume_run, start_run
from clbench.spec import make_spec

DIGITS = {"stream": "split-digits", "stream_settings": {"sizes": [3, 5, 2]}, "backbone": "mlp:32x2"}


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CLBENCH_TRACKING", "off")
    torch.set_num_threads(1)


def fields_for(strategy: str, **more: Any) -> dict[str, Any]:
    settings = {"strategy_settings": {"steps": 6, "batch_size": 8}}
    return {**DIGITS, "strategy": strategy, "threads": 1, "devices": 2, **settings, **more}


def test_killed_and_resumed_it_gives_the_bytes_of_the_uninterrupted_run(runs: Any, outcome: Any) -> None:
    spec = make_spec(fields_for("der++"))
    whole = runs.finish("whole", spec)
    record = json.loads((whole / "record.json").read_text())
    assert (record["environment"]["devices"], record["environment"]["sync_bn"]) == (2, False)
    folder = runs.finish("killed", spec, "phase:9")
    assert runs.resume(folder) == 0
    assert outcome(folder) == outcome(whole)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["phase:2", "evaluate:2", "end_task:2", "checkpoint:3", "initial:1"])
def test_killed_anywhere(runs: Any, outcome: Any, everything: str, fault: str) -> None:
    spec = make_spec(fields_for(everything))
    whole = outcome(runs.finish("whole", spec))
    folder = runs.finish("killed", spec, fault)
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole


def test_a_process_that_dies_ends_the_run_in_one_line_and_it_can_be_resumed(
    own: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIES", str(tmp_path / "died"))
    with pytest.raises(RunFailed, match=r"process 1 of this run \(0 to 1\) was killed by signal 9") as caught:
        start_run(make_spec(fields_for(own("Dies"))), tmp_path / "out", checkpoint_every=1)
    folder = caught.value.folder
    assert folder is not None
    assert json.loads((folder / "record.json").read_text())["status"] == "failed"
    assert not torch.distributed.is_initialized()
    assert resume_run(folder)["status"] == "completed"


@pytest.mark.slow
def test_what_one_process_raises_is_told(own: Any, tmp_path: Path) -> None:
    line = "process 1 of this run: strategy Raises raised in loss in task 0: ValueError: no such luck"
    with pytest.raises(RunFailed, match=line):
        start_run(make_spec(fields_for(own("Raises"))), tmp_path)


def clbench(*arguments: str, cwd: Path, prefix: tuple[str, ...] = ("-m", "clbench"), **environment: str) -> Any:
    command = [sys.executable, *prefix, *arguments]
    return subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )


SMALL_RUN = ("run", "finetune", "split-digits", "--backbone", "mlp:16x1", "--threads", "1", "--set", "steps=6")


def long_run(folder: Path, devices: int) -> tuple[Any, list[int]]:
    """A run that will not end by itself, and its children, once it trains."""
    started = clbench(*SMALL_RUN, "--set", "steps=100000", "--devices", str(devices), cwd=folder)
    deadline = time.monotonic() + 120
    while not any(rows.stat().st_size for rows in folder.glob("results/runs/*/*/*/evaluations.jsonl")):
        assert time.monotonic() < deadline and started.poll() is None, "it never began to train"
        time.sleep(0.1)
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text()
    return started, [int(pid) for pid in children.split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(map(alive, pids)):
        time.sleep(0.1)
    assert not any(map(alive, pids))


@pytest.mark.slow
def test_an_interrupt_stops_all_and_saves(tmp_path: Path) -> None:
    done = clbench(*SMALL_RUN, "--devices", "2", cwd=tmp_path, CLBENCH_FAULT="phase:5:interrupt")
    _, err = done.communicate(timeout=120)
    assert done.returncode == 130, err
    assert err.count("\n") == 2 and "interrupted; continue with: clbench resume" in err
    folder = next(tmp_path.glob("results/runs/*/*/*"))
    assert json.loads((folder / "record.json").read_text())["status"] == "interrupted"
    assert list((folder / "checkpoint").iterdir())


@pytest.mark.slow
def test_a_second_interrupt_ends_a_run_one_of_whose_processes_is_stopped(tmp_path: Path) -> None:
    started, children = long_run(tmp_path, 2)
    os.kill(children[0], signal.SIGSTOP)
    time.sleep(0.3)
    started.send_signal(signal.SIGINT)
    assert "stopping at the next step" in started.stderr.readline()
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 130 and err.count("\n") == 1, err
    assert "interrupted at once; continue from the last checkpoint with: clbench resume" in err
    wait_until_gone(children)


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [False, True])
def test_no_process_is_left_when_the_first_is_killed(stopped: bool, tmp_path: Path) -> None:
    started, children = long_run(tmp_path, 3)
    assert len(children) == 2
    if stopped:
        os.kill(children[0], signal.SIGSTOP)
    started.kill()
    started.communicate()
    wait_until_gone(children)


@pytest.mark.slow
def test_a_term_signal_stops_all_and_saves(tmp_path: Path) -> None:
    started, _ = long_run(tmp_path, 2)
    started.send_signal(signal.SIGTERM)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 130, err


@pytest.mark.slow
def test_torchrun_gives_the_same_run(tmp_path: Path, outcome: Any) -> None:
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "clbench")
    started = clbench(*SMALL_RUN, "--out", "a", "--json", cwd=tmp_path, prefix=launcher)
    out, err = started.communicate(timeout=180)
    assert started.returncode == 0, err
    assert json.loads(out)["environment"]["devices"] == 2
    alone = clbench(*SMALL_RUN, "--out", "b", "--devices", "2", "--json", cwd=tmp_path)
    out, err = alone.communicate(timeout=180)
    assert alone.returncode == 0, err
    one, other = (outcome(next(tmp_path.glob(f"{name}/runs/*/*/*"))) for name in "ab")
    assert one == other


@pytest.mark.slow
def test_under_torchrun_too_the_record_says_what_one_process_raised(own: Any, tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "clbench")
    arguments = ("run", own("Raises"), *SMALL_RUN[2:], "--out", "a")
    started = clbench(*arguments, cwd=tmp_path, prefix=launcher)
    _, err = started.communicate(timeout=180)
    assert started.returncode == 1
    line = "process 1 of this run: strategy Raises raised in loss in task 0: ValueError: no such luck"
    assert err.count(f"clbench: {line}\n") == 1
    record = json.loads(next(tmp_path.glob("a/runs/*/*/*/record.json")).read_text())
    assert (record["status"], record["error"]) == ("failed", line)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"strategy": "nmc", "backbone": None}, "nmc has no gradients to share: it runs on one device"),
        ({"device": "cuda"}, "no GPU is visible"),
    ],
)
def test_what_cannot_be_shared_is_refused(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    if fields.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    values = {"strategy": "finetune", "stream": "split-digits", "devices": 2, **fields}
    with pytest.raises(UserError, match=message):
        start_run(make_spec(values), tmp_path)
    assert not list(tmp_path.glob("runs/*/*/*"))


def test_torchrun_with_another_number_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="torchrun started 4 processes, the run is for 2"):
        start_run(make_spec(fields_for("finetune")), tmp_path)


def test_more_devices_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from clbench.engine.processes import check_devices

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="--devices 2: torch sees 1 GPU here; use fewer, or --device cpu"):
        check_devices(make_spec(fields_for("finetune")), None)
    check_devices(make_spec(fields_for("finetune", device="cpu")), None)


def test_more_processes_than_the_cores_can_take_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from clbench.engine.processes import check_devices

    monkeypatch.setattr("clbench.machine.cores", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check_devices(make_spec(fields_for("finetune", devices=4)), None)
    with pytest.raises(UserError, match="--devices 100: 2 CPU cores here, for at most 4 processes; use fewer"):
        check_devices(make_spec(fields_for("finetune", devices=100)), None)


def test_another_number_of_devices_is_not_resumed(runs: Any, tmp_path: Path) -> None:
    folder = runs.finish("killed", make_spec(fields_for("finetune", devices=1)), "phase:9")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("devices: 1", "devices: 2"))
    with pytest.raises(UserError, match="devices was 1, is 2; start afresh"):
        resume_run(folder)
