"""NMC: the result depends on the data alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from clbench.engine.session import Session

Drive = Callable[..., Session]


def job(**stream: object) -> dict[str, object]:
    settings = {"train_per_class": 40, **stream}
    return {"stream": "split-digits", "backbone": "pixels", "stream_settings": settings}


def by_original_class(session: Session) -> torch.Tensor:
    """Class means, rows in the source's class order: float64 [10, d]."""
    classes = session.stream.classes
    assert classes is not None
    means = session.strategy.state.sums / session.strategy.state.counts[:, None]
    return means[torch.tensor(classes.original).argsort()]


@pytest.mark.oracle("nmc", "order and cut of the stream change nothing")
@pytest.mark.parametrize("other", [{"sizes": [3, 5, 2]}, {"tasks": 1}, {"tasks": 10}], ids=str)
@pytest.mark.parametrize("order_seed", [0, 3])
def test_order_and_cut_of_the_stream_do_not_matter(drive: Drive, other: dict[str, object], order_seed: int) -> None:
    reference = by_original_class(drive("nmc", job=job()))
    assert reference.dtype == torch.float64
    found = by_original_class(drive("nmc", {"batch_size": 7}, job=job(**other), order_seed=order_seed))
    torch.testing.assert_close(found, reference, rtol=0, atol=1e-6)


@pytest.mark.oracle("nmc", "means and predictions are the definition, in float64")
@pytest.mark.parametrize("normalise", [True, False])
def test_means_and_predictions_are_the_definition(drive: Drive, normalise: bool) -> None:
    session = drive("nmc", {"normalise": normalise}, job=job())
    train = type(session.stream.tasks[0].train).union([t.train for t in session.stream.tasks])
    services = session.services
    features = services.batch(train, torch.arange(len(train)), "plain").x.double()
    features = F.normalize(features, dim=1) if normalise else features
    means = torch.stack([features[train.labels == c].mean(0) for c in range(10)])
    torch.testing.assert_close(session.strategy.state.sums / session.strategy.state.counts[:, None], means)
    test = session.stream.eval_sets[0].data
    inputs = services.batch(test, torch.arange(len(test)), "plain").x
    wanted = torch.cdist(F.normalize(inputs.double(), dim=1) if normalise else inputs.double(), means).argmin(1)
    assert torch.equal(session.strategy.predict(inputs).argmax(1), wanted)


def test_classes_without_samples_are_never_predicted(drive: Drive) -> None:
    strategy = drive("nmc", job=job()).strategy
    strategy.state.counts[[0, 4]] = 0
    strategy.state.sums[[0, 4]] = 0
    scores = strategy.predict(torch.randn(50, strategy.state.sums.shape[1]))
    assert scores[:, [0, 4]].isneginf().all()
    assert scores[:, [1, 2, 3, 5, 6, 7, 8, 9]].isfinite().all()


def test_it_is_good_enough_to_be_right(drive: Drive, final: Callable[[Session], float]) -> None:
    assert final(drive("nmc", job=job())) > 0.85
