"""Wrong usage: exit code 2, one line on stderr that names what is near, nothing on stdout, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Cli, example

CASES = {
    "no such command": (["rnu"], ["rnu", "run"]),
    "no such option": (["run", "finetune", "split-digits", "--sed", "1"], ["--sed", "--seed"]),
    "no subcommand": (["runs"], ["missing command; one of: list, show, remove", "clbench runs --help"]),
    "far from any command": (["runs", "zzz"], ["no such command 'zzz'; one of: list, show"]),
    "missing argument": (["show", "strategy"], ["missing argument", "NAME"]),
    "not a number": (["run", "finetune", "split-digits", "--seed", "x"], ["--seed", "integer"]),
    "strategy": (["run", "finetun", "split-digits"], ["unknown strategy 'finetun'", "finetune"]),
    "stream": (["run", "finetune", "split-digit"], ["unknown stream 'split-digit'", "split-digits"]),
    "no stream": (["run", "finetune"], ["no stream is named"]),
    "nothing at all": (["run"], ["no strategy is named"]),
    "key": (["run", "ewc", "split-digits", "--set", "ewc_lamda=1"], ["'ewc_lamda'", "ewc_lambda"]),
    "stream key": (["run", "ewc", "split-digits", "--set", "taks=1"], ["'taks'", "tasks"]),
    "prefixed key": (["run", "ewc", "split-digits", "--set", "stream.lr=1"], ["stream split-digits", "'lr'"]),
    "no value": (["run", "ewc", "split-digits", "--set", "lr"], ["--set 'lr'", "KEY=VALUE"]),
    "type": (["run", "finetune", "split-digits", "--set", "lr=fast"], ["strategy finetune", "lr='fast'", "number"]),
    "range": (["run", "finetune", "split-digits", "--set", "lr=-1"], ["strategy finetune", "lr=-1", "0"]),
    "stream range": (["run", "finetune", "split-digits", "--set", "tasks=0"], ["stream split-digits", "tasks=0"]),
    "choice": (["run", "ewc", "split-digits", "--set", "labels=some"], ["labels='some'", "'true'"]),
    "yaml": (["run", "finetune", "split-digits", "--set", "sizes=[3,"], ["sizes=[3,", "YAML"]),
    "schedule": (["run", "finetune", "split-digits", "--schedule", "cosin"], ["'cosin'", "cosine"]),
    "backbone": (["run", "finetune", "split-digits", "--backbone", "slim-resnet"], ["slim-resnet", "slim-resnet18"]),
    "precision": (["run", "finetune", "split-digits", "--precision", "fp8"], ["precision='fp8'", "bf16"]),
    "head": (["run", "finetune", "split-digits", "--head", "round"], ["head='round'", "cosine"]),
    "grid": (["run", "finetune", "split-digits", "--eval-grid", "often"], ["eval_grid='often'", "full"]),
    "negative seed": (["run", "finetune", "split-digits", "--seed", "-1"], ["seed=-1"]),
    "threads": (["run", "finetune", "split-digits", "--threads", "0"], ["threads=0"]),
    "budget": (["run", "finetune", "split-digits", "--budget", "flop=1"], ["flop", "flops"]),
    "budget unit": (["run", "finetune", "split-digits", "--budget", "memory=1XB"], ["memory=1XB"]),
    "budget sign": (["run", "finetune", "split-digits", "--budget", "steps=0"], ["budget"]),
    "seeds": (["run", "finetune", "split-digits", "--seeds", "4-1"], ["--seeds '4-1'"]),
    "both seeds": (["run", "finetune", "split-digits", "--seeds", "0-1", "--seed", "1"], ["--seed and --seeds"]),
    "more tasks than classes": (["run", "finetune", "split-digits", "--set", "tasks=11"], ["11", "10"]),
    "config": (["run", "--config", "nowhere.yaml"], ["no such config file", "nowhere.yaml"]),
    "recipe": (["run", "--config", "slca/split-cifar10"], ["no recipe 'slca/split-cifar10'", "slca/split-cifar100"]),
    "capitals": (["show", "strategy", "LWF"], ["did you mean lwf?"]),
    "resume": (["resume", "nowhere"], ["no run 'nowhere'", "clbench runs list"]),
    "resume a folder": (["resume", "no/where"], ["no such run folder"]),
    "show run": (["runs", "show", "nowhere"], ["no run 'nowhere'"]),
    "list": (["list", "strategy"], ["cannot list 'strategy'", "strategies"]),
    "show": (["show", "steam", "x"], ["cannot show 'steam'", "stream"]),
    "show strategy": (["show", "strategy", "ecw"], ["unknown strategy 'ecw'", "ewc"]),
    "show metric": (["show", "metric", "forgeting"], ["forgeting", "forgetting"]),
    "metrics file": (["metrics", "nowhere.csv"], ["nowhere.csv"]),
    "strategy file": (["run", "./nowhere.py:X", "split-digits"], ["no such strategy file", "nowhere.py"]),
    "strategy class": (
        ["run", example("stopping.py:Slo"), "split-digits"],
        ["no strategy class 'Slo'", "Slow"],
    ),
    "two classes": (["run", example("stopping.py"), "split-digits"], ["2 strategy classes", "PressesCtrlC", ":Class"]),
    "stream as strategy": (["run", "split-digits", "finetune"], ["unknown strategy 'split-digits'"]),
    "new": (["new", "strategy", "1st"], ["'1st'"]),
}


@pytest.mark.parametrize("arguments, words", CASES.values(), ids=CASES.keys())
def test_one_line_and_code_2(cli: Cli, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    answer = cli(*arguments)
    assert answer.code == 2
    line = answer.error()
    for word in words:
        assert word in line
    assert not (tmp_path / "results").exists()


def test_a_model_that_is_built_late_leaves_no_run(cli: Cli, tmp_path: Path) -> None:
    answer = cli("run", "nmc", "split-digits", "--backbone", "timm:vit_tini")
    assert answer.code == 2 and answer.out == ""
    assert "'vit_tini'" in answer.error()
    assert not list((tmp_path / "results").glob("runs/*/*/*"))


def test_a_key_of_both_must_be_prefixed(cli: Cli, tmp_path: Path) -> None:
    method = tmp_path / "both.py"
    method.write_text(
        "from clbench.config import setting\nfrom clbench.strategy import Strategy\n"
        "class Both(Strategy):\n    '''x'''\n    class Config(Strategy.Config):\n"
        "        tasks: int = setting(1, 'tasks', source='a test')\n"
    )
    line = cli("run", f"{method}:Both", "split-digits", "--set", "tasks=2").error()
    assert "strategy.tasks=2" in line and "stream.tasks=2" in line


def test_a_syntax_error_in_a_strategy_file_is_located(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("x = 1\nclass Bad(:\n")
    answer = cli("run", "./bad.py:Bad", "split-digits")
    assert answer.code == 2 and "bad.py:2" in answer.error()
    answer = cli("show", "strategy", "./bad.py:Bad")
    assert answer.code == 2 and "bad.py:2" in answer.error()


def test_a_strategy_file_that_raises_on_import(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from clbench.strategy import Strategy\nimport no_such_package\nclass Bad(Strategy):\n    '''x'''\n"
    )
    answer = cli("run", "./bad.py:Bad", "split-digits")
    assert answer.code == 2 and "no_such_package" in answer.error()


def test_config_files_are_checked_by_key(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("strategy: finetune\nstrem: split-digits\n")
    assert "'strem'; did you mean stream" in cli("run", "--config", config).error()
    config.write_text("strategy: [\n")
    assert "cannot read config" in cli("run", "--config", config).error()
    config.write_text("strategy: finetune\nstream: split-digits\nstrategy_settings: 3\n")
    assert "strategy_settings must hold" in cli("run", "--config", config).error()
    config.write_text("strategy: finetune\nstream: split-digits\nstrategy_settings: {lr: -3}\n")
    assert "strategy finetune: lr=-3" in cli("run", "--config", config).error()


def test_an_output_folder_below_a_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = cli("run", "nmc", "split-digits", "--no-tracking", "--out", tmp_path / "file")
    assert answer.code == 2 and "--out" in answer.error()


def test_debug_shows_the_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLBENCH_DEBUG", "1")
    answer = cli("run", "finetun", "split-digits")
    assert answer.code == 2 and "Traceback" in answer.err
    assert answer.err.splitlines()[-1].startswith("clbench: unknown strategy")


def test_lost_weights_leave_no_run(cli: Cli, tmp_path: Path) -> None:
    answer = cli("run", "nmc", "split-digits", "--backbone", "micro-vit@lost.safetensors")
    assert answer.code == 2 and "weights lost.safetensors: no such file" in answer.error()
    assert not list((tmp_path / "results").glob("runs/*/*/*"))
