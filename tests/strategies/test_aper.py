"""APER: what the first session leaves behind, and class means that no order of tasks changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clbench.class_statistics import ClassStatistics
from clbench.engine.session import Session
from clbench.errors import Interrupted, UserError
from clbench.models.pet import is_pet, pet_parameters
from clbench.samples import Samples
from clbench.state import pack
from clbench.strategies.aper import APER
from clbench.stream import Task

Drive = Callable[..., Session]
VIT = "timm:vit_tiny_patch16_224?img_size=32,patch_size=16,embed_dim=24,depth=2,num_heads=2"
QUICK = {"batch_size": 12, "epochs": 2, "lr": 0.2, "bottleneck": 8}


def job(*sizes: int, backbone: str = VIT) -> dict[str, Any]:
    return {
        "stream": "split-digits",
        "backbone": backbone,
        "stream_settings": {"train_per_class": 12, "sizes": list(sizes)},
    }


def tensors(session: Session) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    pack({k: v.state_dict() for k, v in vars(session.strategy.state).items()}, "", found)
    return found | session.model.state_dict()


def inputs(session: Session, samples: Samples) -> Tensor:
    """Normalised images, as the model takes them."""
    raw, labels = samples.raw(torch.arange(len(samples))), samples.labels
    return session.objective.inputs(raw, labels, "plain", None)[0]


def features(session: Session, samples: Samples) -> Tensor:
    session.model.eval()
    with torch.no_grad():
        return session.strategy.extract(inputs(session, samples))


@pytest.mark.oracle("aper", "the first half of the features is that of the untouched backbone, bit for bit")
@pytest.mark.parametrize("kind", ["adapter", "ssf", "finetune"])
def test_both_halves_of_the_features(kind: str, drive: Drive) -> None:
    session = drive("aper", {**QUICK, "first_session": kind}, job=job(3, 5, 2))
    untrained = session.builder.build().eval()  # the same seed: the backbone as it was
    samples = session.stream.tasks[1].train
    found = features(session, samples)
    with torch.no_grad():
        pretrained = untrained.features(inputs(session, samples))  # type: ignore[operator]
    assert found.shape == (60, 48)
    assert torch.equal(found[:, :24], pretrained)
    with torch.no_grad():
        adapted = session.model.features(inputs(session, samples))  # type: ignore[operator]
    assert torch.equal(found[:, 24:], adapted)
    assert not torch.allclose(adapted, pretrained, atol=1e-2)


@pytest.mark.oracle("aper", "prototypes are raw means of un-augmented features, scores their cosines")
def test_means_and_scores(drive: Drive) -> None:
    session = drive("aper", QUICK, job=job(3, 5, 2))
    rows = Samples.union([task.train for task in session.stream.tasks])
    g = features(session, rows).double()
    means = torch.stack([g[rows.labels == c].mean(0) for c in range(10)])
    torch.testing.assert_close(session.strategy.state.statistics.means(), means, rtol=1e-5, atol=1e-6)
    scores = session.strategy.predict(g.float())
    expected = F.cosine_similarity(g[:, None], means[None], dim=2).float()
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.oracle("aper", "cut and order of the tasks after the first change nothing")
def test_cut_and_order_of_later_tasks_do_not_matter(drive: Drive) -> None:
    kept = {}
    for sizes in ((3, 5, 2), (3, 7), (3, 1, 2, 4)):
        session = drive("aper", QUICK, job=job(*sizes))
        kept[sizes] = session.strategy.state.statistics.means()
    for means in kept.values():
        torch.testing.assert_close(means, kept[3, 7], rtol=1e-12, atol=1e-12)

    means = session.strategy.state.statistics.means()
    session.strategy.state.statistics = ClassStatistics()
    for task in reversed(session.stream.tasks):
        batch = session.services.batch(task.train, torch.arange(len(task.train)), "plain")
        session.strategy.phases(task)[-1].after_step(batch)
    torch.testing.assert_close(session.strategy.state.statistics.means(), means, rtol=1e-12, atol=1e-12)


def test_nothing_is_trained_after_the_first_task(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    modules: list[dict[str, Tensor]] = []
    original: Any = APER.end_task

    def end_task(self: APER, task: Task) -> None:
        original(self, task)
        modules.append({name: p.detach().clone() for name, p in self.model.named_parameters()})

    monkeypatch.setattr(APER, "end_task", end_task)
    session = drive("aper", QUICK, job=job(3, 5, 2))
    assert any(name.startswith("temporary_head") for name in modules[0])
    assert not any(name.startswith("temporary_head") for name in modules[2])
    for name, value in modules[0].items():
        if name.startswith("backbone."):
            assert torch.equal(value, modules[2][name]), name
    untrained = session.builder.build().state_dict()
    inner = {name.replace("inner.", ""): v for name, v in modules[2].items() if not is_pet(name)}
    assert all(torch.equal(v, untrained[name]) for name, v in inner.items() if name.startswith("backbone."))
    assert all(v.abs().sum() > 0 for name, v in pet_parameters(session.model).items() if name.endswith("up.weight"))


@pytest.mark.oracle("aper", "without a first session it is SimpleCIL")
def test_without_first_session_it_is_simplecil(drive: Drive) -> None:
    found = drive("aper", {"first_session": "none"}, job=job(3, 5, 2, backbone="pixels"))
    expected = drive("simplecil", job=job(3, 5, 2, backbone="pixels"))
    assert [r.value for r in found.table.table] == [r.value for r in expected.table.table]


@pytest.mark.parametrize("kind", ["adapter", "finetune"])
def test_an_interrupted_run_ends_with_the_same_bits(kind: str, drive: Drive, tmp_path: Path) -> None:
    """Stopped in the first session, among the first means, and in a later task."""
    settings = {**QUICK, "first_session": kind}
    whole = drive("aper", settings, job=job(3, 5, 2))
    folder = tmp_path / "stopped"
    for stop_at in (4, 4, 3):
        with pytest.raises(Interrupted):
            drive("aper", settings, job=job(3, 5, 2), stop_at=stop_at, folder=folder)
    again = drive("aper", settings, job=job(3, 5, 2), folder=folder)
    expected, found = tensors(whole), tensors(again)
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert list(whole.table.table) == list(again.table.table)


def test_a_first_task_of_one_class(drive: Drive, final: Callable[[Session], float]) -> None:
    session = drive("aper", QUICK, job=job(1, 9))
    assert session.strategy.state.statistics.counts.tolist() == [12] * 10
    assert final(session) > 0.3


def test_domains_add_to_the_means(drive: Drive) -> None:
    stream = {"stream": "permuted-digits", "backbone": VIT, "stream_settings": {"tasks": 2}}
    session = drive("aper", {"steps": 3, "batch_size": 16}, job=stream)
    samples = sum(len(task.train) for task in session.stream.tasks)
    assert int(session.strategy.state.statistics.counts.sum()) == samples


def test_adapters_need_a_transformer(drive: Drive) -> None:
    with pytest.raises(UserError, match=r"APER needs a timm vision transformer.*--backbone"):
        drive("aper", QUICK, job=job(3, 5, 2, backbone="mlp:8x1"))
