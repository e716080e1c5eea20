"""iCaRL: the exemplars, their means, the prediction and the two losses."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.engine.session import Session
from clbench.herding import herd
from clbench.samples import Samples
from clbench.strategies.icarl import ICaRL

Drive = Callable[..., Session]
Final = Callable[[Session], float]
JOB = {
    "stream": "split-digits",
    "backbone": "mlp:32x1",
    "stream_settings": {"train_per_class": 30, "sizes": [3, 5, 2]},
}
DOMAINS = {"stream": "permuted-digits", "backbone": "mlp:64x1", "stream_settings": {"tasks": 3}}
SMALL = {"memory_size": 40}


def unit_features(session: Session, samples: Samples, flip: bool = False) -> Tensor:
    x = session.services.batch(samples, torch.arange(len(samples)), "plain").x
    with torch.no_grad():
        return F.normalize(session.model.features(x.flip(-1) if flip else x).double(), dim=1)


@pytest.mark.oracle("icarl", "means of all classes are those of their exemplars under the latest network")
@pytest.mark.parametrize("flip", [False, True])
def test_the_means_of_all_classes_are_of_the_latest_network(drive: Drive, flip: bool) -> None:
    session = drive("icarl", {**SMALL, "flip": flip}, job=JOB)
    state = session.strategy.state
    assert len(state.means) == 10
    for label in range(10):
        samples = state.exemplars.samples(label)
        assert len(samples) == 4
        mean = unit_features(session, samples).mean(0)
        if flip:
            mean = (mean + unit_features(session, samples, flip=True).mean(0)) / 2
        torch.testing.assert_close(state.means[label], mean / mean.norm(), rtol=0, atol=1e-6)


def test_the_prediction_is_the_nearest_mean(drive: Drive) -> None:
    session = drive("icarl", SMALL, job=JOB)
    test = session.stream.eval_sets[1].data
    inputs = session.services.batch(test, torch.arange(len(test)), "plain").x
    wanted = torch.cdist(unit_features(session, test), session.strategy.state.means).argmin(1)
    assert torch.equal(session.strategy.predict(inputs).argmax(1), wanted)


@pytest.mark.oracle("icarl", "exemplars are herded once and only lose their ends")
def test_exemplars_are_herded_once_and_lose_their_ends(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[list[Tensor]] = []
    original = ICaRL.end_task

    def noted(self: ICaRL, task: object) -> None:
        original(self, task)  # type: ignore[arg-type]
        exemplars = self.state.exemplars
        kept.append([exemplars.samples(label).pool.inputs for label in exemplars.labels])

    monkeypatch.setattr(ICaRL, "end_task", noted)
    session = drive("icarl", SMALL, job=JOB)
    assert [[len(rows) for rows in sets] for sets in kept] == [[13] * 3, [5] * 8, [4] * 10]
    for earlier, later in pairwise(kept):
        for before, after in zip(earlier, later, strict=False):
            assert torch.equal(before[: len(after)], after)
    last = session.stream.tasks[2].train
    samples = last.subset((last.labels == 9).nonzero()[:, 0])
    chosen = herd(unit_features(session, samples), 4)
    assert torch.equal(kept[2][9], samples.raw(chosen))


@pytest.mark.oracle("icarl", "the loss: labels for new classes, the previous network's sigmoids for old ones")
@pytest.mark.parametrize("kind", ["bce", "ce-kd"])
def test_its_loss(drive: Drive, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    original = ICaRL.end_task
    monkeypatch.setattr(ICaRL, "end_task", lambda self, task: original(self, task) if task.index < 2 else None)
    session = drive("icarl", {**SMALL, "loss": kind}, job=JOB)
    union = session.strategy.state.exemplars.joined(session.stream.tasks[2].train)
    batch = session.services.batch(union, torch.arange(40, 90), "plain")
    assert {0, 9} <= set(batch.y.tolist())
    teacher = session.strategy.teacher("previous")
    assert teacher is not None and teacher.n_classes == 8
    with torch.no_grad():
        outputs, earlier = session.model(batch.x), teacher(batch.x)
        if kind == "bce":
            wanted = torch.cat([earlier.sigmoid(), F.one_hot(batch.y, 10)[:, 8:].float()], 1)
            p = outputs.sigmoid()
            expected = -(wanted * p.log() + (1 - wanted) * (1 - p).log()).sum() / len(batch)
        else:
            target, student = (earlier / 2).softmax(1), (outputs[:, :8] / 2).log_softmax(1)
            kept = (target * (target.log() - student)).sum(1).mean()
            expected = F.cross_entropy(outputs, batch.y) + kept
    torch.testing.assert_close(session.strategy.loss(batch).detach(), expected, rtol=1e-4, atol=1e-5)


def test_inside_a_task_the_head_predicts(drive: Drive) -> None:
    session = drive("icarl", SMALL, job=JOB)
    test = session.stream.eval_sets[0].data
    inputs = session.services.batch(test, torch.arange(20), "plain").x
    assert not torch.equal(session.strategy.predict(inputs), session.model(inputs))
    session.strategy.begin_task(session.stream.tasks[2])
    assert torch.equal(session.strategy.predict(inputs), session.model(inputs))


@pytest.mark.oracle("icarl", "far above finetuning")
def test_it_keeps_old_classes(drive: Drive, final: Final) -> None:
    forgetful = final(drive("finetune", job=JOB))
    assert final(drive("icarl", SMALL, job=JOB)) > forgetful + 0.3
    assert final(drive("icarl", {**SMALL, "loss": "ce-kd"}, job=JOB)) > forgetful + 0.3


def test_domains_that_bring_the_same_classes(drive: Drive, final: Final) -> None:
    """The labels are learned in every domain, and a class has a set for each."""
    session = drive("icarl", {"memory_size": 90}, job=DOMAINS)
    assert len(session.strategy.state.exemplars.samples(3)) == 9
    batch = session.services.batch(session.stream.tasks[2].train, torch.arange(30), "plain")
    outputs, wanted = session.model(batch.x), F.one_hot(batch.y, 10).float()
    expected = F.binary_cross_entropy_with_logits(outputs, wanted, reduction="sum") / 30
    torch.testing.assert_close(session.strategy.loss(batch), expected)
    assert final(session) > final(drive("finetune", job=DOMAINS)) + 0.02
