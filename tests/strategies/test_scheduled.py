"""Methods that are a schedule: the learning rates that their updates really had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clbench.engine import stepping
from clbench.engine.session import Session
from clbench.errors import Interrupted, UserError
from clbench.schedules import Context, find

Drive = Callable[..., Session]
TWO_TASKS = {
    "stream": "split-digits", "backbone": "mlp:8x1", "stream_settings": {"train_per_class": 20, "sizes": [5, 5]}
}  # fmt: skip
TEXT = {
    "stream": "text-shift",
    "backbone": "byte-gpt?d=16,layers=1,ctx=16",
    "stream_settings": {"domains": ["prose", "code"], "context": 16, "tokens": 1600, "eval_blocks": 8},
}
LR = 0.05


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The rate of every update, as the optimiser had it."""
    found: list[float] = []
    step = stepping.update

    def recorded(optimizer: torch.optim.Optimizer) -> None:
        found.append(optimizer.param_groups[0]["lr"])
        step(optimizer)

    monkeypatch.setattr(stepping, "update", recorded)
    return found


def settings(steps: int, **more: Any) -> dict[str, Any]:
    return {"lr": LR, "steps": steps, **more}


@pytest.mark.oracle("rewarm", "both tasks' rates rise over the warm-up and fall by half a cosine to the floor")
def test_rewarming(drive: Drive, rates: list[float]) -> None:
    drive("rewarm", settings(20, warmup=5), job=TWO_TASKS)
    task = [LR * find("rewarm-cosine:warmup=5").lr(s, 0, 20) for s in range(20)]
    assert rates == pytest.approx(task + task)
    assert rates[20] == pytest.approx(LR / 5) and rates[25] == LR and rates[39] < 0.12 * LR


@pytest.mark.oracle("infinite", "task 2 begins at the constant rate, not at the floor its branch had gone to")
def test_infinite(drive: Drive, rates: list[float]) -> None:
    drive("infinite", settings(20, warmup=2), job=TWO_TASKS)
    trunk = [
        1 / 2,
        1,
        *((0.55 + 0.45 * (1 + torch.cos(torch.tensor(torch.pi * s / 12)).item()) / 2) for s in range(12)),
    ]
    branch = [0.55 * (0.1 / 0.55) ** (s / 4) for s in range(4)]
    assert rates[:20] == pytest.approx([LR * rate for rate in [*trunk, 0.55, 0.55, *branch]])
    assert rates[20:] == pytest.approx([LR * rate for rate in [0.55] * 16 + branch])


@pytest.mark.oracle("wsd", "the rate is at its peak outside the first warm-up and the branches, which fall by 1 - sqrt")
def test_wsd(drive: Drive, rates: list[float]) -> None:
    drive("wsd", settings(20, warmup=4, anneal=0.2), job=TWO_TASKS)
    branch = [0.1 + 0.9 * (1 - (s / 4) ** 0.5) for s in range(4)]
    expected = [0.25, 0.5, 0.75, *[1.0] * 13, *branch, *[1.0] * 16, *branch]
    assert rates == pytest.approx([LR * rate for rate in expected])


@pytest.mark.oracle("power", "the rate follows the tokens of the trunk across tasks: neither a new task nor a branch")
def test_power(drive: Drive, rates: list[float]) -> None:
    """16 samples a step: after s updates (s / 5)^-.51 of the rate, the branch's updates not counted."""
    drive("power", settings(20, warmup=3, knee=80, anneal=0.2, floor=0.02), job=TWO_TASKS)
    law = [1 / 3, 2 / 3, 1, *(min(1.0, (s / 5) ** -0.51) for s in range(3, 33))]
    ends = [[law[n] * (0.02 / law[n]) ** (s / 4) for s in range(4)] for n in (16, 32)]
    assert rates == pytest.approx([LR * rate for rate in [*law[:16], *ends[0], *law[16:32], *ends[1]]])


def test_power_counts_tokens_and_batches_of_text(drive: Drive, rates: list[float]) -> None:
    """8 sequences of 16 tokens a step, and the absolute rate of the law where it is below lr."""
    drive("power", settings(10, warmup=0, anneal=0.0, a=0.01), job=TEXT)
    law = [min(LR, 8 * 0.01 * max(1, 128 * s) ** -0.51) for s in range(20)]
    assert rates == pytest.approx(law) and rates[1] < LR


def test_an_interrupted_run_goes_on_at_its_rates(drive: Drive, rates: list[float], tmp_path: Path) -> None:
    """A schedule over the whole run, stopped within its second task: what a branch took back does not count."""
    chosen = settings(12, warmup=3, knee=48, anneal=0.25)
    drive("power", chosen, job=TWO_TASKS)
    whole, folder = list(rates), tmp_path / "stopped"
    rates.clear()
    with pytest.raises(Interrupted):
        drive("power", chosen, job=TWO_TASKS, stop_at=16, folder=folder)
    assert len(rates) == 16
    drive("power", chosen, job=TWO_TASKS, folder=folder)
    assert rates == whole


@pytest.mark.parametrize("strategy", ["infinite", "power"])
def test_after_a_shared_upstream_the_first_task_is_a_later_phase(
    drive: Drive, rates: list[float], strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upstream's updates have their own schedule, and count as updates of the run."""
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    knee = {"knee": 80} if strategy == "power" else {}
    shared = {"upstream": "shared", "upstream_settings": {"lr": 0.01, "steps": 10, "schedule": "constant"}}
    drive(strategy, settings(8, anneal=0.0, **knee), job={**TWO_TASKS, **shared})
    later = [0.55] * 8 if strategy == "infinite" else [(s / 5) ** -0.51 for s in range(10, 18)]
    assert rates == pytest.approx([0.01] * 10 + [LR * rate for rate in later])


def test_the_oracle_over_the_horizon_is_one_cosine(drive: Drive, rates: list[float]) -> None:
    drive("finetune", settings(15, schedule="one-cosine:warmup=0.1"), job=TWO_TASKS)
    one = find("warmup-cosine:warmup=0.1")
    assert rates == pytest.approx([LR * one.lr(s, 0, 30) for s in range(30)])


def test_training_from_new_weights_begins_the_run_for_its_schedule(drive: Drive, rates: list[float]) -> None:
    """`scratch` says so; of `joint` its only phase, in the last task, is the first that trains."""
    drive("scratch", settings(10, schedule="infinite:warmup=2"), job=TWO_TASKS)
    first = [LR * find("infinite:warmup=2").lr(s, 0, 10) for s in range(10)]
    assert rates == pytest.approx(first + first)
    rates.clear()
    drive("joint", settings(10, schedule="rsqrt:warmup=4"), job=TWO_TASKS)
    law = find("rsqrt:warmup=4")
    assert rates == pytest.approx([LR * law.lr(s, 0, 20, Context(run_step=s)) for s in range(20)])
    rates.clear()
    drive("joint", settings(10, schedule="infinite:warmup=2", anneal=0.2, resume_from="annealed"), job=TWO_TASKS)
    annealed = find("infinite:warmup=2").branch(4)
    assert rates == pytest.approx([LR * annealed.lr(s, 0, 20) for s in range(20)])


def test_an_interrupted_first_phase_of_a_later_task(drive: Drive, rates: list[float], tmp_path: Path) -> None:
    chosen = settings(10, schedule="one-cosine:warmup=4")
    drive("joint", chosen, job=TWO_TASKS)
    whole, folder = list(rates), tmp_path / "stopped"
    assert whole[0] == LR / 4 and whole[-1] < 0.2 * LR
    rates.clear()
    with pytest.raises(Interrupted):
        drive("joint", chosen, job=TWO_TASKS, stop_at=7, folder=folder)
    drive("joint", chosen, job=TWO_TASKS, folder=folder)
    assert rates == whole


@pytest.mark.parametrize(
    ("strategy", "chosen", "message"),
    [
        ("finetune", {"schedule": "infinite:cooldown_share=15"}, "its pieces take 16 steps, phase 0 has 10"),
        ("finetune", {"schedule": "infinite:anneal=0.5,cooldown_share=0.6"}, "sum to more than 1"),
        ("infinite", {"warmup": 9, "cooldown_share": 1}, "begins at step 8, inside the warm-up of 9"),
        ("power", {"warmup": 10}, "begins at step 9, inside the warm-up of 10"),
    ],
)
def test_what_cannot_fit_is_refused_before_any_update(
    drive: Drive, rates: list[float], strategy: str, chosen: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        drive(strategy, settings(10) | chosen, job=TWO_TASKS)
    assert not rates


def test_a_later_phase_that_is_too_short_is_refused_before_any_update(drive: Drive, rates: list[float]) -> None:
    schedule = '{"first": [{"piece": "hold", "value": 1}], "later": [{"piece": "linear", "to": 0, "length": 11}]}'
    with pytest.raises(UserError, match="its pieces take 11 steps, phase 1 has 10"):
        drive("finetune", settings(10, schedule=schedule), job=TWO_TASKS)
    assert not rates


def test_a_run_of_unknown_length(drive: Drive, rates: list[float]) -> None:
    """Cumulative training takes more steps than its task's data say."""
    with pytest.raises(UserError, match="the run's length cannot be known"):
        drive("cumulative", {"lr": LR, "schedule": "one-cosine"}, job=TWO_TASKS)


@pytest.mark.parametrize(
    ("strategy", "chosen", "message"),
    [
        ("infinite", {"floor": 0.7}, "constant=0.55 does not lie between floor=0.7"),
        ("rewarm", {"later_peak": 0.05}, "floor=0.1 does not lie between 0 and the peak"),
        ("wsd", {"schedule": "cosine"}, "Input should be 'wsd'"),
        ("power", {"b": 0.5}, "less than or equal to 0"),
        ("infinite", {"warmup": 1.5}, "a share"),
    ],
)
def test_settings_that_make_no_schedule(drive: Drive, strategy: str, chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        drive(strategy, chosen, job=TWO_TASKS)
