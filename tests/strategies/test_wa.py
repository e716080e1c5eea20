"""WA: the norms after aligning, the loss, and what aligning is worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from clbench.engine.session import Session
from clbench.errors import UserError
from clbench.samples import Batch
from clbench.strategies.wa import WA, align_rows

Drive = Callable[..., Session]
Final = Callable[[Session], float]
JOB = {
    "stream": "split-digits",
    "backbone": "mlp:32x1",
    "stream_settings": {"train_per_class": 30, "sizes": [3, 5, 2]},
}
DOMAINS = {"stream": "permuted-digits", "backbone": "mlp:64x1", "stream_settings": {"tasks": 3}}
SMALL = {"memory_size": 40}


def before_the_last_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the session as it is before the last task's `end_task`."""
    original = WA.end_task
    monkeypatch.setattr(WA, "end_task", lambda self, task: original(self, task) if task.index < 2 else None)


def some_batch(session: Session) -> Batch:
    return session.services.batch(session.stream.tasks[2].train, torch.arange(20), "plain")


@pytest.mark.oracle("wa", "after aligning mean norms match; aligning again changes nothing")
def test_mean_norms_match_and_a_second_time_changes_nothing() -> None:
    start = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = start.clone()
    old, new = [0, 3, 4], [1, 6]
    align_rows(weight, old, new)
    norms = weight.norm(dim=1)
    torch.testing.assert_close(norms[new].mean(), norms[old].mean())
    assert torch.equal(weight[[0, 2, 3, 4, 5]], start[[0, 2, 3, 4, 5]])
    ratio = weight[new] / start[new]
    torch.testing.assert_close(ratio, ratio[:1, :1].expand_as(ratio))
    once = weight.clone()
    align_rows(weight, old, new)
    torch.testing.assert_close(weight, once, rtol=1e-12, atol=0)


@pytest.mark.parametrize("align", [True, False])
def test_the_last_tasks_rows_are_aligned_and_the_teacher_is_the_aligned_model(drive: Drive, align: bool) -> None:
    session = drive("wa", {**SMALL, "align": align}, job=JOB)
    norms = session.model.head.weight.detach().norm(dim=1)
    assert (abs(norms[:8].mean() - norms[8:].mean()) < 1e-5) == align
    teacher = session.strategy.teacher("previous")
    assert torch.equal(teacher.head.weight, session.model.head.weight)


def test_aligning_touches_the_new_rows_alone(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    before_the_last_end(monkeypatch)
    session = drive("wa", SMALL, job=JOB)
    before = {name: value.clone() for name, value in session.model.state_dict().items()}
    monkeypatch.undo()
    session.strategy.end_task(session.stream.tasks[2])
    after = session.model.state_dict()
    changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert changed == ["head.weight"]
    assert torch.equal(before["head.weight"][:8], after["head.weight"][:8])


@pytest.mark.oracle("wa", "the loss is (1 - lambda) CE + lambda KD on the old outputs, lambda = C_old / C_all")
@pytest.mark.parametrize("t_squared", [False, True])
def test_its_loss(drive: Drive, monkeypatch: pytest.MonkeyPatch, t_squared: bool) -> None:
    before_the_last_end(monkeypatch)
    session = drive("wa", {**SMALL, "temperature": 2.5, "t_squared": t_squared}, job=JOB)
    batch = some_batch(session)
    teacher = session.strategy.teacher("previous")
    with torch.no_grad():
        outputs, wanted = session.model(batch.x), (teacher(batch.x) / 2.5).softmax(1)
        cross = -(wanted * (outputs[:, :8] / 2.5).log_softmax(1)).sum(1).mean()
        entropy = -(wanted * wanted.log()).sum(1).mean()
        factor = 2.5**2 if t_squared else 1.0
        expected = 0.2 * F.cross_entropy(outputs, batch.y) + 0.8 * factor * (cross - entropy)
    torch.testing.assert_close(session.strategy.loss(batch).detach(), expected)


def test_a_step_sees_the_task_and_the_exemplars_as_one_set(drive: Drive) -> None:
    """90 samples; 150 and 3 sets of 13; 60 and 8 sets of 5."""
    session = drive("wa", {**SMALL, "epochs": 1, "batch_size": 1}, job=JOB)
    assert session.step == 90 + (150 + 39) + (60 + 40)
    exemplars = session.strategy.state.exemplars
    assert exemplars.labels == list(range(10)) and len(exemplars) == 40
    assert session.meters.totals["stored_bytes"] >= 40 * 64


def test_one_task_is_finetuning_bit_for_bit(drive: Drive) -> None:
    job = {**JOB, "stream_settings": {"train_per_class": 20, "tasks": 1}}
    expected = drive("finetune", job=job).model.state_dict()
    found = drive("wa", {"clip_weights": False}, job=job).model.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_clipped_weights_are_never_negative(drive: Drive) -> None:
    weight = drive("wa", SMALL, job=JOB).model.head.weight
    assert weight.min() == 0 and weight.max() > 0
    assert drive("wa", {**SMALL, "clip_weights": False}, job=JOB).model.head.weight.min() < 0


def test_only_a_linear_head_has_rows_to_align(drive: Drive) -> None:
    with pytest.raises(UserError, match="use --head linear"):
        drive("wa", job={**JOB, "head": "cosine"})


@pytest.mark.oracle("wa", "above the same distillation without aligning, and that above finetuning")
def test_aligning_helps(drive: Drive, final: Final) -> None:
    job: dict[str, Any] = {**JOB, "stream_settings": {"tasks": 5}}
    aligned, distilled = (final(drive("wa", {"memory_size": 100, "align": a}, job=job)) for a in (True, False))
    assert aligned > distilled + 0.05
    assert distilled > final(drive("finetune", job=job)) + 0.1


def test_domains_bring_no_new_class_and_are_not_aligned(
    drive: Drive, final: Final, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("aligned")

    monkeypatch.setattr("clbench.strategies.wa.align_rows", refuse)
    session = drive("wa", {"memory_size": 90}, job=DOMAINS)
    assert session.strategy.state.exemplars.labels == 3 * list(range(10))
    assert session.strategy.state.old_share == pytest.approx(2 / 3)
    assert final(session) > final(drive("finetune", job=DOMAINS)) + 0.02
