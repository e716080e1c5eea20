"""Forks: the branch touches nothing of the trunk, both are evaluated, and a kill anywhere changes no byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clbench.errors import RunFailed, UserError
from clbench.launch import start_run
from clbench.registry import STRATEGIES, load_strategy, targets
from clbench.spec import make_spec
from clbench.verify import verify

Outcome = Callable[[Path], dict[str, Any]]

TRUNK = {"batch_size": 16, "steps": 8}
FORKED = {"batch_size": 16, "steps": 10, "anneal": 0.2}
ADAMW = {"optimizer": "adamw", "lr": 0.003, "optimizer_state": "keep-moments"}
KEPT = ("stable", "annealed")
TRAINED = sorted(
    name
    for name, target in targets(STRATEGIES).items()
    if target.startswith("clbench.")
    and "anneal" in (fields := load_strategy(name).Config.model_fields)
    and fields["schedule"].default is None  # the stream's: constant, whatever the length of the phase
)
FAULTS = [
    ("stable", "phase:5"),  # of a task's 16 steps: 5 and 1 on the trunk, 2 on the branch, 4 without an optimiser, twice
    ("stable", "fork:2"),
    ("stable", "phase:7"),
    ("stable", "phase:8"),
    ("stable", "phase:10"),
    ("stable", "end_task:1"),
    ("stable", "evaluate:14"),
    ("stable", "rejoin:1"),
    ("stable", "phase:13"),
    ("stable", "phase:25"),
    ("stable", "end_task:4"),
    ("stable", "checkpoint:9"),
    ("annealed", "fork:2"),
    ("annealed", "phase:8"),  # without an optimiser, on the line that is left
    ("annealed", "end_task:3"),
    ("annealed", "evaluate:12"),
    ("annealed", "rejoin:2"),
    ("annealed", "phase:11"),
    ("annealed", "phase:12"),
    ("annealed", "phase:28"),
    ("annealed", "end_task:4"),
    ("annealed", "checkpoint-rename:12"),
]
LATER = [(11, [1]), (16, [1, 2])]
BY_DEFAULT = 6  # one fault of so many


def of_weights(table: list[dict[str, Any]], *weights: str) -> list[dict[str, Any]]:
    """Rows of these weights, as those of a run that never forks would be."""
    return [{**row, "weights": "deploy"} for row in table if row["weights"] in weights]


# -- what the trunk is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [("finetune", {}), ("finetune", ADAMW), ("replay", {"memory_size": 40}), ("ewc", {"fisher_samples": 20, **ADAMW})],
)
def test_the_trunk_is_the_run_without_a_branch(
    runs: Any, outcome: Outcome, name: str, settings: dict[str, Any]
) -> None:
    shorter = outcome(runs.finish("shorter", runs.spec(name, strategy_settings={**TRUNK, **settings}), every=None))
    folder = runs.finish("forked", runs.spec(name, strategy_settings={**FORKED, **settings}), every=None)
    forked = outcome(folder)
    assert forked["state"] == shorter["state"]
    assert of_weights(forked["table"], "deploy", "train") == shorter["table"]
    annealed = [row for row in forked["table"] if row["weights"] == "anneal"]
    assert {(row["step"], row["tasks_seen"], row["kind"]) for row in annealed} == {
        (8, 1, "boundary"),
        (16, 2, "boundary"),
        (24, 3, "boundary"),
    }
    cost = json.loads((folder / "record.json").read_text())["cost"]
    assert (cost["steps"], cost["steps_branch"]) == (24, 6)
    assert cost["samples_train"] == 30 * 16


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_every_strategy_leaves_its_branch_without_a_trace(runs: Any, outcome: Outcome, name: str) -> None:
    kind = load_strategy(name)
    wanted = {"memory_size": 40, "epochs": None}
    settings = {key: value for key, value in wanted.items() if key in kind.Config.model_fields and value is not None}
    model = {
        "backbone": kind.checked_with or None,
        "stream_settings": {"sizes": [3, 5, 2], **kind.checked_on},
    }
    shorter = outcome(
        runs.finish("shorter", runs.spec(name, strategy_settings={**TRUNK, **settings}, **model), every=None)
    )
    forked = outcome(
        runs.finish("forked", runs.spec(name, strategy_settings={**FORKED, **settings}, **model), every=None)
    )
    assert forked["state"] == shorter["state"]
    assert forked["diagnostics"] == shorter["diagnostics"]


def test_both_ways_have_the_same_branch_and_trunk(runs: Any, outcome: Outcome) -> None:
    settings = {**FORKED, "ewc_lambda": 50.0}
    specs = {kept: runs.spec("ewc", strategy_settings={**settings, "resume_from": kept}) for kept in KEPT}
    ends = [outcome(runs.finish(kept, spec, every=None)) for kept, spec in specs.items()]
    for weights in ("train", "anneal"):
        first = [[row for row in end["table"] if row["tasks_seen"] == 1 and row["weights"] == weights] for end in ends]
        assert first[0] == first[1] != []
    assert ends[0]["state"] != ends[1]["state"]


@pytest.mark.parametrize("kept", KEPT)
def test_the_switch_is_that_of_the_weights_training_goes_on_from(runs: Any, outcome: Outcome, kept: str) -> None:
    settings = {**FORKED, "resume_from": kept, "lr": 0.2}
    spec = runs.spec("finetune", strategy_settings=settings, eval_grid="full")  # whole sets are traced
    found = outcome(runs.finish("run", spec, every=None))
    table, metrics = found["table"], found["metrics"]
    at = [row for row in table if row["eval_set"] == "task0" and row["tasks_seen"] == 1 and row["step"] == 8]
    value = {(row["kind"], row["weights"]): row["value"] for row in at}
    assert value["boundary", "train"] != value["boundary", "anneal"]
    assert value["trace", "deploy"] == value["boundary", "train" if kept == "stable" else "anneal"]
    assert metrics["gap"][0]["m0"] == value["trace", "deploy"]
    assert metrics["matrix"]["rows"][0][0] == value["boundary", "anneal"]
    assert metrics["table"]["weights"] == "anneal"
    before = [row for row in table if row["eval_set"] == "task0" and row["tasks_seen"] == 0 and row["step"] == 8]
    assert [row["value"] for row in before] == [value["boundary", "train"]]


ENDING = """
class Ending(Strategy):
    def setup(self):
        self.state.ends = []
        self.cache = None

    def begin_task(self, task):
        self.state.ends.append(["begin", task.index])

    def after_step(self, batch):
        self.state.last = float(self.weight())

    def weight(self):
        return next(self.model.parameters()).double().sum()

    def end_task(self, task):
        self.state.ends.append([float(self.weight()), self.state.last])
        self.snapshot("end")

    def predict(self, inputs):
        if self.cache is None:  # whoever caches for a task must not meet the weights of another line
            self.cache = float(self.weight())
        assert self.cache == float(self.weight()) or self.state.ends[-1][0] == "begin"
        return self.model(inputs)

    def diagnostics(self):
        teacher = self.teacher("end")
        return {"ends": len(self.state.ends), "teacher": float(next(teacher.parameters()).double().sum())}

    def phases(self, task):
        self.cache = None
        return super().phases(task)
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], str]:
    """The strategy in this source text, as file:Class."""

    def write(body: str) -> str:
        path = tmp_path / "written.py"
        head = "import torch\nfrom clbench.strategy import Needs, Optimizer, Phase, Strategy\n\n"
        path.write_text(head + body)
        return str(path)

    return write


@pytest.mark.parametrize("kept", KEPT)
def test_what_end_task_computes_is_of_the_weights_that_go_on(
    runs: Any, written: Any, tmp_path: Path, kept: str
) -> None:
    settings = {**FORKED, "resume_from": kept}
    folder = runs.finish("run", runs.spec(written(ENDING), strategy_settings=settings, eval_grid="none"), every=None)
    told = [entry["values"] for entry in json.loads((folder / "record.json").read_text())["diagnostics"]]
    assert [values["ends"] for values in told] == [2, 4, 6]  # each task has left one beginning and one end
    if kept == "stable":
        other = runs.spec(written(ENDING), strategy_settings=TRUNK, eval_grid="none")
        shorter = json.loads((runs.finish("shorter", other, every=None) / "record.json").read_text())["diagnostics"]
        assert [values["teacher"] for values in told] == [entry["values"]["teacher"] for entry in shorter]


RATES = """
class Rates(Strategy):
    def setup(self):
        self.state.rates = []

    def phases(self, task):
        return [self.phase("train", task.train, update=self.update)]

    def update(self, batch, optimizer):
        self.state.rates.append(optimizer.param_groups[0]["lr"])
        loss = self.objective.loss(self.model, batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def diagnostics(self):
        return {"rates": self.state.rates}
"""


def test_the_rate_falls_on_the_branch_and_stands_on_the_trunk(runs: Any, written: Any) -> None:
    settings = {**FORKED, "lr": 0.1, "anneal": 0.4, "resume_from": "annealed"}
    folder = runs.finish("run", runs.spec(written(RATES), strategy_settings=settings, eval_grid="none"), every=None)
    rates = json.loads((folder / "record.json").read_text())["diagnostics"][0]["values"]["rates"]
    expected = [0.1] * 6 + [0.1 * (0.1 + 0.9 * (1 - (step / 4) ** 0.5)) for step in range(4)]
    assert rates == pytest.approx(expected)


# -- resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kept", "fault"),
    [
        pytest.param(*case, marks=() if number % BY_DEFAULT == 1 else pytest.mark.slow)
        for number, case in enumerate(FAULTS)
    ],
)
def test_killed_and_resumed(runs: Any, outcome: Outcome, everything: str, kept: str, fault: str) -> None:
    spec = runs.spec(everything, strategy_settings={"batch_size": 16, "steps": 5, "anneal": 0.5, "resume_from": kept})
    folder = runs.finish("killed", spec, fault)
    assert runs.resume(folder) == 0
    assert outcome(folder) == outcome(runs.whole(spec))


@pytest.mark.parametrize("kept", KEPT)
def test_killed_on_every_line_of_text(runs: Any, outcome: Outcome, kept: str) -> None:
    settings = {**FORKED, **ADAMW, "resume_from": kept}
    text = {"context": 16, "tokens": 2000, "eval_blocks": 32}
    spec = runs.spec(
        "finetune",
        stream="text-shift",
        stream_settings=text,
        backbone="byte-gpt?d=16,layers=1,ctx=16",
        strategy_settings={**settings, "batch_size": 4},
    )
    whole = outcome(runs.whole(spec))
    folder = runs.finish("killed", spec, "phase:9")
    assert runs.resume(folder, "fork:1" if kept == "annealed" else "rejoin:1") < 0
    assert runs.resume(folder, "phase:12") < 0
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole


@pytest.mark.parametrize("fault", ["phase:20", pytest.param("phase:19", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kept", ["annealed", pytest.param("stable", marks=pytest.mark.slow)])
def test_killed_where_batches_come_from_several_sources(runs: Any, outcome: Outcome, kept: str, fault: str) -> None:
    settings = {**FORKED, "memory": "domains", "share": 0.3, "resume_from": kept}
    spec = runs.spec("replay", strategy_settings=settings, eval_grid="none")
    whole = outcome(runs.whole(spec))
    folder = runs.finish("killed", spec, fault)  # in the second task, whose branch is its 9th and 10th step
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole


# -- budgets, repetition, mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "annealed"),
    [pytest.param(6, [], marks=pytest.mark.slow), (8, [1]), *(pytest.param(*c, marks=pytest.mark.slow) for c in LATER)],
)
def test_a_budget_counts_the_trunk_and_a_completed_one_is_annealed(
    runs: Any, outcome: Outcome, steps: int, annealed: list[int]
) -> None:
    spec = runs.spec("finetune", strategy_settings=FORKED, budget={"steps": steps})
    found = outcome(runs.finish("run", spec, every=None))
    assert found["steps"] == steps
    assert sorted({row["tasks_seen"] for row in found["table"] if row["weights"] == "anneal"}) == annealed
    killed = runs.finish("killed", spec, "end_task:3")
    assert runs.resume(killed) == 0
    assert outcome(killed) == found


def test_a_forked_run_is_verified(runs: Any) -> None:
    spec = runs.spec("replay", strategy_settings={**FORKED, "memory_size": 40, "resume_from": "annealed"})
    found = verify(runs.finish("run", spec, every=None))
    assert (found.verdict, found.faults) == ("identical", [])


def test_without_a_branch_the_specification_is_what_it_was(runs: Any) -> None:
    record = json.loads(
        (runs.finish("run", runs.spec("finetune", strategy_settings=TRUNK), every=None) / "record.json").read_text()
    )
    assert not {"anneal", "resume_from"} & record["spec"]["strategy_settings"].keys()


EARLY = """
class Early(Strategy):
    def phases(self, task):
        return [self.phase("first", task.train), self.phase("second", task.train, anneal=0.0)]
"""
UNTRAINED = """
class Untrained(Strategy):
    def phases(self, task):
        return [self.phase("first", task.train), self.phase("read", task.train, optimizer=None, anneal=0.5)]
"""
FOREIGN = """
class Foreign(Strategy):
    needs = Needs(resume="task")
"""


@pytest.mark.parametrize(
    ("body", "settings", "error"),
    [
        (EARLY, {}, "phase 'first' has anneal=0.2, but phase 'second' trains after it"),
        (UNTRAINED, {}, "phase 'read' has no optimiser: there is nothing to anneal"),
        (FOREIGN, {}, r"cannot go back to a state that was set aside \(resume: task\)"),
        ("class One(Strategy): pass", {"steps": 1}, "phase 'train' has 1 steps, of which anneal=0.2 takes 1"),
        ("class Two(Strategy): pass", {"anneal": 1.0}, "anneal"),
        ("class Two(Strategy): pass", {"resume_from": "both"}, "resume_from"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, written: Any, body: str, settings: dict[str, Any], error: str) -> None:
    with pytest.raises((RunFailed, UserError), match=error) as raised:
        spec = {"strategy": written(body), "stream": "split-digits", "strategy_settings": {**FORKED, **settings}}
        start_run(make_spec(spec), tmp_path / "out")
    assert "\n" not in str(raised.value)
