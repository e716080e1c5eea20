"""L2M: a modulator for each sample, keys that only queries pull, a pool of which most entries stand still."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from clbench.engine.session import Session
from clbench.errors import Interrupted, UserError
from clbench.samples import Batch
from clbench.state import pack

Drive = Callable[..., Session]
VIT = "timm:vit_tiny_patch16_224?img_size=16,patch_size=8,embed_dim=24,depth=2,num_heads=2"
JOB = {"stream": "split-digits", "backbone": VIT, "stream_settings": {"train_per_class": 10, "sizes": [3, 5, 2]}}
QUICK = {"epochs": 1, "batch_size": 10, "pool_size": 6, "rank": 2}


@pytest.fixture
def session(drive: Drive) -> Session:
    """After three tasks; the keys are queries of six samples, and the modulators differ, so that all are chosen."""
    ended = drive("l2m", QUICK, job=JOB)
    strategy, batch = ended.strategy, some_batch(ended, 0)
    ended.model.eval()
    with torch.no_grad():
        for modulator, query in zip(strategy.pool, strategy.query(batch.x)[:6], strict=True):
            modulator.key.copy_(query)
            modulator.factors.normal_(std=0.3)
    return ended


def some_batch(session: Session, task: int, n: int = 20) -> Batch:
    return session.services.batch(session.stream.tasks[task].train, torch.arange(n), "plain")


@pytest.mark.oracle("l2m", "each sample has its own modulator: a batch gives what its samples give alone")
def test_predictions_do_not_depend_on_the_batch(session: Session) -> None:
    strategy, x = session.strategy, some_batch(session, 0).x
    with torch.no_grad():
        index = strategy.choice(strategy.query(x), training=False)
        assert len(index.unique()) >= 4
        together = strategy.predict(x)
        for i in range(len(x)):
            torch.testing.assert_close(strategy.predict(x[i : i + 1])[0], together[i], rtol=1e-4, atol=1e-4)
        others, _ = strategy.pool.choose(index.roll(1))
        assert not torch.allclose(others, strategy.pool.choose(index)[0])
        assert not torch.allclose(strategy.scores(x, strategy.pool.choose(index.roll(1))[1]), together, atol=1e-2)


def test_the_modulated_transformer_is_the_one_with_merged_weights(session: Session) -> None:
    """W + scale (A B)^T on q and v, nothing on k; (1 + scale A B)^T on weight and bias of the MLP's first layer."""
    strategy, model, x = session.strategy, session.model, some_batch(session, 0).x
    with torch.no_grad():
        found = strategy.scores(x, strategy.pool.choose(torch.full((20,), 3))[1])
        factors = strategy.pool[3].factors
        for block in model.backbone.net.blocks:
            qkv, fc1 = block.attn.qkv, block.mlp.fc1
            for place in qkv.places:
                qkv.inner.weight[place.start : place.start + 24] += product(factors[place.offset :], 24).T
            change = product(factors[fc1.places[0].offset :], 96).T
            fc1.inner.weight += change @ fc1.inner.weight
            fc1.inner.bias += change @ fc1.inner.bias
            assert [(p.start, p.width) for p in qkv.places + fc1.places] == [(0, 24), (48, 24), (0, 96)]
        torch.testing.assert_close(found, model(x), rtol=1e-3, atol=1e-3)
    assert len(factors) == 2 * 2 * (24 + 24 + 24 + 24 + 96 + 96)


def product(factors: torch.Tensor, width: int) -> torch.Tensor:
    """2 A B of rank 2 between equal widths."""
    a, b = factors[: 4 * width].view(2, -1)
    return 2.0 * a.view(width, 2) @ b.view(2, width)


@pytest.mark.oracle("l2m", "keys have a gradient through the pull alone, modulators through the cross-entropy alone")
def test_gradients(session: Session) -> None:
    strategy, batch = session.strategy, some_batch(session, 2)
    strategy.state.used.zero_()
    strategy.loss(batch).backward()
    index, query = batch.extra["modulator"], strategy.query(batch.x)
    for number, modulator in enumerate(strategy.pool):
        mine = query[index == number]
        if not len(mine):
            assert modulator.key.grad is None and modulator.factors.grad is None
            continue
        key = modulator.key.detach().clone().requires_grad_()
        (-0.5 * F.cosine_similarity(mine, key[None], dim=1).sum() / len(batch)).backward()
        torch.testing.assert_close(modulator.key.grad, key.grad, rtol=1e-3, atol=1e-6)
        assert modulator.factors.grad.abs().max() > 0


@pytest.mark.oracle("l2m", "modulators that no sample chose keep their bits through steps with momentum and decay")
def test_modulators_nobody_chose_stand_still(drive: Drive) -> None:
    settings = {**QUICK, "pool_size": 30, "weight_decay": 0.1}
    before = drive("l2m", {**settings, "lr": 0.0}, job=JOB)
    after = drive("l2m", settings, job=JOB)
    counts = after.strategy.state.counts
    assert counts.sum() == 100 and (counts == 0).any()
    for number, (old, new) in enumerate(zip(before.strategy.pool, after.strategy.pool, strict=True)):
        still = torch.equal(old.key, new.key) and torch.equal(old.factors, new.factors)
        assert still == (counts[number] == 0).item()
    a, b = before.model.state_dict(), after.model.state_dict()
    frozen = {name for name in a if not name.startswith("head.") and ".pet." not in name}
    assert all(torch.equal(a[name], b[name]) for name in frozen)


@pytest.mark.oracle("l2m", "used keys are avoided in later tasks' training, by shares renewed at a switch, not at test")
def test_used_keys_are_avoided_in_training_alone(session: Session) -> None:
    strategy, x = session.strategy, some_batch(session, 0).x
    query = strategy.query(x)
    plain = strategy.choice(query, training=False)
    strategy.state.used = torch.tensor([30, 0, 0, 0, 10, 0])
    strategy.state.counts = torch.tensor([30, 900, 900, 900, 10, 900])  # of this task: no part of the penalty
    assert torch.equal(strategy.choice(query, training=False), plain)
    cosines = F.normalize(query, dim=1) @ F.normalize(strategy.pool.keys(), dim=1).T
    share = torch.tensor([0.75, 0, 0, 0, 0.25, 0])
    expected = ((cosines + 1) / 2 / (share + 1e-6)).argmax(1)
    assert torch.equal(strategy.choice(query, training=True), expected)
    assert not torch.equal(expected, plain) and not {0, 4} & set(expected.tolist())
    strategy.begin_task(session.stream.tasks[2])
    assert torch.equal(strategy.state.used, strategy.state.counts)


def test_keys_are_chosen_in_float32(session: Session) -> None:
    """Cosines that differ by some 1e-5, as one number in bfloat16."""
    strategy, batch = session.strategy, some_batch(session, 0, n=1)
    query, other = strategy.query(batch.x), torch.randn(24)
    with torch.no_grad():
        for i, modulator in enumerate(strategy.pool):
            modulator.key.copy_(query[0] + 0.01 * (5 - i) * other)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert strategy.choice(query, training=False).tolist() == [5]


def test_protected_modulators_do_not_learn(session: Session) -> None:
    strategy, batch = session.strategy, some_batch(session, 2)
    strategy.config.protect_used = True
    strategy.config.penalise_used = False
    strategy.loss(batch).backward()
    chosen = int(batch.extra["modulator"][0])
    strategy.state.used = F.one_hot(torch.tensor(chosen), 6)
    strategy.after_backward(batch)
    assert strategy.pool[chosen].factors.grad is None and strategy.pool[chosen].key.grad is None
    assert any(modulator.factors.grad is not None for modulator in strategy.pool)


def test_keys_learn_at_a_rate_of_their_own(session: Session) -> None:
    parameters = dict(session.model.named_parameters())
    session.strategy.config.key_lr_scale = 30.0
    weights, others, keys = session.strategy.groups(parameters)
    assert keys["lr"] == pytest.approx(0.003) and "lr" not in others
    assert [id(p) for p in keys["params"]] == [id(modulator.key) for modulator in session.strategy.pool]
    assert [id(p) for p in weights["params"]] == [id(session.model.head.weight)]
    assert keys["weight_decay"] == others["weight_decay"] == 0 and "weight_decay" not in weights
    assert len(others["params"]) + 6 + 1 == len(parameters)


def test_it_resumes_to_the_same_bits(drive: Drive, tmp_path: Path) -> None:
    whole = drive("l2m", QUICK, job=JOB)
    folder = tmp_path / "stopped"
    for stop_at in (2, 3):
        torch.rand(3)
        with pytest.raises(Interrupted):
            drive("l2m", QUICK, job=JOB, stop_at=stop_at, folder=folder)
    again = drive("l2m", QUICK, job=JOB, folder=folder)
    expected, found = tensors(whole), tensors(again)
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def tensors(session: Session) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    pack(vars(session.strategy.state), "state", found)
    return found | session.model.state_dict()


def test_it_needs_a_vision_transformer(drive: Drive) -> None:
    with pytest.raises(UserError, match="l2m needs a timm vision transformer"):
        drive("l2m", QUICK, job={**JOB, "backbone": "mlp:24x1"})
