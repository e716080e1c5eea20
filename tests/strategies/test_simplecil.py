"""SimpleCIL: cosines to raw class means."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from clbench.engine.session import Session

Drive = Callable[..., Session]
JOB = {"stream": "split-digits", "backbone": "pixels", "stream_settings": {"train_per_class": 20}}


@pytest.mark.oracle("simplecil", "scores are cosines to means of features that are not normalised before")
def test_scores_are_cosines_to_raw_means(drive: Drive) -> None:
    session = drive("simplecil", job=JOB)
    train = type(session.stream.tasks[0].train).union([t.train for t in session.stream.tasks])
    x = session.services.batch(train, torch.arange(len(train)), "plain").x.double()
    means = torch.stack([x[train.labels == c].mean(0) for c in range(10)])
    inputs = torch.randn(30, x.shape[1])
    expected = F.cosine_similarity(inputs.double()[:, None], means, dim=2)
    torch.testing.assert_close(session.strategy.predict(inputs), expected.float())
    of_normalised = torch.stack([F.normalize(x, dim=1)[train.labels == c].mean(0) for c in range(10)])
    other = F.cosine_similarity(inputs.double()[:, None], of_normalised, dim=2)
    assert (other - expected).abs().max() > 1e-4
