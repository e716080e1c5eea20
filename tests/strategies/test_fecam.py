"""FeCAM: Mahalanobis distances by the definition, whatever the settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.covariance import EmpiricalCovariance

from clbench.class_statistics import ClassStatistics
from clbench.config import parse_config
from clbench.engine.session import Session
from clbench.errors import UserError
from clbench.samples import Batch
from clbench.strategies.fecam import FeCAM

Drive = Callable[..., Session]
RESNET = {"tukey": 0.5, "a2": 1.0, "shrinkages": 2, "normalise": "distance"}
PLAIN = {"a1": 0.0, "shrinkages": 0, "correlations": False, "normalise": "distance"}
SETTINGS: list[dict[str, Any]] = [{}, RESNET, {"shrinkages": 0, "correlations": False}, {"covariance": "shared"}]


def batch(x: np.ndarray, y: np.ndarray) -> Batch:
    features, labels = torch.from_numpy(x), torch.from_numpy(y)
    return Batch(x=features, y=labels, raw=features, labels=labels, index=labels)


def fitted(settings: dict[str, Any], x: np.ndarray, y: np.ndarray) -> FeCAM:
    """FeCAM that has read these features, in parts of 13."""
    strategy = FeCAM(parse_config(FeCAM.Config, settings, "fecam"), None)  # type: ignore[arg-type]
    strategy.setup()
    for rows in np.array_split(np.arange(len(x)), len(x) // 13):
        strategy.after_step(batch(x[rows], y[rows]))
    return strategy


def data(n: int = 260, d: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Positive, skewed features of four classes with covariances of their own."""
    rng = np.random.default_rng(0)
    y = rng.integers(4, size=n)
    mixing = rng.normal(size=(4, d, d))
    return np.exp(0.3 * np.einsum("nd,nde->ne", rng.normal(size=(n, d)), mixing[y]) + 0.5 * y[:, None]), y


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def distances(inputs: np.ndarray, x: np.ndarray, y: np.ndarray, c: Any) -> np.ndarray:
    """The definition, class by class with a pseudo-inverse: [len(inputs), 4]."""
    inputs, x = (v ** (c.tukey or 1.0) for v in (inputs, x))
    if c.normalise == "features":
        inputs, x = unit(inputs), unit(x)
    within = x - np.stack([x[y == k].mean(0) for k in range(4)])[y]
    found = []
    for k in range(4):
        s = within.T @ within / len(x) if c.covariance == "shared" else np.cov(x[y == k].T)
        for _ in range(c.shrinkages):
            others = s[~np.eye(len(s), dtype=bool)].mean()
            s = s + c.a1 * s.diagonal().mean() * np.eye(len(s)) + c.a2 * others * (1 - np.eye(len(s)))
        if c.correlations:
            s = s / np.sqrt(np.outer(s.diagonal(), s.diagonal()))
        mean = x[y == k].mean(0)
        u = unit(inputs) - unit(mean) if c.normalise == "distance" else inputs - mean
        found.append(np.einsum("nd,de,ne->n", u, np.linalg.pinv(s), u))
    return np.stack(found, axis=1)


@pytest.mark.oracle("fecam", "distances are the definition's with numpy, for transformers, ResNets, shared covariances")
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_scores_are_the_definition(settings: dict[str, Any]) -> None:
    x, y = data()
    strategy = fitted(settings, x, y)
    inputs = x[:40] * 1.1
    expected = torch.from_numpy(-distances(inputs, x, y, strategy.config))
    torch.testing.assert_close(strategy.predict(torch.from_numpy(inputs)), expected.float(), rtol=2e-6, atol=1e-6)


@pytest.mark.oracle("fecam", "without shrinkage and correlations, scikit-learn's Mahalanobis distances")
def test_plain_distances_are_those_of_scikit_learn() -> None:
    x, y = data()
    x = unit(x)  # so that scaling in the distance leaves inputs alone; means are set to unit length, too
    strategy = fitted(PLAIN, x, y)
    for k in range(4):
        estimator = EmpiricalCovariance().fit(x[y == k])
        estimator.location_ = unit(x[y == k].mean(0))
        n = (y == k).sum()
        expected = torch.from_numpy(-estimator.mahalanobis(x) * (n - 1) / n)
        torch.testing.assert_close(strategy.predict(torch.from_numpy(x))[:, k], expected.float(), rtol=1e-5, atol=1e-5)


def test_covariances_matter() -> None:
    """Two classes with one mean: only their covariances tell them apart."""
    rng = np.random.default_rng(1)
    y = rng.integers(2, size=400)
    x = rng.normal(size=(400, 2)) * np.where(y[:, None] == 0, [3.0, 0.3], [0.3, 3.0])
    strategy = fitted({**PLAIN, "normalise": "features"}, np.concatenate([x, np.full((400, 1), 9.0)], 1), y)
    inputs = torch.from_numpy(np.concatenate([x, np.full((400, 1), 9.0)], 1))
    assert (strategy.predict(inputs).argmax(1).numpy() == y).mean() > 0.85


def test_tukeys_transform_is_refused_for_signed_features() -> None:
    x, y = data()
    with pytest.raises(UserError, match="without negative values"):
        fitted({"tukey": 0.5}, x - 1, y)


@pytest.mark.parametrize("settings", [{}, PLAIN, {"covariance": "shared"}], ids=str)
def test_single_samples_and_constant_features_have_finite_distances(settings: dict[str, Any]) -> None:
    x = np.array([[1.0, 2.0, 0.0]])
    strategy = fitted(settings, np.repeat(x, 13, axis=0), np.array([0] * 13))
    strategy.after_step(batch(x + 3, np.array([1])))
    scores = strategy.predict(torch.from_numpy(np.concatenate([x, x + 3])))
    assert scores.isfinite().all() and scores.argmax(1).tolist() == [0, 1]


def test_only_classes_that_changed_are_factorised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import clbench.strategies.fecam as module

    x, y = data()
    strategy = fitted({}, x, y)
    calls, root = [], module.inverse_root
    monkeypatch.setattr(module, "inverse_root", lambda s: calls.append(1) or root(s))
    inputs = torch.from_numpy(x[:5])
    strategy.predict(inputs), strategy.predict(inputs)
    assert len(calls) == 4
    strategy.after_step(batch(x[:3], np.array([2, 2, 2])))
    strategy.predict(inputs)
    assert len(calls) == 5


@pytest.mark.parametrize("settings", [{}, {"covariance": "shared"}], ids=str)
def test_scores_do_not_depend_on_the_chunk_at_the_width_of_a_large_backbone(settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(60, 768)).astype(np.float32), np.arange(60) % 2
    strategy = fitted(settings, x, y)
    inputs = torch.from_numpy(rng.normal(size=(96, 768)).astype(np.float32))
    whole = strategy.predict(inputs)
    for size in (1, 13, 32, 64):
        assert torch.equal(torch.cat([strategy.predict(part) for part in inputs.split(size)]), whole), size


def test_loaded_statistics_predict_the_same() -> None:
    x, y = data()
    strategy = fitted({}, x, y)
    again = fitted({}, x[:13], y[:13])
    again.state.statistics = ClassStatistics("class")
    again.state.statistics.load_state_dict(strategy.state.statistics.state_dict())
    inputs = torch.from_numpy(x[:7])
    assert torch.equal(again.predict(inputs), strategy.predict(inputs))
