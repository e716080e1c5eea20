"""Schedules: published shapes, the boundary convention, and what holds for all of them."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clbench.errors import UserError
from clbench.phase import TrainingConfig
from clbench.schedules import SCHEDULES, factor, share_of, warmup_cosine


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 3e-5), (9, 3e-4), (10, 3e-4), (55, 1.65e-4), (100, 3e-5)], ids=lambda v: f"{v:g}"
)
def test_warmup_cosine_vector(step: int, rate: float) -> None:
    """100 steps, 10 of warm-up, 3e-4 to 3e-5."""
    assert 3e-4 * warmup_cosine(step, 100, warmup=10) == pytest.approx(rate, rel=1e-12)


def test_warmup_cosine_between_the_steps() -> None:
    assert 3e-4 * warmup_cosine(32.5, 100, warmup=10) == pytest.approx(2.60459e-4, rel=1e-5)  # type: ignore[arg-type]


def test_a_phase_shorter_than_its_warmup_is_all_warmup() -> None:
    assert [warmup_cosine(s, 4, warmup=8) for s in range(4)] == [1 / 8, 2 / 8, 3 / 8, 4 / 8]
    assert [warmup_cosine(s, 3, warmup=3) for s in range(4)] == [1 / 3, 2 / 3, 1.0, 1.0]


def test_shares_round_half_up_and_never_vanish() -> None:
    assert [share_of(0.01, n) for n in (1, 100, 149, 150, 250)] == [1, 1, 1, 2, 3]
    assert share_of(0, 1000) == 0


def test_constant_and_linear() -> None:
    assert [factor("constant", s, 4) for s in range(5)] == [1.0] * 5
    assert [factor("linear", s, 4) for s in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_cosine_starts_at_the_peak_and_ends_at_a_tenth() -> None:
    assert factor("cosine", 0, 50) == 1.0
    assert factor("cosine", 25, 50) == pytest.approx(0.55)
    assert factor("cosine", 50, 50) == pytest.approx(0.1)


def test_wsd_holds_then_decays_by_one_minus_sqrt() -> None:
    assert [factor("wsd", s, 200) for s in (0, 1, 2, 100, 180)] == [0.5, 1.0, 1.0, 1.0, 1.0]
    assert factor("wsd", 185, 200) == pytest.approx(0.1 + 0.9 * (1 - math.sqrt(0.25)))
    assert factor("wsd", 200, 200) == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["multistep", "multistep:0.5,.8", "annealing:20"])
def test_schedules_by_epochs_are_torchs(name: str) -> None:
    """20 epochs of 7 steps."""
    import torch
    from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    milestones = {"multistep": [18], "multistep:0.5,.8": [10, 16]}
    rates = MultiStepLR(optimizer, milestones[name]) if name in milestones else CosineAnnealingLR(optimizer, 20)
    for step in range(20 * 7):
        assert factor(name, step, 20 * 7) == pytest.approx(rates.get_last_lr()[0])
        optimizer.step()
        if step % 7 == 6:
            rates.step()


def test_annealing_ends_at_zero() -> None:
    assert [factor("annealing", s, 4) for s in (0, 2, 4)] == pytest.approx([1.0, 0.5, 0.0])


@pytest.mark.parametrize("name", ["multistep:", "multistep:1.5", "multistep:0.5;0.8", "cosine:0.5", "annealing:0"])
def test_what_stands_after_a_colon_is_checked(name: str) -> None:
    with pytest.raises(UserError, match="after a colon stand"):
        factor(name, 0, 10)
    with pytest.raises(ValueError, match="after a colon stand"):
        TrainingConfig(schedule=name)


def test_warm_restarts_are_gdumbs_over_256_passes() -> None:
    per_pass = 3
    rate = [factor("warm-restarts", s, 256 * per_pass) for s in range(256 * per_pass)]
    assert rate[:per_pass] == [0.1] * per_pass
    for start in (1, 2, 4, 8, 16, 32, 64, 128):
        assert rate[start * per_pass] == 1.0
        assert rate[start * per_pass * 3 // 2] == pytest.approx(0.505, abs=0.4 / start)
    assert factor("warm-restarts", 256 * per_pass, 256 * per_pass) == pytest.approx(0.01)


@settings(deadline=None)
@given(st.sampled_from(sorted(SCHEDULES)), st.integers(1, 3000), st.data())
def test_factors_lie_between_zero_and_one(name: str, steps: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, steps))
    assert 0.0 <= factor(name, step, steps) <= 1.0
    assert factor(name, steps + 7, steps) == factor(name, steps, steps)
    assert max(factor(name, s, steps) for s in range(min(steps, 50))) > 0


def test_mistakes_are_told() -> None:
    with pytest.raises(UserError, match="did you mean cosine"):
        factor("cosin", 0, 10)
    with pytest.raises(ValueError, match="step -1"):
        factor("cosine", -1, 10)
    with pytest.raises(ValueError, match="0 steps"):
        factor("cosine", 0, 0)


def test_training_config_knows_the_names() -> None:
    assert TrainingConfig(schedule="warmup-cosine").schedule == "warmup-cosine"
    with pytest.raises(ValueError, match="unknown schedule"):
        TrainingConfig(schedule="warmup-cosin")


def test_summaries_are_one_line_and_the_import_is_light() -> None:
    assert all(s.summary and "\n" not in s.summary and s.name == name for name, s in SCHEDULES.items())
    code = "import sys, clbench.schedules; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
