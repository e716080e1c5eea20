"""Scratch knows one task at a time; frozen stops after the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from clbench.engine.session import Session

Drive = Callable[..., Session]

WORDS: dict[str, Any] = {
    "stream": "text-shift",
    "backbone": "byte-gpt?d=16,layers=1,ctx=16",
    "stream_settings": {"domains": ["prose", "cipher"], "context": 16, "tokens": 640, "eval_blocks": 8},
}
DIGITS: dict[str, Any] = {"stream": "split-digits", "backbone": "mlp:32x1", "stream_settings": {"train_per_class": 20}}
FULL_BATCH: dict[str, Any] = {"batch_size": 40, "steps": 6, "optimizer": "sgd", "lr": 0.5}


def values(session: Session, tasks_seen: int) -> dict[str, float | None]:
    rows = [row for row in session.table.table if row.kind == "boundary" and row.tasks_seen == tasks_seen]
    return {row.eval_set: row.value for row in rows if row.metric == session.objective.primary}


def weights(session: Session) -> dict[str, Tensor]:
    return dict(session.model.state_dict())


@pytest.mark.oracle("scratch", "after the first task it is finetuning, to the bit")
@pytest.mark.oracle("frozen", "after the first task it is finetuning, to the bit")
def test_the_first_task_is_finetuning(drive: Drive) -> None:
    settings = {"steps": 5}
    expected = values(drive("finetune", settings, job=WORDS), 1)
    assert values(drive("scratch", settings, job=WORDS), 1) == expected
    assert values(drive("frozen", settings, job=WORDS), 1) == expected


@pytest.mark.oracle("scratch", "a task is learned as if it were the only one")
@pytest.mark.parametrize("optimizer_state", ["reset", "keep"])
def test_a_later_task_is_learned_as_a_first_one(drive: Drive, optimizer_state: str) -> None:
    """Whole batches, so that the order of samples, which is keyed to the task's place, is of no consequence."""
    settings = FULL_BATCH | {"optimizer": "adamw", "lr": 0.01, "optimizer_state": optimizer_state}
    settings["schedule"] = "infinite"  # which later phases take at its constant part
    alone = WORDS | {"stream_settings": WORDS["stream_settings"] | {"domains": ["cipher"]}}
    second = weights(drive("scratch", settings, job=WORDS))
    only = weights(drive("finetune", settings, job=alone))
    assert second.keys() == only.keys()
    for name, value in only.items():
        torch.testing.assert_close(second[name], value, atol=2e-5, rtol=1e-4, msg=name)
    continued = weights(drive("finetune", settings, job=WORDS))
    assert any((continued[name] - value).abs().max() > 0.01 for name, value in only.items())


@pytest.mark.oracle("scratch", "without steps, the model is the initial one, grown")
def test_without_training_everything_is_as_it_was_added(drive: Drive) -> None:
    """In the last task nothing is trained: the weights are those of a run that never trained."""
    still = weights(drive("finetune", {"lr": 0.0, "steps": 1}, job=DIGITS))
    session = drive("scratch", FULL_BATCH, job=DIGITS, budget={"steps": 24})  # four of five tasks
    assert session.step == 24
    for name, value in weights(session).items():
        assert torch.equal(value, still[name]), name


@pytest.mark.oracle("frozen", "no score changes after the first task")
def test_frozen_rows_do_not_change(drive: Drive) -> None:
    session = drive("frozen", {"steps": 5}, job=WORDS)
    assert session.step == 5
    assert values(session, 2) == values(session, 1) != values(session, 0)


@pytest.mark.parametrize("strategy", ["scratch", "frozen"])
def test_resuming_gives_the_same(drive: Drive, strategy: str, tmp_path: Any) -> None:
    from clbench.errors import Interrupted

    whole = drive(strategy, {"steps": 4}, job=DIGITS)
    for stop_at in (3, 6) if strategy == "scratch" else (3,):
        folder = tmp_path / f"stopped-{stop_at}"
        with pytest.raises(Interrupted):
            drive(strategy, {"steps": 4}, job=DIGITS, stop_at=stop_at, folder=folder)
        again = drive(strategy, {"steps": 4}, job=DIGITS, folder=folder)
        assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(again).items())
