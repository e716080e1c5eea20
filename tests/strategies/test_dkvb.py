"""DKVB: values change where they are fetched and nowhere else; keys are placed once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clbench.data.layout import write_image_set
from clbench.engine.session import Session
from clbench.errors import Interrupted, UserError
from clbench.models import key_value
from clbench.models.key_value import KeyValueBottleneck
from clbench.samples import Batch
from clbench.strategies.dkvb import DKVB

Drive = Callable[..., Session]
SMALL = {"codebooks": 16, "pairs": 32, "key_epochs": 2, "batch_size": 20, "epochs": 2, "lr": 0.3}
JOB = {"stream": "split-digits", "backbone": "pixels", "stream_settings": {"train_per_class": 30}}


def bottleneck(codebooks: int = 3, pairs: int = 8, dim: int = 6, classes: int = 4) -> KeyValueBottleneck:
    made = KeyValueBottleneck(dim, codebooks, pairs, 2, torch.Generator().manual_seed(0))
    made.grow(classes)
    return made


@pytest.mark.oracle("dkvb", "the gradient of the values is zero outside the rows that were fetched")
def test_the_gradient_is_zero_outside_fetched_rows() -> None:
    module = bottleneck()
    fetched = module.nearest(torch.randn(2, 6))
    F.cross_entropy(module(fetched), torch.tensor([1, 3]), label_smoothing=0.1).backward()
    rows = (fetched + torch.arange(3) * 8).unique()
    touched = module.values.grad.abs().sum(1).nonzero()[:, 0]
    assert torch.equal(touched, rows) and len(rows) < 24


@pytest.mark.oracle("dkvb", "in a whole run, values that were never fetched keep their bits, and keys stay frozen")
def test_untouched_values_keep_their_bits(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    after_step = DKVB.after_step

    def watched(self: DKVB, batch: object) -> None:
        module = self.model.bottleneck
        if seen:
            before = seen[-1][1]
            changed = (module.values[:, : before.shape[1]] != before).any(1)
            rows = batch.x.long() + torch.arange(16) * 32  # type: ignore[attr-defined]
            fetched = torch.zeros(16 * 32, dtype=torch.bool).index_fill_(0, rows.flatten(), True)
            assert not (changed & ~fetched).any() and changed.any()
            assert torch.equal(module.keys, seen[-1][0])
        seen.append((module.keys.clone(), module.values.detach().clone()))
        after_step(self, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(DKVB, "after_step", watched)
    module = drive("dkvb", SMALL, job=JOB).model.bottleneck
    assert len(seen) == 5 * 2 * 3
    unused = ~module.used.flatten()
    assert 0 < unused.sum() < len(unused) and (module.values[unused] == 0).all()


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Step by step, features and the keys before it; positions in the pool and labels."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {"keys": [], "train": []}
    place, after_step = DKVB._place_keys, DKVB.after_step

    def placing(self: DKVB, batch: Batch) -> None:
        seen["keys"].append((batch.x.clone(), self.model.bottleneck.keys.clone()))
        place(self, batch)

    def stepped(self: DKVB, batch: Batch) -> None:
        seen["train"].append((batch.index.clone(), batch.y.clone()))
        after_step(self, batch)

    monkeypatch.setattr(DKVB, "_place_keys", placing)
    monkeypatch.setattr(DKVB, "after_step", stepped)
    return seen


UNEQUAL = {**JOB, "stream_settings": {"train_per_class": 30, "sizes": [3, 5, 2]}}


@pytest.mark.oracle("dkvb", "values, step by step, are those of a plain loop of the official training")
@pytest.mark.parametrize("clip", [1.0, 2e-3])
def test_training_is_a_plain_loop(drive: Drive, batches: dict[str, list[tuple[Tensor, Tensor]]], clip: float) -> None:
    """All ten classes in the softmax from the start, as in the official code; its search, its mean, its optimiser."""
    session = drive("dkvb", {**SMALL, "classes": 10, "lr": 30.0, "clip": clip}, job=UNEQUAL)
    module = session.model.bottleneck
    values = torch.zeros(16, 32, 10, requires_grad=True)
    used = torch.zeros(16, 32, dtype=torch.bool)

    def nearest(features: Tensor, allowed: Tensor) -> Tensor:
        queries = torch.einsum("bd,cdk->cbk", features, module.projections)
        return (torch.cdist(queries, module.keys) + torch.where(allowed, 0.0, torch.inf)[:, None]).argmin(2)

    pool = session.stream.tasks[0].train.pool
    codebook = torch.arange(16)[:, None]
    for index, y in batches["train"]:
        found = nearest(session.services.features.read(pool, index), torch.ones_like(used))
        used[codebook, found] = True
        scores = values[codebook, found].mean(0).log_softmax(1)
        loss = -0.9 * scores[torch.arange(len(y)), y].mean() - 0.1 * scores.mean()
        (gradient,) = torch.autograd.grad(loss, values)
        gradient *= min(1.0, clip / (float(gradient.norm()) + 1e-6))
        values = (values - 30.0 * gradient).detach().requires_grad_()
    torch.testing.assert_close(module.values.view(16, 32, 10), values, rtol=1e-4, atol=1e-6)
    test = session.stream.eval_sets[0].data
    inputs = session.services.batch(test, torch.arange(len(test)), "plain").x
    expected = values[codebook, nearest(inputs, used)].mean(0)
    torch.testing.assert_close(session.strategy.predict(inputs), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.oracle("dkvb", "keys, step by step, are those of a plain loop of moving averages")
def test_placing_keys_is_a_plain_loop(drive: Drive, batches: dict[str, list[tuple[Tensor, Tensor]]]) -> None:
    """Four passes over 60 samples, threshold 0: no key jumps."""
    settings = {**SMALL, "pairs": 8, "threshold": 0.0, "decay": 0.9, "key_epochs": 4}
    module = drive("dkvb", settings, job=JOB).model.bottleneck
    keys = batches["keys"][0][1]
    size, total = torch.zeros(16, 8), torch.zeros(16, 8, 14)
    assert len(batches["keys"]) == 4 * 3
    for features, before in batches["keys"]:
        torch.testing.assert_close(keys, before, rtol=1e-4, atol=1e-4)
        queries = torch.einsum("bd,cdk->cbk", features, module.projections)
        mine = F.one_hot(torch.cdist(queries, keys).argmin(2), 8).float()
        size = 0.9 * size + 0.1 * mine.sum(1)
        total = 0.9 * total + 0.1 * mine.mT @ queries
        n = size.sum(1, keepdim=True)
        keys = total / ((size + 1e-5) / (n + 8e-5) * n)[..., None]
    torch.testing.assert_close(module.keys, keys, rtol=1e-4, atol=1e-4)


def images(folder: Path, n: int = 60) -> Path:
    """A set of grey images like the digits, 8x8, in two classes."""
    x = np.random.default_rng(0).integers(0, 256, (n, 1, 8, 8), dtype=np.uint8)
    for split in ("train", "test"):
        write_image_set(folder, split, x, np.arange(n) % 2, ["one", "two"])
    return folder


def test_keys_may_be_placed_on_another_image_set(drive: Drive, tmp_path: Path) -> None:
    """They then do not depend on the stream's first task, and may be resumed while being placed."""
    settings = {**SMALL, "key_data": str(images(tmp_path / "noise"))}
    found = [drive("dkvb", settings, job=JOB, order_seed=seed).model.bottleneck for seed in (0, 3)]
    assert torch.equal(found[0].keys, found[1].keys) and not torch.equal(found[0].values, found[1].values)
    own = [drive("dkvb", SMALL, job=JOB, order_seed=seed).model.bottleneck.keys for seed in (0, 3)]
    assert not torch.equal(own[0], own[1])
    folder = tmp_path / "stopped"
    for stop in (2, 6):
        with pytest.raises(Interrupted):
            drive("dkvb", settings, job=JOB, order_seed=0, folder=folder, stop_at=stop)
    again = drive("dkvb", settings, job=JOB, order_seed=0, folder=folder).model.bottleneck
    assert torch.equal(again.keys, found[0].keys) and torch.equal(again.values, found[0].values)


def test_an_image_set_that_is_not_there_is_said_so(drive: Drive) -> None:
    with pytest.raises(UserError, match="nowhere"):
        drive("dkvb", {**SMALL, "key_data": "nowhere"}, job=JOB)


def test_an_online_stream_is_passed_once(drive: Drive) -> None:
    online = {**JOB, "stream_settings": {"train_per_class": 30, "online": True}}
    with pytest.raises(UserError, match="phase 'train'"):
        drive("dkvb", {**SMALL, "key_epochs": 1}, job=online)
    assert drive("dkvb", {**SMALL, "key_epochs": 1, "epochs": 1}, job=online).step == 6 * 3


def test_scores_are_means_over_codebooks() -> None:
    module = bottleneck()
    module.values.data.normal_()
    features = torch.randn(5, 6)
    expected = torch.zeros(5, 4)
    for c in range(3):
        u = features @ module.projections[c]
        expected += module.values[c * 8 + torch.cdist(u, module.keys[c]).argmin(1)] / 3
    torch.testing.assert_close(module(module.nearest(features)), expected)


@pytest.mark.oracle("dkvb", "in evaluation unused keys are never fetched, however far the used ones are")
def test_unused_keys_are_out_of_the_search() -> None:
    module = bottleneck()
    features = torch.randn(50, 6)
    assert torch.equal(module.nearest(features, used_only=True), module.nearest(features))
    module.keys[:, 5] = 1e3  # of all keys the farthest, so that the largest distance is no sign of being excluded
    module.mark(torch.full((1, 3), 5))
    assert (module.nearest(features, used_only=True) == 5).all()
    assert (module.nearest(features) != 5).all()


@pytest.mark.parametrize("size", [1, 3, 45])
def test_what_a_sample_fetches_does_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Every second key twice over: all are ties, decided alike."""
    module, features = bottleneck(codebooks=16, pairs=64, dim=192), torch.randn(90, 192)
    module.keys[:, ::2] = module.keys[:, 1::2]
    whole = module.nearest(features)
    monkeypatch.setattr(key_value, "SEARCHED_AT_ONCE", 20 * 16 * 64)
    assert torch.equal(torch.cat([module.nearest(part) for part in features.split(size)]), whole)
    assert (whole % 2 == 0).all()


@pytest.mark.oracle("dkvb", "without averaging, placing keys is a step of k-means; dead keys jump to samples")
def test_placing_keys_is_a_step_of_k_means() -> None:
    module, generator = bottleneck(), torch.Generator().manual_seed(1)
    features = torch.randn(40, 6)
    before, u = module.nearest(features), module.project(features)
    module.place_keys(features, decay=0.0, threshold=0.5, generator=generator)
    for c in range(3):
        for k in range(8):
            mine = before[:, c] == k
            if mine.any():
                torch.testing.assert_close(module.keys[c, k], u[c, mine].mean(0), rtol=1e-3, atol=1e-3)
            else:
                assert (u[c] == module.keys[c, k]).all(1).any()


def test_moving_averages_weigh_the_past() -> None:
    module = bottleneck(codebooks=1, pairs=1)
    first, second = torch.randn(10, 6), torch.randn(30, 6)
    for features in (first, second):
        module.place_keys(features, decay=0.75, threshold=0.0, generator=torch.Generator())
    sums = [module.project(x)[0].sum(0) for x in (first, second)]
    expected = (0.75 * sums[0] + sums[1]) / (0.75 * 10 + 30)
    torch.testing.assert_close(module.keys[0, 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changed", [{"momentum": 0.9}, {"weight_decay": 1e-4}, {"optimizer": "adam"}], ids=str)
def test_optimisers_that_change_other_values_are_refused(drive: Drive, changed: dict[str, object]) -> None:
    with pytest.raises(UserError, match="fetched values alone"):
        drive("dkvb", {**SMALL, **changed}, job=JOB)


@pytest.mark.oracle("dkvb", "where steps are small, rate times steps is what counts")
def test_fewer_larger_steps_end_where_many_small_ones_do(drive: Drive) -> None:
    many = drive("dkvb", {**SMALL, "lr": 0.3, "epochs": 20}, job=JOB).model.bottleneck.values
    few = drive("dkvb", {**SMALL, "lr": 3.0, "epochs": 2}, job=JOB).model.bottleneck.values
    assert (many - few).norm() < 0.05 * many.norm()


def test_it_forgets_less_than_finetuning(drive: Drive, final: Callable[[Session], float]) -> None:
    finetuned = final(drive("finetune", job={**JOB, "backbone": "mlp:64x1"}))
    assert final(drive("dkvb", SMALL, job=JOB)) > finetuned + 0.2
