from __future__ import annotations

from typing import Any

import pytest

from clbench.metrics import compute
from clbench.metrics.noise import expected_maximum
from clbench.table import EvaluationTable, Row


def flat_run(evaluations: int, n: int | None, level: float = 0.8) -> EvaluationTable:
    """Two tasks; the first set is traced every step of the second one and never changes."""
    end = evaluations
    rows = [Row(0, 1, "a", level, n=n, belongs_to=0), Row(0, 1, "a", level, n=n, belongs_to=0, kind="trace")]
    rows += [Row(s, 1, "a", level, n=n, belongs_to=0, kind="trace") for s in range(1, end + 1)]
    rows += [Row(end, 2, name, level, n=n, belongs_to=j) for j, name in enumerate("ab")]
    rows += [Row(end, 2, "b", level, n=n, belongs_to=1, kind="trace")]
    rows += [Row(end - 1, 1, "b", level, n=n, belongs_to=1, kind="trace")]
    return EvaluationTable(rows)


def floor(evaluations: int, n: int | None, **options: Any) -> dict[str, Any]:
    return dict(compute(flat_run(evaluations, n), **options)["noise_floor"])


def test_expected_maximum() -> None:
    assert expected_maximum(1) == pytest.approx(0.0, abs=1e-4)
    assert expected_maximum(2) == pytest.approx(0.5642, abs=1e-3)
    assert expected_maximum(100) == pytest.approx(2.5076, abs=1e-3)
    assert expected_maximum(1000) == pytest.approx(3.2414, abs=1e-3)


@pytest.mark.parametrize(
    ("n", "evaluations", "points"),
    [(200, 100, 7.3), (200, 1000, 9.5), (1000, 100, 3.3), (1000, 1000, 4.2), (10_000, 100, 1.0)],
)
def test_min_acc_floor_agrees_with_binomial_draws(n: int, evaluations: int, points: float) -> None:
    assert 80 - 100 * floor(evaluations, n)["min_acc"] == pytest.approx(points, abs=0.35)


def test_window_floor_agrees_with_binomial_draws() -> None:
    import numpy as np

    draws = np.random.default_rng(1).binomial(500, 0.8, size=(200, 101)) / 500
    drops = [max(max(row[max(0, i - 9) : i + 1]) - row[i] for i in range(len(row))) for row in draws.tolist()]
    # The second set has two evaluations only.
    pair = expected_maximum(2) * (0.8 * 0.2 / 500) ** 0.5
    expected = (np.mean(drops) + pair) / 2
    assert floor(100, 500)["wf_10"] == pytest.approx(expected, rel=0.1)


def test_gap_floor_agrees_with_binomial_draws() -> None:
    import numpy as np

    draws = np.random.default_rng(1).binomial(500, 0.8, size=(300, 51)) / 500
    depth = (draws[:, 0] - draws.min(axis=1)).mean()
    assert floor(50, 500)["gap_depth"] == pytest.approx(depth, rel=0.1)
    positive = np.maximum(draws[:, :1] - draws, 0)
    assert floor(50, 500)["gap_mean"] == pytest.approx(positive.mean(), rel=0.2)


def test_fewer_samples_and_more_evaluations_raise_the_floor() -> None:
    assert floor(100, 200)["gap_depth"] > floor(100, 1000)["gap_depth"] > floor(20, 1000)["gap_depth"] > 0
    assert floor(100, 1000) == floor(100, 1000)


def test_unknown_spread() -> None:
    assert floor(10, None)["min_acc"] is None
    assert "n (samples) is unknown" in floor(10, None)["undefined"]["min_acc"]
    losses = floor(10, 100, direction="lower")
    assert losses["wf_10"] is None
    assert "accuracies only" in losses["undefined"]["gap_depth"]
