"""Resuming at its edges: before a phase's first step, between phases, inside a deployed evaluation, out of budget."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clbench.errors import Interrupted
from clbench.launch import resume_run, start_run

Outcome = Callable[[Path], dict[str, Any]]

HEADER = """
from __future__ import annotations
import torch
from clbench.strategy import Needs, Optimizer, Phase, Strategy
"""

CHANGING = """
class Changing(Strategy):
    def phases(self, task):
        return [
            self.phase("adam", task.train, optimizer=Optimizer("adam", lr=0.01)),
            self.phase("sgd", task.train, optimizer=Optimizer("sgd", lr=0.1, momentum=0.9)),
        ]
"""

PARTLY = """
class Partly(Strategy):
    def setup(self):
        self.state.seen = []

    def note(self, place):
        modes = [m.training for m in self.model.modules()]
        self.state.seen.append([place, sorted(self.trainable()), all(modes), self.gradients()])

    def gradients(self):
        return sum(p.grad is not None for p in self.model.parameters())

    def build(self, task):
        self.state.seen = [*getattr(self.state, "seen", [])]

    def begin_task(self, task):
        self.note("begin_task")

    def phases(self, task):
        head = {"trainable": lambda name: name.startswith("head"), "mode": "eval"}
        return [self.phase("head", task.train, **head), self.phase("again", task.train, begin=self.begin, **head)]

    def begin(self):
        self.note("begin")

    def end_task(self, task):
        self.note("end_task")
        self.state.noise = torch.tensor([float(len(n)) for _, names, _, _ in self.state.seen for n in names])
        self.state.flags = torch.tensor([[float(mode), float(grads)] for _, _, mode, grads in self.state.seen])
"""

AVERAGED = """
class Averaged(Strategy):
    def deploy(self):
        return {name: torch.zeros_like(value) for name, value in self.model.state_dict().items() if value.dim()}
"""

SETTINGS = {"steps": 3, "batch_size": 16, "momentum": 0.9}


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], str]:
    def write(body: str) -> str:
        path = tmp_path / "mine.py"
        path.write_text(HEADER + body)
        return str(path)

    return write


@pytest.mark.parametrize("fault", [f"phase:{n}" for n in (2, 4, 5, 8, 10, 11)])
def test_an_optimiser_that_starts_anew_does_not_inherit_on_resuming(
    runs: Any, outcome: Outcome, written: Any, fault: str
) -> None:
    spec = runs.spec(written(CHANGING), strategy_settings=SETTINGS)
    whole = outcome(runs.whole(spec))
    folder = runs.finish("killed", spec, fault)
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole


@pytest.mark.parametrize("fault", ["phase-begin:2", "end_task:1", "begin_task:2", "phase-begin:3"])
def test_trainability_modes_and_gradients_do_not_outlive_a_phase(
    runs: Any, outcome: Outcome, written: Any, fault: str
) -> None:
    spec = runs.spec(written(PARTLY), strategy_settings=SETTINGS)
    whole = outcome(runs.whole(spec))
    folder = runs.finish("killed", spec, fault)
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole


@pytest.mark.parametrize("count", [3, 20])
def test_interrupted_while_other_weights_are_deployed(
    runs: Any, outcome: Outcome, written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    spec = runs.spec(written(AVERAGED), strategy_settings=SETTINGS, eval_grid="none")
    whole = outcome(runs.whole(spec))

    def interrupted() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(Interrupted):
            start_run(spec, tmp_path / "stopped")

    assert runs.fork(interrupted, f"evaluate:{count}:interrupt") == 0
    folder = next((tmp_path / "stopped").glob("runs/*/*/*"))
    resume_run(folder)
    assert outcome(folder) == whole


@pytest.mark.parametrize("steps", [1, 3, 5, 7])
@pytest.mark.parametrize("name", ["finetune", "ewc"])
def test_a_budget_ends_a_task_like_its_last_step(runs: Any, outcome: Outcome, name: str, steps: int) -> None:
    spec = runs.spec(name, strategy_settings={"steps": 6, "batch_size": 16}, budget={"steps": steps}, eval_grid="full")
    folder = runs.finish("whole", spec, every=None)
    whole = outcome(folder)
    task = 0 if steps <= 6 else 1
    rows = [(row["step"], row["tasks_seen"]) for row in whole["table"] if row["kind"] == "trace"]
    assert (steps, task) in rows
    assert (steps, task + 1) in rows
    assert whole["steps"] == steps
    killed = runs.finish("killed", spec, "end_task:2")
    assert runs.resume(killed) == 0
    assert outcome(killed) == whole
    warnings = [json.loads((f / "record.json").read_text())["warnings"] for f in (folder, killed)]
    assert warnings[0] == warnings[1]


def test_an_empty_last_phase_does_not_repeat_an_evaluation(runs: Any, outcome: Outcome, written: Any) -> None:
    body = """
class EmptyEnd(Strategy):
    def phases(self, task):
        return [self.phase("train", task.train), self.phase("nothing", task.train, steps=0)]
"""
    table = outcome(runs.finish("run", runs.spec(written(body), strategy_settings=SETTINGS), every=None))["table"]
    assert [r["step"] for r in table if r["tasks_seen"] == 1 and r["eval_set"] == "task0" and r["kind"] == "trace"]
