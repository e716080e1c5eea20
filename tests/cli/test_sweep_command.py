"""`clbench sweep`: real sweeps of small runs, interrupted in every way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from clbench.sweeps.journal import read_journal

from .conftest import Cli, example

DEFAULTS = {
    "stream": "split-digits", "stream.tasks": 2, "train_per_task": 48, "test_per_task": 20, "seeds": [0],
    "backbone": "mlp",
}  # fmt: skip
SLOW = {"strategy": example("stopping.py:Slow"), "epochs": 8, "seeds": [0, 1]}
NMC = {"strategy": "nmc"}
Entry = dict[str, Any]


def suite(*runs: Entry, name: str = "small", folder: Path = Path()) -> str:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"name": name, "defaults": DEFAULTS, "runs": list(runs)}))
    return str(file)


def result_of(folder: Path) -> tuple[Any, ...]:
    """What must be equal byte for byte; the specification last."""
    record = json.loads((folder / "record.json").read_text())
    rows = pq.read_table(folder / "evaluations.parquet").to_pylist()
    return record["status"], record["state_hash"], record["metrics"], rows, record["spec"]


def results(out: Path) -> dict[tuple[str, int], tuple[Any, ...]]:
    """By strategy and seed; every folder is a completed run."""
    found = {}
    for folder in out.glob("runs/*/*/*"):
        result = result_of(folder)
        assert result[0] == "completed", folder
        found[folder.parent.name, result[-1]["seed"]] = result
    return found


def test_a_sweep_gives_the_runs_of_clbench_run_and_skips_them_afterwards(cli: Cli) -> None:
    file = suite({"strategy": "finetune", "steps": 3, "seeds": "0-1"}, NMC)
    answer = cli("sweep", file, "--no-tracking", "--jobs", "2")
    assert answer.code == 0, answer.err
    assert "sweep small: 3 runs, 3 completed" in answer.out and "clbench leaderboard split-digits\n" in answer.out
    assert "finetune  2/2" in answer.out and "nmc       1/1" in answer.out
    assert answer.err.count("completed, average") == 3 and "[3/3]" in answer.err
    folder = Path("results/sweeps/small")
    assert (folder / "suite.yaml").read_text() == Path(file).read_text()
    assert len(json.loads((folder / "plan.json").read_text())["runs"]) == 3
    report = json.loads((folder / "report.json").read_text())
    assert report["status"] == "completed" and report["counts"]["completed"] == 3
    assert report["scheduling"]["busy"] > 0 and all(run["folder"] and run["seconds"] for run in report["runs"])
    assert [line["event"] for line in read_journal(folder)].count("ended") == 3

    swept = results(Path("results"))
    options = [f"--set={key}={value}" for key, value in list(DEFAULTS.items())[1:4]]
    alone = ["--backbone", "mlp", "--threads", "1", "--no-tracking", "--out", "alone"]
    assert cli("run", "finetune", "split-digits", *options, "--set", "steps=3", "--seeds", "0-1", *alone).code == 0
    assert cli("run", "nmc", "split-digits", *options, *alone).code == 0
    assert swept == results(Path("alone")) and len(swept) == 3

    again = cli("sweep", file, "--no-tracking", "--json")
    assert again.code == 0 and again.json()["before"] == 3 and again.json()["path"] == "results/sweeps/small"
    assert results(Path("results")) == swept


def test_a_failing_run_is_recorded_and_the_others_go_on(cli: Cli) -> None:
    broken = {"strategy": example("raising.py:Raising"), "hook": "after_step"}
    wild = {"strategy": "finetune", "steps": 3, "lr": 1e30}
    file = suite(broken, wild, NMC)
    answer = cli("sweep", file, "--no-tracking")
    assert answer.code == 1
    assert "3 runs, 1 completed, 1 failed, 1 diverged" in answer.out
    assert "Raising   0/1, 1 failed" in answer.out and "finetune  0/1, 1 diverged" in answer.out
    line = next(line for line in answer.out.splitlines() if line.startswith("failed"))
    assert "Raising raised in after_step" in line and "no luck" in line
    assert "clbench sweep small.yaml   (tries the failed ones again)" in answer.out
    assert "Traceback" not in answer.out + answer.err
    output = Path("results/sweeps/small/output")
    assert [file.read_text() for file in output.iterdir()] == ["a strategy that prints\n"]
    again = cli("sweep", file, "--no-tracking", "--quiet", "--json").json()
    assert [run["status"] for run in again["runs"]] == ["failed", "diverged", "completed"]
    assert [run["before"] for run in again["runs"]] == [False, True, True], "what diverged diverges again"


def test_an_interrupted_run_is_resumed_by_the_sweep(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run stops by itself, as on an external SIGTERM; the others go on, the next sweep finishes it."""
    file = suite({"strategy": "finetune", "epochs": 2})
    monkeypatch.setenv("CLBENCH_FAULT", "evaluate:1:interrupt")
    first = cli("sweep", file, "--no-tracking")
    assert first.code == 1 and "1 not done" in first.out
    monkeypatch.delenv("CLBENCH_FAULT")
    second = cli("sweep", file, "--no-tracking", "--json")
    assert second.code == 0, second.err
    assert len(results(Path("results"))) == 1, "in the same folder"
    assert cli("sweep", file, "--no-tracking", "--out", "whole").code == 0
    assert results(Path("results")) == results(Path("whole"))


def test_dry_run_runs_nothing(cli: Cli) -> None:
    file = suite({"strategy": "finetune", "seeds": "0-1"}, NMC)
    answer = cli("sweep", file, "--dry-run", "--no-probe")
    assert answer.code == 0 and "3 runs: 0 done, 0 to resume, 3 to run" in answer.out
    assert len(cli("sweep", file, "--dry-run", "--no-probe", "--json").json()["runs"]) == 3
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.yaml"], "no such suite: nowhere.yaml"),
        (["small.yaml", "--engine", "rai"], "unknown engine 'rai'; did you mean ray?"),
        (["small.yaml", "--gather", "s3://x"], "--gather belongs to --engine ray"),
        (["small.yaml", "--jobs", "0"], "--jobs"),
        (["small.yaml", "--out", "small.yaml"], "choose another --out"),
        (["bad.yaml"], "epohcs"),
    ],
)
def test_mistakes_are_one_line(cli: Cli, arguments: list[str], words: str) -> None:
    suite(NMC)
    suite({"strategy": "finetune", "epohcs": 3}, name="bad")
    answer = cli("sweep", *arguments, "--no-tracking")
    assert answer.code == 2 and words in answer.error()
    assert not Path("results/runs").exists()


# -- sweeps in processes of their own --------------------------------------------------------------------------------


class Sweep:
    """`clbench sweep` in a process group of its own, as in a terminal."""

    def __init__(self, folder: Path, file: str, *arguments: str) -> None:
        environment = {**os.environ, "CLBENCH_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        self.folder = folder
        self.out = folder / "results"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "clbench", "sweep", file, "--no-tracking", "--jobs", "2", *arguments],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def wait_for_steps(self, runs: int = 2) -> None:
        """Until so many runs have taken a step."""
        self.wait_for(lambda: sum("step" in f.read_text() for f in self.out.glob("sweeps/*/output/*.txt")) >= runs)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline and self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def workers(self) -> list[int]:
        lines = read_journal(self.out / "sweeps/small")
        return [int(line["where"].split()[-1]) for line in lines if line["event"] == "started"]

    def signal_group(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err

    def clean(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                return


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Sweep]]:
    begun: list[Sweep] = []

    def call(*arguments: str) -> Sweep:
        begun.append(Sweep(tmp_path, suite(SLOW, NMC, folder=tmp_path), *arguments))
        return begun[-1]

    yield call
    for sweep in begun:
        sweep.clean()


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def uninterrupted(cli: Cli, tmp_path: Path) -> dict[tuple[str, int], tuple[Any, ...]]:
    """The same runs in one go, without their sleep; the specification, which says so, left out."""
    file = suite(SLOW | {"seconds": 0.0}, NMC, folder=tmp_path)
    assert cli("sweep", file, "--no-tracking", "--out", "whole", "--quiet").code == 0
    return {key: result[:-1] for key, result in results(Path("whole")).items()}


def test_ctrl_c_and_the_same_command_again_give_the_uninterrupted_results(
    cli: Cli, start: Callable[..., Sweep], tmp_path: Path
) -> None:
    first = start()
    first.wait_for_steps()
    second = cli("sweep", "small.yaml", "--no-tracking")
    assert second.code == 2 and "another sweep (small, process" in second.error()
    first.signal_group(signal.SIGINT)
    code, out, err = first.end()
    lines = err.splitlines()
    assert code == 130 and "Traceback" not in err and len(lines) == 2, err
    assert lines[0].startswith("clbench: stopping") and "3 not done" in out
    command = lines[1].partition("continue with: clbench ")[2]
    assert command.startswith("sweep ") and "0 of 3 runs done" in lines[1]
    assert json.loads((tmp_path / "results/sweeps/small/report.json").read_text())["status"] == "interrupted"
    states = [json.loads(file.read_text())["status"] for file in tmp_path.glob("results/runs/*/*/*/record.json")]
    assert states == ["interrupted", "interrupted"]
    again = cli(*command.split(), "--no-tracking")
    assert again.code == 0, again.err
    swept = {key: result[:-1] for key, result in results(tmp_path / "results").items()}
    assert swept == uninterrupted(cli, tmp_path)


@pytest.mark.slow
def test_a_killed_sweep_leaves_no_orphans_and_the_next_one_goes_on(
    cli: Cli, start: Callable[..., Sweep], tmp_path: Path
) -> None:
    first = start()
    first.wait_for_steps()
    workers = first.workers()
    assert len(workers) >= 2 and any(running(pid) for pid in workers)
    first.process.send_signal(signal.SIGKILL)
    first.end()
    deadline = time.monotonic() + 10
    while any(running(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert cli("sweep", "small.yaml", "--no-tracking").code == 0
    records = [json.loads(path.read_text()) for path in tmp_path.glob("results/runs/*/*/*/record.json")]
    done = {(r["strategy"]["name"], r["spec"]["seed"]): r["state_hash"] for r in records if r["status"] == "completed"}
    assert done == {key: result[1] for key, result in uninterrupted(cli, tmp_path).items()}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_stops_at_once(
    cli: Cli, start: Callable[..., Sweep], tmp_path: Path, number: signal.Signals
) -> None:
    first = start()
    first.wait_for_steps()
    workers = first.workers()
    for _ in range(2):
        first.signal_group(number)
        time.sleep(0.01)
    code, _, err = first.end()
    assert code == 130 and "Traceback" not in err
    assert not any(running(pid) for pid in workers)
    assert cli("sweep", "small.yaml", "--no-tracking", "--json").json()["counts"]["completed"] == 3
    done = [result_of(path.parent) for path in tmp_path.glob("results/runs/*/*/*/evaluations.parquet")]
    whole = uninterrupted(cli, tmp_path).values()
    assert sorted(result[1] for result in done) == sorted(result[1] for result in whole)


@pytest.mark.slow
def test_sigterm_to_every_process_at_once_saves_all(start: Callable[..., Sweep], tmp_path: Path) -> None:
    """As a batch system does it."""
    first = start()
    first.wait_for_steps()
    workers = first.workers()
    first.process.send_signal(signal.SIGTERM)
    for pid in workers:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
    code, _, err = first.end()
    assert code == 130 and "Traceback" not in err
    saved = [path for path in tmp_path.glob("results/runs/*/*/*") if any(path.glob("checkpoint/*"))]
    assert len(saved) == 2
