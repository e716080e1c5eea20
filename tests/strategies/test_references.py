"""The references: finetune forgets, joint and cumulative do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clbench.engine.session import Session
from clbench.errors import RunFailed
from clbench.strategies.joint import Joint
from clbench.strategy import Needs

Drive = Callable[..., Session]
Final = Callable[[Session], float]
JOB = {"stream": "split-digits", "backbone": "mlp:64x1", "stream_settings": {"train_per_class": 60}}


@pytest.mark.oracle("finetune", "forgets")
@pytest.mark.oracle("joint", "does not forget")
@pytest.mark.oracle("cumulative", "does not forget")
def test_finetune_forgets_and_the_oracles_do_not(drive: Drive, final: Final) -> None:
    assert final(drive("finetune", job=JOB)) < 0.35
    assert final(drive("cumulative", job=JOB)) > 0.85
    assert final(drive("joint", job=JOB)) > 0.8


@pytest.mark.oracle("joint", "trains once, on the data of all tasks")
def test_joint_trains_once_on_everything(drive: Drive) -> None:
    session = drive("joint", {"epochs": 2, "batch_size": 50}, job=JOB)
    assert session.step == 2 * 600 / 50
    assert drive("joint", {"steps": 3}, job=JOB).step == 5 * 3
    before = [r for r in session.table.table if r.tasks_seen == 4 and r.value is not None]
    first = {r.eval_set: r.value for r in before}
    untrained = drive("joint", {"epochs": 2, "lr": 0.0}, job=JOB)
    assert first == {r.eval_set: r.value for r in untrained.table.table if r.tasks_seen == 4 and r.value is not None}


@pytest.mark.oracle("cumulative", "each task trains on the union of all so far")
def test_cumulative_continues_on_the_union(drive: Drive) -> None:
    assert drive("cumulative", {"epochs": 1, "batch_size": 120}, job=JOB).step == 1 + 2 + 3 + 4 + 5
    assert drive("cumulative", {"steps": 4}, job=JOB).step == 20


@pytest.mark.parametrize("missing", ["sees_all_data", "knows_horizon"])
def test_an_oracle_must_say_so(drive: Drive, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    declared = {"sees_all_data": True, "knows_horizon": True, missing: False}
    monkeypatch.setattr(Joint, "needs", Needs(**declared))
    with pytest.raises(RunFailed, match=missing):
        drive("joint", job=JOB)


def test_seeds_matter_and_repeat(drive: Drive) -> None:
    weights = [drive("finetune", job=JOB, seed=seed).model.head.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
