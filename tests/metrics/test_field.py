"""What other libraries print on the same matrices, pinned."""

from __future__ import annotations

import pytest

from clbench.metrics import compute, field
from clbench.metrics.trace import largest_changes
from clbench.table import EvaluationTable, Row

FALLING = [[0.80], [0.70, 0.90], [0.85, 0.60, 0.90], [0.84, 0.75, 0.70, 0.95]]
RISING = [[0.5], [0.6, 0.7], [0.8, 0.9, 0.7]]


@pytest.mark.parametrize(
    ("formula", "falling", "rising"),
    [
        (field.continuum_forgetting, 0.1200, -0.2000),
        (field.facil_forgetting, 0.1200, -0.2000),
        (field.mammoth_forgetting, 0.1200, 0.0000),
        (field.renate_forgetting, 0.1200, -0.2000),
        (field.avalanche_forgetting, 0.1033, -0.2500),
        (field.libcontinual_forgetting, 0.0367, -0.1500),
        (field.gem_backward_transfer, -0.1033, 0.2500),
        (field.continuum_backward_transfer, -0.1100, 0.2000),
        (field.libcontinual_backward_transfer, -0.0100, 0.1000),
        (field.trace_backward_transfer, -0.0775, 0.1667),
        (field.mammoth_average, 0.8100, 0.8000),
        (field.continuum_accuracy_a, 0.7990, 0.7000),
    ],
)
def test_worked_matrices(formula, falling: float, rising: float) -> None:  # type: ignore[no-untyped-def]
    assert formula(FALLING) == pytest.approx(falling, abs=5e-5)
    assert formula(RISING) == pytest.approx(rising, abs=5e-5)


def test_renate_counts_zero_shot_scores_as_learned() -> None:
    zero_shot = [[0.80, 0.1, 0.92, 0.1], [0.70, 0.90, 0.1, 0.1], [0.85, 0.60, 0.90, 0.1], FALLING[3]]
    assert field.renate_forgetting(zero_shot) == pytest.approx(0.1267, abs=5e-5)
    assert field.continuum_forgetting(zero_shot) == pytest.approx(0.1200)


def test_forward_transfer_without_a_baseline() -> None:
    R = [[0.8, 0.5], [0.7, 0.9]]
    assert field.gem_forward_transfer(R, [0.5, 0.5]) == pytest.approx(0.0)
    assert field.continuum_forward_transfer(R) == pytest.approx(0.7)


def test_micro_and_macro_averages() -> None:
    sizes = [1000, 500, 500, 2000]
    assert field.avalanche_stream_accuracy(FALLING, sizes) == pytest.approx(0.86625)
    equal = field.pilot_average(FALLING, [1, 1, 1, 1])
    assert equal == pytest.approx(0.7983, abs=5e-5)
    assert field.fomo_accumulation(0.6, 0.19) == pytest.approx(0.59)


def test_windows_of_continual_evaluation_miss_rises() -> None:
    scores = [0.5, 0.1, 0.9]
    assert field.continual_evaluation_window(scores, 3) == pytest.approx(0.4)
    assert field.continual_evaluation_window(scores, 3, rising=True) == pytest.approx(0.4)
    assert largest_changes(list(enumerate(scores)), 3) == pytest.approx((0.4, 0.8))


def test_clbench_is_chaudhry_and_gem() -> None:
    rows = [
        Row(t + 1, t + 1, f"s{j}", value, belongs_to=j) for t, row in enumerate(FALLING) for j, value in enumerate(row)
    ]
    metrics = compute(EvaluationTable(rows))
    assert metrics["forgetting"] == pytest.approx(field.continuum_forgetting(FALLING))
    assert metrics["backward_transfer"] == pytest.approx(field.gem_backward_transfer(FALLING))
    assert metrics["average"] == pytest.approx(field.mammoth_average(FALLING))


def test_trace_divides_by_all_tasks() -> None:
    R = [[0.8], [0.6, 0.7], [0.5, 0.65, 0.9]]
    assert field.mammoth_average(R) == pytest.approx(0.6833, abs=5e-5)
    assert field.trace_backward_transfer(R) == pytest.approx(-0.1167, abs=5e-5)
    assert field.gem_backward_transfer(R) == pytest.approx(-0.175)


def test_facts_forgotten_for_each_fact_gained() -> None:
    assert field.fuar([0.10], [0.15], [0.25]) == pytest.approx(0.25)
    assert field.fuar([-0.2, 0.1], [-0.3], [0.4]) == pytest.approx(0.25)
    assert field.fuar([0.1], [0.0], [-0.1]) is None


def test_normalised_gap_and_recovery() -> None:
    assert field.stability_gap_norm(0.8, [0.6, 0.4, 0.7]) == pytest.approx(0.5)
    assert field.recovery_norm(0.8, [0.6, 0.4, 0.7]) == pytest.approx(0.375)
