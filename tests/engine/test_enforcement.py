"""What a strategy does not declare it cannot use: each refusal is one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest

from clbench.errors import ClbenchError, RunFailed, UserError
from clbench.launch import start_run

HEADER = """
from __future__ import annotations
import torch
from clbench.strategy import Needs, Strategy

class Mine(Strategy):
"""
Refused = Callable[..., str]


@pytest.fixture
def mine(tmp_path: Path) -> Callable[[str], str]:
    """Write a strategy from the body of its class; `file.py:Mine`."""

    def write(body: str) -> str:
        path = tmp_path / "mine.py"
        path.write_text(HEADER + indent(dedent(body), "    "))
        return f"{path}:Mine"

    return write


@pytest.fixture
def refused(runs: Any, mine: Callable[[str], str], tmp_path: Path) -> Refused:
    """The message a run ends with; it is one line and of this kind."""

    def run(body: str, kind: type[ClbenchError] = RunFailed, stream: str = "split-digits", **fields: Any) -> str:
        fields.setdefault("strategy_settings", {"steps": 2, "batch_size": 16})
        spec = runs.spec(mine(body), stream, **fields)
        with pytest.raises(kind) as error:
            start_run(spec, tmp_path / "out")
        assert type(error.value) is kind
        assert "\n" not in str(error.value)
        return str(error.value)

    return run


@pytest.mark.parametrize(
    ("use", "need"),
    [
        ("def setup(self):\n    self.state.memory = self.memory(10)", "stores_samples"),
        ("def end_task(self, task):\n    self.seen_samples()", "sees_all_data"),
        ("def phases(self, task):\n    return [self.phase('all', self.all_samples())]", "sees_all_data"),
        ("def begin_task(self, task):\n    self.is_last_task()", "knows_horizon"),
    ],
)
def test_services_need_a_declaration(refused: Refused, use: str, need: str) -> None:
    assert f"without declaring it: add `{need}=True` to its `needs`" in refused(use)


@pytest.mark.parametrize("name", ["index", "name", "classes", "new_classes", "validation"])
def test_a_task_without_boundaries_is_data_alone(refused: Refused, name: str) -> None:
    message = refused(f"""
        needs = Needs(task_boundaries=False)
        def phases(self, task):
            task.{name}
            return super().phases(task)
    """)
    expected = f"reads task.{name} without declaring it: add `task_boundaries=True` to its `needs`"
    assert expected in message


@pytest.mark.parametrize("name", ["build", "begin_task", "end_task"])
def test_boundary_hooks_need_task_boundaries(refused: Refused, name: str) -> None:
    message = refused(
        f"""
        needs = Needs(task_boundaries=False)
        def {name}(self, task):
            pass
        """,
        UserError,
    )
    assert message == f"strategy Mine defines {name} but declares task_boundaries=False in its needs"


def test_the_objective_must_be_one_it_works_with(refused: Refused) -> None:
    message = refused("needs = Needs(objectives=('classification',))", UserError, "text-shift", stream_settings={})
    assert message == "strategy Mine works with classification; text-shift is a language_modeling stream"


@pytest.mark.parametrize("tune", ["head", "norm", "bias", "lora", "lora:2"])
def test_what_trains_is_decided_in_one_place(refused: Refused, tune: str) -> None:
    message = refused("tunable = False", UserError, tune=tune)
    assert message == f"strategy Mine decides itself what it trains: use --tune full, not {tune}"


@pytest.mark.parametrize("tune", ["norm", "bias", "lora"])
def test_a_frozen_backbone_is_not_tuned(refused: Refused, tune: str) -> None:
    assert f"features of a frozen backbone: --tune {tune} would train nothing" in refused(
        'inputs = "features"', UserError, tune=tune
    )


def test_a_wrong_tuning_is_refused_before_anything_runs(refused: Refused) -> None:
    assert refused("tunable = False", UserError, tune="ful").startswith("tuning 'ful': use full, head")


def test_the_memory_budget_is_kept(refused: Refused) -> None:
    body = """
        needs = Needs(stores_samples=True)
        def setup(self):
            self.state.memory = self.memory(100)
        def after_step(self, batch):
            self.state.memory.add(batch, self.generator("memory"))
    """
    message = refused(body, budget={"memory": 1000})
    assert message.startswith("the strategy stores ")
    assert "bytes after task 0, over --budget memory=1,000: let it store less" in message


def test_online_data_are_seen_once(refused: Refused) -> None:
    message = refused(
        "pass",
        UserError,
        stream_settings={"sizes": [3, 5, 2], "online": True},
        strategy_settings={"epochs": 2, "batch_size": 16},
    )
    assert message.startswith("split-digits is an online stream: one pass over a task's data, but phase 'train' takes ")
    assert message.endswith("(set epochs=1)")


def test_online_data_may_be_seen_once(runs: Any, mine: Callable[[str], str], tmp_path: Path) -> None:
    stream_settings = {"sizes": [3, 5, 2], "online": True, "train_per_class": 10}
    spec = runs.spec(mine("pass"), stream_settings=stream_settings, strategy_settings={"batch_size": 16})
    _, record = start_run(spec, tmp_path / "out")
    assert record["cost"]["steps"] == 2 + 4 + 2


def test_predict_gives_a_row_for_each_input(refused: Refused) -> None:
    message = refused("""
        def predict(self, inputs):
            return self.model(inputs)[:-1]
    """)
    assert message.startswith("strategy Mine: predict returned (")
    assert message.endswith(" inputs")


def test_an_optimiser_needs_a_loss(refused: Refused) -> None:
    message = refused("""
        def loss(self, batch):
            return None
    """)
    assert message == "strategy Mine: loss returned None in phase 'train', which has an optimiser"


TAKES_TASK = """
    needs = Needs(task_id_at_test={declared})
    def setup(self):
        self.state.given = []
    def predict(self, inputs, **keywords):
        self.state.given.append(keywords.get("task", -1))
        return self.model(inputs)
    def end_task(self, task):
        expected = {expected}
        if set(self.state.given) - {{-1}} != expected:
            raise ValueError(f"given {{sorted(set(self.state.given))}}")
"""


@pytest.mark.parametrize(
    ("declared", "scenario", "expected"),
    [
        (True, "task", "set(range(task.index + 1))"),
        (False, "task", "set()"),
        (True, "class", "set()"),
        (False, "class", "set()"),
    ],
)
def test_the_task_is_given_where_declared_and_task_incremental(
    runs: Any, mine: Callable[[str], str], tmp_path: Path, declared: bool, scenario: str, expected: str
) -> None:
    spec = runs.spec(
        mine(TAKES_TASK.format(declared=declared, expected=expected)),
        stream_settings={"sizes": [3, 5, 2], "scenario": scenario},
        strategy_settings={"steps": 2, "batch_size": 16},
        eval_grid="1",
    )
    _, record = start_run(spec, tmp_path / "out")
    assert record["status"] == "completed"


def test_gradient_free_has_no_optimiser(refused: Refused) -> None:
    message = refused("needs = Needs(gradient_free=True)")
    assert message == "strategy Mine declares gradient_free, but phase 'train' has an optimiser"
