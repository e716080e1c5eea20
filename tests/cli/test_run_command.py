"""`clbench run` and `resume`: what they print, keep and return."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from .conftest import SMALL, Answer, Cli, example

SmallRun = Callable[..., Answer]
HOOKS = (
    "setup",
    "build",
    "begin_task",
    "phases",
    "loss",
    "after_backward",
    "after_step",
    "end_task",
    "predict",
)


def only_run(out: Path = Path("results")) -> Path:
    (folder,) = out.glob("runs/*/*/*")
    return folder


def table(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "evaluations.parquet").to_pylist()
    return rows


def test_the_summary(small_run: SmallRun) -> None:
    answer = small_run("finetune")
    assert answer.code == 0 and answer.err == ""
    folder = only_run()
    metrics = json.loads((folder / "record.json").read_text())["metrics"]
    for text in ("finetune on split-digits, seed 0, model mlp", "after task1", "forgetting", "positive = worse"):
        assert text in answer.out
    assert f"{metrics['average']:.4f}" in answer.out and f"{metrics['gap_depth']:.4f}" in answer.out
    assert f"{metrics['matrix']['rows'][1][0]:.3f}" in answer.out
    assert f"{metrics['noise_floor']['gap_depth']:.4f}" in answer.out
    assert "continual evaluation" in answer.out and str(folder) in answer.out
    assert f"clbench run --config {folder}/config.yaml --seeds 1-4\n" in answer.out
    assert "clbench leaderboard split-digits\n" in answer.out and "clbench compare" not in answer.out
    other = small_run("replay")
    assert f"clbench compare {folder} results/runs/split-digits/replay/" in other.out


def test_json_is_the_record_and_nothing_else(small_run: SmallRun) -> None:
    answer = small_run(example("raising.py:Raising"), "--json")
    assert answer.code == 0
    record = answer.json()
    folder = Path(record.pop("path"))
    assert record == json.loads((folder / "record.json").read_text())
    assert record["status"] == "completed"
    assert "a strategy that prints" in answer.err


def test_options_and_settings_reach_the_specification(small_run: SmallRun) -> None:
    answer = small_run(
        "replay", "--set", "strategy.lr=1e-3", "--set", "clip=none", "--seed", "3", "--order-seed", "4", "--head",
        "cosine", "--backbone", "mlp:32x1", "--schedule", "cosine", "--eval-grid", "5", "--online", "--scenario",
        "task", "--budget", "flops=1e12,seconds=1h", "--budget", "memory=10MB", "--channels-last", "--chosen-on",
        "validation", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    spec = answer.json()["spec"]
    expected = {"seed": 3, "order_seed": 4, "head": "cosine", "backbone": "mlp:32x1", "eval_grid": "5", "threads": 1}
    expected |= {"channels_last": True, "chosen_on": "validation"}
    assert {key: spec[key] for key in expected} == expected
    assert spec["budget"] == {"flops": 1e12, "seconds": 3600.0, "memory": 1e7}
    assert spec["strategy_settings"]["lr"] == 1e-3 and spec["strategy_settings"]["schedule"] == "cosine"
    assert spec["strategy_settings"]["clip"] is None
    assert spec["stream_settings"]["online"] is True and spec["stream_settings"]["scenario"] == "task"


def test_config_repeats_a_run_and_options_win(cli: Cli, small_run: SmallRun, tmp_path: Path) -> None:
    first = small_run("finetune", "--json").json()
    config = Path(first["path"]) / "config.yaml"
    again = cli("run", "--config", config, "--no-tracking", "--json").json()
    assert again["spec"] == first["spec"] and again["metrics"] == first["metrics"]
    assert table(Path(again["path"])) == table(Path(first["path"]))
    other = cli("run", "--config", config, "--seed", "1", "--set", "lr=0.001", "--no-tracking", "--json").json()
    assert other["spec"]["seed"] == 1 and other["spec"]["strategy_settings"]["lr"] == 0.001
    assert other["spec"]["stream_settings"] == first["spec"]["stream_settings"]
    partial = tmp_path / "part.yaml"
    partial.write_text(yaml.safe_dump({"stream": "split-digits", "threads": 1, "strategy_settings": {"epochs": 1}}))
    record = cli("run", "nmc", "--config", partial, "--set", "tasks=2", "--no-tracking", "--json")
    assert record.code == 2 and "strategy nmc has no setting 'epochs'" in record.err
    assert yaml.safe_load(config.read_text()) == first["spec"]


def test_several_seeds(small_run: SmallRun) -> None:
    answer = small_run("finetune", "--seeds", "0,2-3", "--json")
    result = answer.json()
    assert answer.code == 0 and [run["spec"]["seed"] for run in result["runs"]] == [0, 2, 3]
    averages = [run["metrics"]["average"] for run in result["runs"]]
    found = result["summary"]["average"]
    assert found["n"] == 3 and found["mean"] == pytest.approx(sum(averages) / 3)
    assert found["low"] <= found["mean"] <= found["high"]
    text = small_run("finetune", "--seeds", "0-1").out
    assert "2 seeds" in text and "+- (95 %)" in text and "clbench compare" in text


def test_a_diverged_seed_does_not_stop_the_others(small_run: SmallRun) -> None:
    answer = small_run("finetune", "--seeds", "0-1", "--set", "lr=1e30", "--json")
    assert answer.code == 1
    assert [run["status"] for run in answer.json()["runs"]] == ["diverged", "diverged"]
    assert answer.json()["summary"] == {}


def test_divergence_keeps_the_table_and_exits_1(small_run: SmallRun) -> None:
    answer = small_run("finetune", "--set", "lr=1e30")
    assert answer.code == 1 and "not finite" in answer.err.splitlines()[-1]
    folder = only_run()
    assert json.loads((folder / "record.json").read_text())["status"] == "diverged"
    assert table(folder) and str(folder) in answer.out


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_raises(small_run: SmallRun, hook: str) -> None:
    answer = small_run(example("raising.py:Raising"), "--set", f"hook={hook}")
    assert answer.code == 1
    line = answer.err.splitlines()[-1]
    assert line.startswith(f"clbench: strategy Raising raised in {hook}") and "no luck in" in line
    assert "Traceback" not in answer.err
    folder = only_run()
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "failed" and hook in record["error"]
    assert "ZeroDivisionError" in (folder / "log.txt").read_text()
    if hook != "setup":
        assert table(folder), "the table so far is kept"


def test_ctrl_c_then_resume_gives_the_uninterrupted_result(cli: Cli, small_run: SmallRun) -> None:
    method = example("stopping.py:PressesCtrlC")
    stopped = small_run(method, "--out", "stopped")
    assert stopped.code == 130
    folder = only_run(Path("stopped"))
    assert stopped.err.splitlines()[-1] == f"clbench: interrupted; continue with: clbench resume {folder}"
    assert f"clbench resume {folder}" in stopped.out
    assert cli("runs", "list", "--results", "stopped", "--json").json()[0]["status"] == "interrupted"
    resumed = cli("resume", folder.name[:12], "--out", "stopped", "--no-tracking", "--json")
    assert resumed.code == 0 and resumed.json()["status"] == "completed"
    whole = small_run(method, "--set", "after=1000000", "--json").json()
    assert resumed.json()["metrics"] == whole["metrics"]
    assert table(folder) == table(Path(whole["path"]))
    again = cli("resume", folder)
    assert again.code == 2 and "nothing to resume" in again.error()


def test_ctrl_c_between_seeds_stops_the_series(small_run: SmallRun) -> None:
    answer = small_run(example("stopping.py:PressesCtrlC"), "--seeds", "0-4")
    assert answer.code == 130 and "clbench resume" in answer.err.splitlines()[-1]
    assert len(list(Path("results/runs").glob("*/*/*"))) == 1


def test_a_run_in_use_cannot_be_resumed_or_removed(cli: Cli, small_run: SmallRun) -> None:
    small_run(example("stopping.py:PressesCtrlC"))
    folder = only_run()
    with (folder / ".lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for command in (("resume",), ("runs", "remove")):
            answer = cli(*command, folder)
            assert answer.code == 2 and "in use by another process" in answer.error()
    assert (folder / "record.json").is_file()


def test_a_changed_strategy_is_not_resumed(cli: Cli, tmp_path: Path) -> None:
    method = tmp_path / "mine.py"
    method.write_text(Path(example("stopping.py")).read_text())
    assert cli("run", f"{method}:PressesCtrlC", *SMALL).code == 130
    method.write_text(method.read_text() + "\n# a change\n")
    sys.modules.pop(next(name for name, m in sys.modules.items() if getattr(m, "__file__", "") == str(method)))
    answer = cli("resume", only_run())
    assert answer.code == 2 and "strategy's source" in answer.err and "clbench run --config" in answer.err


def test_a_full_disk_is_one_line(small_run: SmallRun) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        answer = small_run("finetune")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert answer.code in (1, 2)
    assert "cannot write" in answer.err.splitlines()[-1] and "Traceback" not in answer.err


def test_tracking_is_asked_for_unless_switched_off(
    cli: Cli, small_run: SmallRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    import clbench.tracking

    logged: list[Path] = []
    monkeypatch.setattr(clbench.tracking, "log_run", lambda folder: logged.append(folder))
    small_run("finetune")
    assert logged == []
    monkeypatch.setenv("CLBENCH_TRACKING", "off")
    tracked = [argument for argument in SMALL if argument != "--no-tracking"]
    cli("run", "finetune", *tracked)
    assert logged == []
    monkeypatch.delenv("CLBENCH_TRACKING")
    record = cli("run", "finetune", *tracked, "--json").json()
    assert logged == [Path(record["path"])]

    def broken(folder: Path) -> None:
        raise RuntimeError("no\nstore")

    monkeypatch.setattr(clbench.tracking, "log_run", broken)
    answer = cli("run", "finetune", *tracked, "--json")
    assert answer.code == 0 and answer.json()["status"] == "completed" and "no store" in answer.err


def test_sigint_from_outside(tmp_path: Path) -> None:
    """A real process, a real signal, output piped."""
    arguments = ["run", example("stopping.py:Slow"), *SMALL, "--set", "epochs=1000", "--eval-grid", "none"]
    environment = {**os.environ, "CLBENCH_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "clbench", *arguments],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "step\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    folder = only_run(tmp_path / "results").relative_to(tmp_path)
    lines = err.splitlines()
    assert lines[-1] == f"clbench: interrupted; continue with: clbench resume {folder}" and len(lines) == 2
    assert (tmp_path / folder / "checkpoint").is_dir()
