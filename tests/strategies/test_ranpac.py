"""RanPAC: ridge regression on random features, and the choice of the ridge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from clbench.engine.session import Session
from clbench.errors import Interrupted, UserError
from clbench.strategies.ranpac import RIDGES, RanPAC

Drive = Callable[..., Session]
FIXED = {"first_session": "none", "projection": 120}
JOB = {
    "stream": "split-digits",
    "backbone": "pixels",
    "stream_settings": {"train_per_class": 30, "sizes": [3, 5, 2]},
}
VIT = {
    **JOB,
    "stream_settings": {"train_per_class": 12, "sizes": [3, 5, 2]},
    "backbone": "timm:vit_tiny_patch16_224?img_size=8,patch_size=4,embed_dim=24,depth=2,num_heads=3",
}


def random_features(session: Session, tasks: slice) -> tuple[Tensor, Tensor]:
    """h, float64 [N, M], and labels of these tasks' training samples."""
    train = type(session.stream.tasks[0].train).union([t.train for t in session.stream.tasks[tasks]])
    batch = session.services.batch(train, torch.arange(len(train)), "plain")
    return (batch.x.double() @ session.strategy.state.projection).clamp(min=0), batch.y


@pytest.mark.oracle("ranpac", "weights are scikit-learn's ridge regression on the random features of all tasks")
def test_weights_are_ridge_regression_on_all_tasks(drive: Drive) -> None:
    session = drive("ranpac", FIXED, job=JOB)
    h, y = random_features(session, slice(None))
    ridge = session.strategy.state.ridge
    expected = Ridge(alpha=ridge, fit_intercept=False, solver="svd").fit(h.numpy(), np.eye(10)[y.numpy()]).coef_
    torch.testing.assert_close(session.strategy.state.weights, torch.from_numpy(expected), rtol=1e-6, atol=1e-9)
    x = session.services.batch(session.stream.tasks[0].train, torch.arange(5), "plain").x
    scores = session.strategy.predict(x)
    torch.testing.assert_close(scores, (h[:5] @ torch.from_numpy(expected).T).float(), rtol=1e-6, atol=1e-6)


@pytest.mark.oracle("ranpac", "the ridge is that of 17 with the least held-out error, on the current task alone")
@pytest.mark.parametrize("projection", [0, 40, 400])
def test_the_ridge_is_the_best_on_a_fifth_of_the_task(
    drive: Drive, projection: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More features than samples, and fewer; each lambda solved on its own. A fixed split, to know it here."""
    monkeypatch.setattr(RanPAC, "generator", lambda *_: torch.Generator().manual_seed(7))
    session = drive("ranpac", {**FIXED, "projection": projection}, job=JOB)
    h, y = random_features(session, slice(2, 3))
    if projection == 0:
        train = session.stream.tasks[2].train
        h = session.services.batch(train, torch.arange(len(train)), "plain").x.double()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(7))
    fit, held = order[: int(0.8 * len(y))], order[int(0.8 * len(y)) :]
    targets = torch.eye(10, dtype=torch.float64)[y]
    errors = []
    for ridge in RIDGES.tolist():
        model = Ridge(alpha=ridge, fit_intercept=False, solver="svd").fit(h[fit].numpy(), targets[fit].numpy())
        errors.append((torch.from_numpy(model.predict(h[held].numpy())) - targets[held]).square().mean())
    assert session.strategy.state.ridge == RIDGES[int(torch.stack(errors).argmin())]


@pytest.mark.parametrize("n", [15, 90])
def test_both_ways_to_share_the_decomposition_give_every_solution(drive: Drive, n: int) -> None:
    strategy = drive("ranpac", {**FIXED, "projection": 40}, job=JOB).strategy
    x, y = torch.randn(n, 64), torch.arange(n) % 4
    h, targets = strategy._random_features(x), torch.eye(4, dtype=torch.float64)[y]
    values, basis, right = strategy._decomposed(x, y, targets)
    for ridge in (1e-2, 1.0, 1e4):
        expected = torch.linalg.solve(h.T @ h + ridge * torch.eye(40, dtype=h.dtype), h.T @ targets)
        torch.testing.assert_close(basis @ (right / (values + ridge)[:, None]), expected, rtol=1e-6, atol=1e-9)


def test_the_number_of_random_features_follows_the_features(drive: Drive) -> None:
    assert drive("ranpac", {"first_session": "none"}, job=JOB).strategy.state.projection.shape == (64, 833)
    without = drive("ranpac", {"first_session": "none", "projection": 0}, job=JOB).strategy.state
    assert without.weights.shape == (10, 64)


def test_random_features_are_drawn_from_the_seed(drive: Drive) -> None:
    drawn = [drive("ranpac", FIXED, job=JOB, seed=seed).strategy.state.projection for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert abs(drawn[0].mean()) < 0.05 and abs(drawn[0].std() - 1) < 0.05


def test_a_first_session_needs_a_transformer(drive: Drive) -> None:
    with pytest.raises(UserError, match="--backbone"):
        drive("ranpac", job={**JOB, "backbone": "mlp:16x1"})


@pytest.mark.slow
def test_after_a_first_session_it_resumes_to_the_same_bits(drive: Drive, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 12, "projection": 60}
    whole = drive("ranpac", settings, job=VIT)
    assert any("adapter" in name or "pet" in name for name in whole.model.state_dict())
    folder = tmp_path / "stopped"
    for stop_at in (2, 2):
        with pytest.raises(Interrupted):
            drive("ranpac", settings, job=VIT, stop_at=stop_at, folder=folder)
    again = drive("ranpac", settings, job=VIT, folder=folder)
    assert torch.equal(whole.strategy.state.weights, again.strategy.state.weights)
    assert list(whole.table.table) == list(again.table.table)
