"""What holds for every strategy: it runs on its objectives and on unequal tasks, and resumes to the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clbench.engine.session import Session
from clbench.errors import Interrupted, UserError
from clbench.registry import STRATEGIES, load_strategy, targets
from clbench.state import pack

TEXT_TOO = ("finetune", "joint", "cumulative", "replay", "der", "der++", "gdumb", "ewc", "si", "lwf", "rwalk")
OWN = (*TEXT_TOO, "nmc", "wa", "icarl", "bvcl")
QUICK: dict[str, dict[str, Any]] = {
    "gdumb": {"epochs": 4},
    "wa": {"memory_size": 40},
    "icarl": {"memory_size": 40},
    "bvcl": {"constant_beta": 1.0, "batch_size": 8},
}
UNEQUAL = {
    "stream": "split-digits",
    "backbone": "mlp:32x1",
    "stream_settings": {"train_per_class": 30, "sizes": [3, 5, 2]},
}
TEXT = {
    "stream": "text-shift",
    "backbone": "byte-gpt?d=16,layers=1,ctx=16",
    "stream_settings": {"context": 16, "tokens": 800, "eval_blocks": 16},
}


def tensors(session: Session) -> dict[str, Tensor]:
    """What the run learned: the model's tensors and those of the strategy's state."""
    found: dict[str, Tensor] = {}
    packed = {name: pack(value, name, found) for name, value in vars(session.strategy.state).items()}
    assert packed or not found
    return found | session.model.state_dict()


@pytest.mark.parametrize("strategy", OWN)
def test_it_is_registered_and_documented(strategy: str) -> None:
    assert strategy in targets(STRATEGIES)
    kind = load_strategy(strategy)
    assert kind.__doc__ and kind.__doc__.splitlines()[0].endswith(
        ")." if "(" in kind.__doc__.splitlines()[0] else (".", "reference.")
    )
    for name, field in kind.Config.model_fields.items():
        assert field.description, name
        assert field.json_schema_extra and field.json_schema_extra["source"], name  # type: ignore[index,call-overload]


@pytest.mark.parametrize("strategy", OWN)
def test_unequal_tasks(strategy: str, drive: Callable[..., Session], final: Callable[[Session], float]) -> None:
    backbone = {"backbone": "pixels"} if strategy == "nmc" else {}
    session = drive(strategy, QUICK.get(strategy), job=UNEQUAL, **backbone)
    assert session.n_classes() == 10
    assert final(session) > 0.15


@pytest.mark.parametrize("strategy", TEXT_TOO)
def test_text(strategy: str, drive: Callable[..., Session], final: Callable[[Session], float]) -> None:
    """The same code trains a language model: better than bytes guessed at random."""
    session = drive(strategy, QUICK.get(strategy), job=TEXT)
    assert 0 < final(session) < 5.5


def test_a_strategy_for_images_refuses_text(drive: Callable[..., Session]) -> None:
    with pytest.raises(UserError, match="works with classification"):
        drive("nmc", job=TEXT)


@pytest.mark.parametrize("strategy", OWN)
def test_an_interrupted_run_ends_with_the_same_bits(
    strategy: str, drive: Callable[..., Session], tmp_path: Path
) -> None:
    """Stopped in the first task, then in the second or third; both times continued by a new session."""
    settings = {**QUICK.get(strategy, {}), "batch_size": 10}
    job = {**UNEQUAL, "stream_settings": {"train_per_class": 12, "sizes": [3, 5, 2]}}
    whole = drive(strategy, settings, job=job)
    folder = tmp_path / "stopped"
    stops = (2, whole.step // 2)
    for stop_at in stops:
        torch.rand(3)
        with pytest.raises(Interrupted):
            drive(strategy, settings, job=job, stop_at=stop_at, folder=folder)
    again = drive(strategy, settings, job=job, folder=folder)
    expected, found = tensors(whole), tensors(again)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True, msg=name)
    assert list(whole.table.table) == list(again.table.table)


ZERO = {
    "replay": {"replay_batch_size": 0},
    "der": {"alpha": 0},
    "der++": {"alpha": 0, "beta": 0},
    "ewc": {"ewc_lambda": 0},
    "si": {"c": 0},
    "rwalk": {"rwalk_lambda": 0},
    "lwf": {"alpha": 0, "only_new": False},
}


@pytest.fixture(scope="module")
def finetuned() -> dict[str, dict[str, torch.Tensor]]:
    """Weights after finetuning, by job; filled by the first test that needs them."""
    return {}


@pytest.mark.parametrize("job", ["images", "text"])
@pytest.mark.parametrize("strategy", ZERO)
def test_at_zero_strength_it_is_finetuning_bit_for_bit(
    strategy: str, job: str, drive: Callable[..., Session], finetuned: dict[str, dict[str, torch.Tensor]]
) -> None:
    """The weights after training, with dropout-free but normalised models and unequal tasks."""
    chosen = TEXT if job == "text" else {**UNEQUAL, "backbone": "slim-resnet18?width=2"}
    if job not in finetuned:
        finetuned[job] = drive("finetune", job=chosen).model.state_dict()
    found = drive(strategy, ZERO[strategy], job=chosen).model.state_dict()
    assert finetuned[job].keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in finetuned[job].items())
