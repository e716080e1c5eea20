"""`Phase.update`: a strategy that does its updates itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from clbench.errors import RunFailed, UserError
from clbench.launch import start_run
from clbench.phase import Phase
from clbench.samples import Batch
from clbench.spec import make_spec
from clbench.strategy import Strategy
from clbench.stream import Task

SHORT = {"train_per_class": 20, "test_per_class": 10}


class OwnLoop(Strategy):
    """Finetuning by a loop of its own."""

    rates: list[float]

    def setup(self) -> None:
        self.state.rates = []

    def phases(self, task: Task) -> list[Phase]:
        return [self.phase("train", task.train, update=self.step)]

    def step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
        self.state.rates.append(optimizer.param_groups[0]["lr"])
        loss = self.objective.loss(self.model, batch)
        loss.backward()
        optimizer.step()
        return loss.detach()


class Exploding(OwnLoop):
    """Its loss is not finite."""

    def step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
        return torch.tensor(float("nan"))


def _run(out: Path, name: str, **settings: object) -> dict:
    strategy = name if name == "finetune" else f"{__file__}:{name}"
    spec = {"strategy": strategy, "stream": "split-digits", "stream_settings": SHORT, "threads": 1}
    return start_run(make_spec({**spec, "strategy_settings": {"epochs": 1, "momentum": 0.9, **settings}}), out)[1]


def test_a_loop_of_ones_own_equals_finetuning_bit_for_bit(tmp_path: Path) -> None:
    schedule = {"schedule": "cosine"}
    own, usual = _run(tmp_path, "OwnLoop", **schedule), _run(tmp_path, "finetune", **schedule)
    assert own["metrics"]["matrix"] == usual["metrics"]["matrix"]
    assert own["cost"]["steps"] == usual["cost"]["steps"]
    assert own["cost"]["flops_train"] == usual["cost"]["flops_train"] > 0


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="loss is not finite in task 0"):
        _run(tmp_path, "Exploding")


def test_updates_of_ones_own_are_refused_on_several_devices(tmp_path: Path) -> None:
    spec = {"strategy": f"{__file__}:OwnLoop", "stream": "split-digits", "stream_settings": SHORT, "devices": 2}
    with pytest.raises((UserError, RunFailed), match="does its own updates"):
        start_run(make_spec({**spec, "device": "cpu", "threads": 1}), tmp_path)
