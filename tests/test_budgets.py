"""Budgets by arithmetic: shares, steps, what is charged once, and the errors."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from typing import Any

import pytest

from clbench.budgets import PhaseCost, RunCost, TaskCost, allow, budget_amount, budget_text
from clbench.errors import UserError

PUBLISHED = {  # arXiv 2408.14471: GFLOPs a step, memory in GB, steps of 20 tasks
    "full": (63394.76, 46.59, 1420),
    "locked-text": (57254.6, 37.58, 1949),
    "locked-image": (27176.7, 11.88, 12982),
    "lnfit": (43165.6, 30.56, 3179),
    "lora r4": (54479.3, 40.54, 1898),
    "lora r64": (54505.0, 40.68, 1891),
    "dora r4": (54479.8, 40.66, 1893),
    "vera r64": (54507.8, 40.57, 1896),
    "si": (63394.8, 46.65, 1418),
}
FULL_STEPS = 1420


def run_cost(flops: int, memory: int, steps: int = 100, tasks: int = 2, extra: int = 0, **phase: Any) -> RunCost:
    phases = (PhaseCost("train", flops, steps, **{"slope": Fraction(1), **phase}),)
    return RunCost(tuple(TaskCost(f"t{i}", phases, extra) for i in range(tasks)), {"all": memory})


@pytest.mark.parametrize("method", PUBLISHED)
def test_the_steps_of_the_published_table(method: str) -> None:
    """The table rounds; it is met within 3 steps in 3000."""
    full = run_cost(round(PUBLISHED["full"][0] * 1e6), 4659, FULL_STEPS, tasks=20)
    flops, memory, steps = PUBLISHED[method]
    found = allow({"maf": 1.0}, run_cost(round(flops * 1e6), round(memory * 100), tasks=20), full, method)
    assert set(found.steps) == {found.steps[0]}
    assert found.steps[0] == pytest.approx(steps, rel=1.5e-3)


def test_the_total_of_the_published_runs() -> None:
    full = run_cost(round(63394.7585e9), 4659, FULL_STEPS, tasks=20)
    total = allow({"maf": 1.0}, full, full, "finetune").limits["maf"]
    assert total == pytest.approx(1.8004e18, rel=1e-4)
    for tasks, steps in ((20, 1420), (50, 568), (100, 284), (200, 142)):  # the same amount, over more tasks
        many = run_cost(round(63394.7585e9), 4659, FULL_STEPS, tasks=tasks)
        assert allow({"maf": total}, many, many, "finetune").steps == (steps,) * tasks


def test_what_comes_once_is_charged_once() -> None:
    full = run_cost(10, 100, steps=1420)
    fisher = 98 * 10  # EWC: a pass of 98 batches
    assert allow({"maf": 1.0}, run_cost(10, 100, extra=fisher), full, "ewc").steps == (1420 - 98,) * 2


def test_full_fine_tuning_gets_back_its_own_steps() -> None:
    phases = [PhaseCost("train", 10 + i, 7 + i, Fraction(1)) for i in range(3)]
    full = RunCost(tuple(TaskCost(f"t{i}", (p,), 0) for i, p in enumerate(phases)), {"all": 9})
    assert allow({"maf": 1.0}, full, full, "finetune").steps == (7, 8, 9)
    assert allow({"flops": 1.0}, full, full, "finetune").steps == (7, 8, 9)
    assert allow({"maf": 2.0}, full, full, "finetune").steps == (14, 16, 18)


def test_an_amount_is_the_same_for_every_task() -> None:
    tasks = (
        TaskCost("a", (PhaseCost("train", 10, 1, Fraction(1)),), 0),
        TaskCost("b", (PhaseCost("train", 20, 1, Fraction(1)),), 40),
    )
    cost = RunCost(tasks, {"all": 200})
    full = RunCost(tuple(TaskCost(t.name, t.phases, 0) for t in tasks), {"all": 100})
    found = allow({"maf": 8e6}, cost, full, "method")
    assert found.shares["maf"] == (4e6, 4e6) and found.ratio == 2
    assert found.steps == (200_000, (2_000_000 - 40) // 20)
    assert cost.flops(found.steps) * 2 <= 8e6
    assert allow({"flops": 8e6}, cost, full, "method").steps == (400_000, (4_000_000 - 40) // 20)
    assert allow({"maf": 8e6, "flops": 4e6}, cost, full, "method").steps == (200_000, (2_000_000 - 40) // 20)


def test_what_is_computed_for_a_task_learned_elsewhere_is_paid_by_the_next() -> None:
    train = (PhaseCost("train", 10, 100, Fraction(1)),)
    full = RunCost((TaskCost("a", (), 0), TaskCost("b", train, 0), TaskCost("c", train, 0)), {"all": 100})
    ewc = RunCost((TaskCost("a", (), 98), TaskCost("b", train, 20), TaskCost("c", train, 20)), {"all": 200})
    assert allow({"maf": 1.0}, full, full, "finetune").steps == (None, 100, 100)
    found = allow({"maf": 1.0}, ewc, full, "ewc")
    assert found.shares["maf"] == (0, 1000, 1000)
    assert found.steps == (None, (500 - 98 - 20) // 10, (500 - 20) // 10)
    assert 2 * ewc.flops(found.steps) <= found.limits["maf"]
    with pytest.raises(UserError, match="task 1") as caught:
        allow({"maf": 0.2}, ewc, full, "ewc")
    enough = str(caught.value).rpartition("maf=")[2].split()[0]
    assert allow({"maf": budget_amount("maf", enough)}, ewc, full, "ewc").steps[1] == 1


def test_phases_that_the_setting_stretches_or_leaves_alone() -> None:
    head = PhaseCost("head", 5, 99, Fraction(3, 5))
    align = PhaseCost("align", 7, 4, fixed=4)
    task = TaskCost("a", (head, align, PhaseCost("read", 2, 10, fixed=10, trains=False)), 13)
    found = task.affordable(Fraction(1000))
    assert found == (1000 - 13 - 28 - 20) // 3 == 313
    assert task.flops(found) <= 1000 < task.flops(found + 1)
    assert task.trained_steps(10) == 6 + 4


def test_a_method_whose_length_is_its_own_must_fit() -> None:
    cost = run_cost(10, 100, steps=50, slope=Fraction(0), fixed=50)
    full = run_cost(10, 100, steps=50)
    assert allow({"maf": 1.0}, cost, full, "m").steps == (None, None)
    with pytest.raises(UserError, match="not one step of m fits into task 0"):
        allow({"maf": 0.9}, cost, full, "m")


def test_data_that_may_be_seen_once_bound_the_steps() -> None:
    full = run_cost(10, 100)
    assert allow({"maf": 3.0}, full, full, "m", single_pass=[100, 40]).steps == (100, 40)


@pytest.mark.parametrize("limit", [0.5, 1e9])
def test_a_budget_that_is_too_small_names_the_method_and_what_would_do(limit: float) -> None:
    full = run_cost(10**9, 100, steps=2)
    cost = run_cost(10**9, 300, extra=10**9)
    with pytest.raises(UserError) as caught:
        allow({"maf": limit}, cost, full, "ewc")
    message = str(caught.value)
    assert "not one step of ewc fits into task 0 (t0)" in message and "\n" not in message
    enough = message.rpartition("maf=")[2].split()[0]
    found = allow({"maf": budget_amount("maf", enough)}, cost, full, "ewc")
    assert found.steps[0] == 1


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("maf", "full", 1.0),
        ("maf", "0.5x", 0.5),
        ("maf", "1.8e9G", 1.8e18),
        ("flops", "full", 1.0),
        ("flops", "1e12", 1e12),
        ("seconds", "2min", 120),
        ("memory", "1kB", 1000),
    ],
)
def test_limits_as_people_write_them(key: str, text: str, value: float) -> None:
    assert budget_amount(key, text) == value


@pytest.mark.parametrize(("key", "text"), [("steps", "full"), ("seconds", "2x"), ("maf", "much"), ("maf", "1e7x")])
def test_limits_that_mean_nothing(key: str, text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        budget_amount(key, text)


def test_limits_in_words() -> None:
    assert budget_text({"steps": 60, "maf": 1.0}) == "maf 1 x full fine-tuning, steps 60"
    assert budget_text({"flops": 1e12}) == "flops 1 T" and budget_text({}) == ""


def test_reading_a_budget_imports_no_torch() -> None:
    program = "import sys, clbench.budgets; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
