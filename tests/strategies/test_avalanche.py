"""Avalanche's strategies in this loop, against this package's own and against Avalanche's own loop."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clbench import catalogue
from clbench.engine.reporter import Reporter
from clbench.errors import Interrupted, RunFailed, UserError
from clbench.launch import resume_run, start_run
from clbench.registry import load_strategy
from clbench.spec import make_spec
from clbench.stream import Task

pytestmark = pytest.mark.skipif(
    find_spec("avalanche") is None, reason='Avalanche is not installed: pip install "clbench[avalanche]"'
)

DIGITS = {"sizes": [3, 5, 2], "train_per_class": 30, "test_per_class": 20}
METHODS = {
    "Naive": {},
    "EWC": {"ewc_lambda": 10.0},
    "LwF": {"alpha": 1.0, "temperature": 2.0},
    "SynapticIntelligence": {"si_lambda": 0.5},
    "MAS": {},
    "GEM": {"patterns_per_exp": 1000, "memory_strength": 0.5},
    "AGEM": {"patterns_per_exp": 50, "sample_size": 20},
    "Replay": {"mem_size": 60},
    "MIR": {"mem_size": 60, "batch_size_mem": 10, "subsample": 30},
    "ER_ACE": {"mem_size": 60},
    "Cumulative": {},
    "RWalkPlugin": {"ewc_lambda": 1.0, "delta_t": 2},
}


def _spec(strategy: str, **settings: Any) -> Any:
    fields = {"strategy": strategy, "stream": "split-digits", "stream_settings": DIGITS, "threads": 1}
    return make_spec({**fields, "strategy_settings": settings, "eval_grid": "5"})


def _run(out: Path, strategy: str, reporter: Reporter | None = None, **settings: Any) -> Any:
    return start_run(_spec(strategy, **settings), out, reporter)[1]


class Weights(Reporter):
    """Keeps the trained model."""

    def started(self, session: Any) -> None:
        self.session = session

    @property
    def model(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.session.model.named_parameters()}


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 2},
        {"epochs": 1.5, "optimizer": "adam", "lr": 0.003, "schedule": "cosine", "clip": 0.5, "optimizer_state": "keep"},
    ],
    ids=["sgd", "adam"],
)
def test_naive_equals_finetune_bit_for_bit(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs, ours = Weights(), Weights()
    first = _run(tmp_path, "avalanche:Naive", theirs, **settings)
    second = _run(tmp_path, "finetune", ours, **settings)
    assert all(torch.equal(theirs.model[name], value) for name, value in ours.model.items())
    assert first["metrics"]["matrix"] == second["metrics"]["matrix"]
    assert first["cost"]["steps"] == second["cost"]["steps"]


@pytest.mark.parametrize("name", METHODS)
def test_it_runs_on_unequal_tasks(tmp_path: Path, name: str) -> None:
    record = _run(tmp_path, f"avalanche:{name}", **METHODS[name], epochs=1)
    needs = record["strategy"]["needs"]
    assert record["status"] == "completed" and needs["resume"] == ("task" if name == "Naive" else "none")
    assert record["environment"]["versions"]["avalanche-lib"]
    stored = record["cost"]["stored_bytes"]
    assert (stored > 0) == (name != "Naive")
    if name in ("Replay", "MIR", "ER_ACE"):  # 60 images of 64 bytes with their labels
        assert needs["stores_samples"] and 60 * 64 <= stored <= 60 * (64 + 8) * 1.1
    if name in ("EWC", "LwF", "SynapticIntelligence", "MAS", "RWalkPlugin"):
        assert not needs["stores_samples"]


def test_memory_helps(tmp_path: Path) -> None:
    naive = _run(tmp_path, "avalanche:Naive", epochs=3)["metrics"]["average"]
    for name in ("Replay", "GEM", "Cumulative"):
        assert _run(tmp_path, f"avalanche:{name}", **METHODS[name], epochs=3)["metrics"]["average"] > naive + 0.2


NATIVE = '''
from clbench.phase import Phase
from clbench.registry import load_strategy
from clbench.strategies.avalanche_data import data_set, experience


class Native(load_strategy("avalanche:{name}")):
    """Each task is one step: a call of Avalanche's own `train`."""

    def begin_task(self, task):
        self.task = task

    def phases(self, task):
        return [self.phase("train", task.train, steps=1, update=self.whole)]

    def whole(self, batch, optimizer):
        f, task = self._foreign, self.task
        f.optimizer, f.train_epochs = optimizer, 6
        number = self._pools.number(task.train.pool)
        data = data_set(task.train, number, self.objective, lambda: self.generator("augment"))
        earlier = set(range(max(task.classes) + 1)) - set(task.new_classes)
        f.train([experience(task, data, earlier)], eval_streams=[])
        return batch.x.new_zeros(())

    def end_task(self, task):
        pass
'''


@pytest.mark.parametrize("name", ["EWC", "LwF", "SynapticIntelligence", "MAS", "GEM", "Cumulative"])
def test_step_by_step_equals_avalanches_own_loop(tmp_path: Path, name: str) -> None:
    """With batches of a whole task the order of samples does not matter: the weights agree but for rounding."""
    file = tmp_path / "native.py"
    file.write_text(NATIVE.format(name=name))
    settings = {**METHODS[name], "batch_size": 2000, "lr": 0.1}
    ours, native = Weights(), Weights()
    assert _run(tmp_path, f"avalanche:{name}", ours, **settings, epochs=6)["cost"]["steps"] == 18
    _run(tmp_path, f"{file}:Native", native, **settings)
    for name, value in native.model.items():
        assert torch.allclose(ours.model[name], value, atol=1e-4), name


def test_an_interrupted_run_starts_again_and_ends_as_the_whole_one(tmp_path: Path) -> None:
    class Stopping(Weights):
        def stepped(self, task: int, step: int, length: int, loss: Tensor | None) -> None:
            self.session.interrupted = task == 1

    settings = {**METHODS["Replay"], "epochs": 1}
    whole = _run(tmp_path, "avalanche:Replay", **settings)
    with pytest.raises(Interrupted, match="start again from the beginning") as stopped:
        _run(tmp_path, "avalanche:Replay", Stopping(), **settings)
    assert stopped.value.folder is not None
    again = resume_run(stopped.value.folder)
    assert again["state_hash"] == whole["state_hash"] and again["metrics"] == whole["metrics"]


def test_constructor_arguments_are_settings() -> None:
    settings = catalogue.find("strategy", "avalanche:GEM").settings
    assert settings["patterns_per_exp"].required and settings["patterns_per_exp"].type == "int"
    assert settings["memory_strength"].default == 0.5
    assert settings["memory_strength"].source == "Avalanche's signature"
    assert load_strategy("avalanche:SI").Config.model_fields["si_lambda"].is_required()
    assert "avalanche_lr" in load_strategy("avalanche:BiC").Config.model_fields  # lr is the phase's


@pytest.mark.parametrize(
    "name, message",
    [
        ("GEMM", "did you mean GEM"),
        ("ICaRL", "needs feature_extractor .Module., which no setting can hold"),
        ("JointTraining", "cannot be run step by step"),
    ],
)
def test_what_cannot_be_used_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_strategy(f"avalanche:{name}")


def test_a_strategy_that_replaces_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="avalanche:GDumb puts another model in the place"):
        _run(tmp_path, "avalanche:GDumb", epochs=1)


def test_a_replaced_loader_is_read_and_its_length_is_the_epochs(tmp_path: Path) -> None:
    """A memory larger than the task's data is read whole: more steps than the task's own batches would take."""
    record = _run(tmp_path, "avalanche:Cumulative", epochs=1, batch_size=30)
    assert record["cost"]["steps"] == 3 + 8 + 10  # 90, 240 and 300 samples


def test_the_experience_knows_nothing_of_later_tasks() -> None:
    from clbench.samples import Pool, Samples
    from clbench.strategies.avalanche_data import experience

    pool = Pool(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([3, 4, 3, 4]))
    made = experience(Task(1, "t", Samples(pool), classes=(3, 4), new_classes=(3, 4)), None, {0, 1, 2})
    assert made.classes_seen_so_far == [0, 1, 2, 3, 4] and made.future_classes == []
    assert len(made.origin_stream) == 1
