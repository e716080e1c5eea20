"""SLDA: scikit-learn's discriminant analysis, in one pass; and the paper's recursion, sample by sample."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from clbench.engine.session import Session

Drive = Callable[..., Session]
JOB = {
    "stream": "split-digits",
    "backbone": "pixels",
    "stream_settings": {"train_per_class": 30, "sizes": [3, 5, 2]},
}


def training_features(session: Session) -> tuple[Tensor, Tensor]:
    """Features float64 [N, d] and labels, in the order they were read."""
    train = type(session.stream.tasks[0].train).union([t.train for t in session.stream.tasks])
    batch = session.services.batch(train, torch.arange(len(train)), "plain")
    return batch.x.double(), batch.y


class Shrunk:
    """A covariance estimator for scikit-learn: (1 - e) S + e I."""

    def __init__(self, e: float) -> None:
        self.e = e

    def fit(self, x: np.ndarray) -> Shrunk:
        centred = x - x.mean(0)
        self.covariance_ = (1 - self.e) * centred.T @ centred / len(x) + self.e * np.eye(x.shape[1])
        return self


@pytest.mark.oracle("slda", "scores are scikit-learn's linear discriminant analysis of all data, without the prior")
@pytest.mark.parametrize("shrinkage", [1e-4, 0.1])
def test_it_is_batch_discriminant_analysis(drive: Drive, shrinkage: float) -> None:
    session = drive("slda", {"shrinkage": shrinkage, "batch_size": 7}, job=JOB)
    x, y = training_features(session)
    batch = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Shrunk(shrinkage)).fit(x.numpy(), y.numpy())
    inputs = x[::5] + 0.3
    expected = torch.from_numpy(batch.decision_function(inputs.numpy()) - np.log(batch.priors_))
    found = session.strategy.predict(inputs)
    torch.testing.assert_close(found, expected.float(), rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.oracle("slda", "batched, the recursion of the paper is what it is sample by sample")
@pytest.mark.parametrize("batch_size", [1, 7, 512])
def test_the_recursion_in_batches_is_that_of_single_samples(drive: Drive, batch_size: int) -> None:
    settings = {"covariance": "streaming", "batch_size": batch_size}
    session = drive("slda", settings, job=JOB)
    x, y = training_features(session)
    sigma, means = torch.zeros(64, 64, dtype=x.dtype), torch.zeros(10, 64, dtype=x.dtype)
    counts = torch.zeros(10)
    for n, (f, c) in enumerate(zip(x, y.tolist(), strict=True)):
        delta = f - means[c]
        sigma = (n * sigma + n / (n + 1) * torch.outer(delta, delta)) / (n + 1)
        means[c] += delta / (counts[c] + 1)
        counts[c] += 1
    torch.testing.assert_close(session.strategy.state.streamed / len(x), sigma, rtol=0, atol=1e-9)
    precision = torch.linalg.pinv((1 - 1e-4) * sigma + 1e-4 * torch.eye(64, dtype=x.dtype))
    expected = x @ precision @ means.T - 0.5 * ((means @ precision) * means).sum(1)
    assert torch.equal(session.strategy.predict(x).argmax(1), expected.argmax(1))


def test_first_samples_inflate_the_recursion_alone(drive: Drive) -> None:
    """With one sample of each class there is nothing within classes; the recursion takes the samples for noise."""
    job = {**JOB, "stream_settings": {"train_per_class": 1}}
    pooled = drive("slda", job=job).strategy.state.statistics.shared_covariance()
    assert torch.equal(pooled, torch.zeros_like(pooled))
    assert drive("slda", {"covariance": "streaming"}, job=job).strategy.state.streamed.trace() > 1


def test_without_shrinkage_a_singular_covariance_has_its_pseudo_inverse(drive: Drive) -> None:
    """Pixels at the border never vary."""
    session = drive("slda", {"shrinkage": 0.0}, job=JOB)
    x, _ = training_features(session)
    s, means = session.strategy.state.statistics.shared_covariance(), session.strategy.state.statistics.means()
    assert (s.diagonal() == 0).any()
    precision = torch.linalg.pinv(s, hermitian=True)
    expected = x @ precision @ means.T - 0.5 * ((means @ precision) * means).sum(1)
    scale = float(expected.abs().max())
    torch.testing.assert_close(session.strategy.predict(x), expected.float(), rtol=1e-5, atol=1e-6 * scale)


def test_the_classifier_is_solved_once_for_each_state(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    import clbench.strategies.slda as module

    strategy = drive("slda", job=JOB).strategy
    calls, solved = [], module.solved
    monkeypatch.setattr(module, "solved", lambda *a: calls.append(1) or solved(*a))
    strategy._classifier = None
    strategy.predict(torch.randn(3, 64))
    strategy.predict(torch.randn(3, 64))
    assert len(calls) == 1
