"""SLCA: its Gaussians, its normalised loss, and a head that no alignment marks for good."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from clbench.engine.session import Session
from clbench.errors import Interrupted, UserError
from clbench.state import pack
from clbench.strategies.class_gaussians import ClassGaussians
from clbench.strategies.slca import SLCA, mean_task_norm

Drive = Callable[..., Session]
JOB = {
    "stream": "split-digits",
    "backbone": "mlp:24x1",
    "stream_settings": {"train_per_class": 20, "sizes": [3, 5, 2]},
}
QUICK = {"epochs": 2, "batch_size": 16, "samples_per_class": 16, "ca_epochs": 2, "lr": 0.05, "backbone_lr_scale": 0.1}
SLICES = [[0, 1, 2], [3, 4, 5, 6, 7], [8, 9]]


def gaussians(features: torch.Tensor, labels: torch.Tensor, ridge: float = 1e-4) -> ClassGaussians:
    fitted = ClassGaussians(ridge)
    fitted.add(0, zip(features.split(7), labels.split(7), strict=True))
    return fitted


@pytest.mark.oracle("slca", "draws have the class's mean and covariance, also of fewer samples than dimensions")
@pytest.mark.parametrize("n", [200, 6, 1])
def test_draws_have_the_moments_of_the_class(n: int) -> None:
    """100,000 draws of two classes in 8 dimensions; from 6 samples the covariance is singular, from 1 it is zero."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(8, 8, generator=generator, dtype=torch.float64)
    x = (torch.randn(2 * n, 8, generator=generator, dtype=torch.float64) @ mixing + 30).float()
    y = torch.arange(2).repeat(n)
    fitted = gaussians(x, y, ridge=0.25)
    assert fitted.classes == [0, 1] and fitted.tasks == [0, 0]
    assert fitted.factors[1].shape == (8, min(8, n - 1))
    drawn = fitted.draw(100_000, generator, lambda mean, deviations, task: mean + deviations).pool
    assert drawn.features and drawn.inputs.dtype == torch.float32
    for label in (0, 1):
        own, found = x[y == label].double(), drawn.inputs[drawn.labels == label].double()
        expected = (own.T.cov() if n > 1 else torch.zeros(8, 8)) + 0.25 * torch.eye(8)
        scale = expected.diagonal().max()
        torch.testing.assert_close(found.mean(0), own.mean(0), rtol=0, atol=0.02 * scale.sqrt().item())
        torch.testing.assert_close(found.T.cov(), expected.double(), rtol=0, atol=0.03 * scale.item())


def test_draws_hold_every_gaussian_equally_often_in_random_order() -> None:
    x = torch.arange(3.0).repeat_interleave(5)[:, None] * 100 + torch.randn(15, 4)
    fitted = gaussians(x, torch.arange(3).repeat_interleave(5))
    generator = torch.Generator().manual_seed(1)
    first, second = (fitted.draw(10, generator, lambda mean, deviations, task: mean + deviations) for _ in range(2))
    assert first.labels.bincount().tolist() == second.labels.bincount().tolist() == [10, 10, 10]
    assert torch.equal((first.pool.inputs.mean(1) / 100).round().long(), first.labels)
    assert len(torch.cat([first.pool.inputs, second.pool.inputs]).unique(dim=0)) == 60
    assert not torch.equal(first.labels, second.labels)
    assert not torch.equal(first.labels, first.labels.sort().values)


@pytest.mark.oracle("slca", "normalised logits: the loss by hand, and its gradient by finite differences")
@pytest.mark.parametrize("logit_norm", ["tasks", "all"])
def test_the_alignment_loss_and_its_gradient(logit_norm: str, drive: Drive) -> None:
    """Norms by task of 3, 5 and 2 classes, or of all, in float64; the norm is not a constant for the gradient."""
    session = drive("slca", {**QUICK, "tau": 0.1, "logit_norm": logit_norm}, job=JOB)
    strategy, head = session.strategy, session.model.head
    session.model.double()
    batch = session.services.batch(strategy.drawn(session.stream.tasks[2]), torch.arange(20), "plain")
    batch.x = batch.x.double()

    def by_hand(weight: torch.Tensor) -> torch.Tensor:
        losses = []
        for x, y in zip(batch.x, batch.y, strict=True):
            z = weight @ x + head.bias
            parts = SLICES if logit_norm == "tasks" else [list(range(10))]
            norm = sum(z[classes].square().sum().sqrt() for classes in parts) / len(parts)
            losses.append(F.cross_entropy((z / (0.1 * norm))[None], y[None]))
        return torch.stack(losses).mean()

    strategy.alignment_loss(batch).backward()
    with torch.no_grad():
        torch.testing.assert_close(strategy.alignment_loss(batch).double(), by_hand(head.weight), rtol=1e-5, atol=0)
        for row, column in ((0, 0), (4, 7), (9, 3)):
            step = torch.zeros_like(head.weight)
            step[row, column] = 1e-6
            slope = (by_hand(head.weight + step) - by_hand(head.weight - step)) / 2e-6
            assert head.weight.grad[row, column].item() == pytest.approx(slope.item(), rel=1e-3, abs=1e-6)


def test_a_task_that_brought_no_class_has_no_norm() -> None:
    z = torch.tensor([[3.0, 4.0, 12.0]])
    assert mean_task_norm(z, [[0, 1], [], [2]]).item() == pytest.approx(8.5)


@pytest.mark.oracle("slca", "each task starts from the head as it was before it was aligned")
@pytest.mark.parametrize("restore", [True, False])
def test_the_head_is_restored_before_the_next_task(
    restore: bool, drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, torch.Tensor] = {}
    for name in ("before_alignment", "end_task", "begin_task"):
        original = getattr(SLCA, name)

        def noted(self: SLCA, task: Any, name: str = name, original: Any = original) -> None:
            original(self, task)
            seen[f"{name} {task.index}"] = self.model.head.weight.detach().clone()

        monkeypatch.setattr(SLCA, name, noted)
    drive("slca", {**QUICK, "restore_head": restore}, job=JOB)
    aligned, before = seen["end_task 1"], seen["before_alignment 1"]
    assert not torch.equal(aligned, before)
    assert torch.equal(seen["begin_task 2"][:8], before if restore else aligned)
    assert torch.equal(seen["begin_task 1"][:3], seen["end_task 0"])  # the first task is not aligned
    assert torch.equal(seen["before_alignment 2"][:8], seen["begin_task 2"][:8])  # old rows stand still, decay or not
    assert (seen["before_alignment 2"][8:] - seen["begin_task 2"][8:]).abs().min() > 0


@pytest.mark.oracle("slca", "alignment changes neither the backbone nor any statistic, now or later")
def test_alignment_leaves_no_trace_but_in_the_head(drive: Drive) -> None:
    runs = [drive("slca", {**QUICK, "ca_epochs": n, "ca_lr": lr}, job=JOB) for n, lr in ((1, 0.01), (3, 1.0))]
    first, second = (run.strategy.state for run in runs)
    assert len(first.gaussians) == 10
    for name in ("means", "factors"):
        pairs = zip(getattr(first.gaussians, name), getattr(second.gaussians, name), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert all(torch.equal(value, second.head[name]) for name, value in first.head.items())
    a, b = (run.model.state_dict() for run in runs)
    assert {name for name in a if not torch.equal(a[name], b[name])} == {"head.weight", "head.bias"}


SLICE_FINETUNE = """
from clbench.strategy import Strategy

class SliceFinetune(Strategy):
    def begin_task(self, task):
        self.state.first = min(task.classes)

    def loss(self, batch):
        return self.objective.mean_loss(self.model(batch.x)[:, self.state.first :], batch.y - self.state.first)
"""


@pytest.mark.oracle("slca", "without alignment and with equal rates it is finetuning on the task's own classes")
def test_without_alignment_it_is_finetuning_on_the_slice(drive: Drive, tmp_path: Path) -> None:
    file = tmp_path / "slice_finetune.py"
    file.write_text(SLICE_FINETUNE)
    training = {"lr": 0.05, "momentum": 0.9, "batch_size": 16, "epochs": 2, "optimizer": "sgd", "schedule": "cosine"}
    off = {"ca_epochs": 0, "backbone_lr_scale": 1.0, "head_std": None}
    job = {**JOB, "backbone": "slim-resnet18?width=2"}
    expected = drive(f"{file}:SliceFinetune", {**training, "weight_decay": 0.0}, job=job).model.state_dict()
    found = drive("slca", {**training, **off, "weight_decay": 0.0}, job=job)
    assert all(torch.equal(value, expected[name]) for name, value in found.model.state_dict().items())
    assert not len(found.strategy.state.gaussians)
    slow = drive("slca", {**training, **off, "weight_decay": 0.0, "backbone_lr_scale": 0.0}, job=JOB).model
    still = drive("slca", {**training, **off, "lr": 0.0}, job=JOB).model
    same = {name for name, p in slow.named_parameters() if torch.equal(p, dict(still.named_parameters())[name])}
    assert same == {name for name, _ in slow.named_parameters() if name.startswith("backbone.")}


@pytest.mark.oracle("slca", "means shrink with the age of the task that brought the class, whatever the tasks' sizes")
def test_means_shrink_by_task(drive: Drive) -> None:
    session = drive("slca", QUICK, job=JOB)
    fitted = session.strategy.state.gaussians
    fitted.ridge, fitted.factors = 0.0, [factor * 0 for factor in fitted.factors]
    drawn = session.strategy.drawn(session.stream.tasks[2]).pool
    for number, mean in enumerate(fitted.means):
        i = next(i for i, classes in enumerate(SLICES) if number in classes)
        rows = drawn.inputs[drawn.labels == number]
        assert rows.shape == (16, 24)
        torch.testing.assert_close(rows, ((0.9 + 0.1 * (i + 1) / 3) * mean).expand_as(rows))


def test_statistics_are_of_unaugmented_samples_in_eval_mode(drive: Drive) -> None:
    """A backbone with batch normalisation; the last task's Gaussians, made before the last alignment."""
    session = drive("slca", QUICK, job={**JOB, "backbone": "slim-resnet18?width=2"})
    model, fitted = session.model.eval(), session.strategy.state.gaussians
    train = session.stream.tasks[2].train
    with torch.no_grad():
        features = model.features(session.services.batch(train, torch.arange(len(train)), "plain").x).double()
    for label in (8, 9):
        own = features[train.labels == label]
        torch.testing.assert_close(fitted.means[label].double(), own.mean(0), rtol=1e-4, atol=1e-6)
        factor = fitted.factors[label].double()
        torch.testing.assert_close(factor @ factor.T, own.T.cov(), rtol=1e-3, atol=1e-6)
        assert factor.shape[1] <= len(own) - 1


def test_classes_that_come_again_have_a_gaussian_for_each_task(drive: Drive, final: Callable[..., float]) -> None:
    job = {"stream": "permuted-digits", "backbone": "mlp:24x1", "stream_settings": {"tasks": 2, "train_per_class": 20}}
    session = drive("slca", {**QUICK, "backbone_lr_scale": 1.0}, job=job)
    assert session.strategy.state.gaussians.tasks == [0] * 10 + [1] * 10
    assert session.strategy.state.slices == [list(range(10)), []]
    assert final(session) > 0.2


def test_a_head_without_weights_is_refused(drive: Drive) -> None:
    with pytest.raises(UserError, match="--head linear or cosine"):
        drive("slca", QUICK, job=JOB, head="prototype")


@pytest.mark.oracle("slca", "stopped anywhere, also within alignment, it resumes to the same bits")
@pytest.mark.parametrize(
    ("strategy", "backbone"),
    [
        ("slca", "mlp:24x1"),
        ("slca++", "timm:vit_tiny_patch16_224?img_size=32,patch_size=8,embed_dim=24,depth=1,num_heads=2"),
    ],
)
def test_it_resumes_to_the_same_bits(strategy: str, backbone: str, drive: Drive, tmp_path: Path) -> None:
    """Task 1 has 10 steps of training and 16 of alignment, from step 6 on."""
    settings = {**QUICK, "epochs": 1, "batch_size": 20}
    job = {**JOB, "backbone": backbone, "stream_settings": {"train_per_class": 12, "sizes": [3, 5, 2]}}
    whole = drive(strategy, settings, job=job)
    folder = tmp_path / "stopped"
    for stop_at in (3, 5, 8, 15):
        torch.rand(3)
        with pytest.raises(Interrupted):
            drive(strategy, settings, job=job, stop_at=stop_at, folder=folder)
    again = drive(strategy, settings, job=job, folder=folder)
    expected, found = tensors(whole), tensors(again)
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def tensors(session: Session) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    pack(vars(session.strategy.state), "state", found)
    return found | session.model.state_dict()


@pytest.mark.oracle("slca", "beats finetuning and its own unaligned head")
def test_alignment_brings_old_classes_back(drive: Drive, final: Callable[..., float]) -> None:
    job = {"stream": "split-digits", "backbone": "mlp:64x1", "stream_settings": {"train_per_class": 40}}
    settings = {"epochs": 4, "batch_size": 16, "lr": 0.1, "backbone_lr_scale": 0.05}
    aligned = final(drive("slca", settings, job=job))
    assert aligned > final(drive("slca", {**settings, "ca_epochs": 0}, job=job)) + 0.1
    assert aligned > final(drive("finetune", {"epochs": 4}, job=job)) + 0.2
