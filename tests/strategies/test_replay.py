"""Replay, DER, DER++ and GDumb: what goes into the memory, what comes out, and what it helps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clbench.config import parse_config
from clbench.engine.session import Session
from clbench.errors import UserError
from clbench.samples import Batch
from clbench.strategies.gdumb import cutmix
from clbench.strategies.replay import Replay

Drive = Callable[..., Session]
Final = Callable[[Session], float]
JOB = {"stream": "split-digits", "backbone": "mlp:64x1", "stream_settings": {"train_per_class": 60}}


@pytest.mark.oracle("replay", "far above finetuning, with reservoir and with class-balanced memories")
@pytest.mark.parametrize("settings", [{}, {"policy": "class-balanced"}, {"mixing": "share"}], ids=str)
def test_replay_beats_finetuning(drive: Drive, final: Final, settings: dict[str, Any]) -> None:
    assert final(drive("replay", settings, job=JOB)) > final(drive("finetune", job=JOB)) + 0.3


@pytest.mark.oracle("der", "above finetuning")
@pytest.mark.oracle("der++", "above finetuning")
@pytest.mark.oracle("gdumb", "above finetuning")
@pytest.mark.parametrize(
    ("strategy", "settings"), [("der", {"alpha": 1.0}), ("der++", {}), ("gdumb", {"epochs": 20})], ids=str
)
def test_the_others_do_too(drive: Drive, final: Final, strategy: str, settings: dict[str, Any]) -> None:
    assert final(drive(strategy, settings, job=JOB)) > final(drive("finetune", job=JOB)) + 0.2


@pytest.mark.oracle("replay", "the memory holds un-augmented samples with their labels")
def test_the_memory_holds_stored_values_of_the_stream(drive: Drive) -> None:
    session = drive("replay", {"memory_size": 50, "epochs": 1}, job=JOB)
    rows = session.strategy.state.memory.all()
    assert rows.raw.dtype == torch.uint8 and len(rows.raw) == 50
    pool = session.stream.tasks[0].train.pool
    trained = torch.cat([task.train.index for task in session.stream.tasks])
    for raw, label in zip(rows.raw[:10], rows.labels[:10], strict=True):
        same = (pool.inputs[trained] == raw).flatten(1).all(1)
        assert label in pool.labels[trained][same]
    assert session.strategy.state.memory.seen == 600


@pytest.mark.oracle("replay", "each sample is offered to the memory once a pass, replayed ones never")
def test_each_sample_is_offered_once_per_pass_and_replayed_ones_never(drive: Drive) -> None:
    for settings in ({"epochs": 2}, {"epochs": 2, "mixing": "share", "share": 0.25}):
        assert drive("replay", settings, job=JOB).strategy.state.memory.seen == 2 * 600


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({"batch_size": 20}, (20, 20)),
        ({"batch_size": 20, "replay_batch_size": 5}, (20, 5)),
        ({"batch_size": 20, "mixing": "share"}, (10, 10)),
        ({"batch_size": 20, "mixing": "share", "share": 0.95}, (1, 19)),
        ({"batch_size": 20, "mixing": "share", "share": 0.0}, (20, 0)),
    ],
    ids=str,
)
def test_batch_sizes(
    drive: Drive, settings: dict[str, Any], sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, int]] = []
    replayed = Replay.replayed

    def watched(self: Replay, batch: Batch) -> int:
        drawn.append((len(batch), replayed(self, batch)))
        return drawn[-1][1]

    monkeypatch.setattr(Replay, "replayed", watched)
    session = drive("replay", {**settings, "epochs": 1}, job=JOB)
    assert set(drawn) == {sizes}
    assert session.step == len(drawn) == 5 * -(-120 // sizes[0])


@pytest.mark.oracle("replay", "one percent of batches of eight is one percent, where rounding makes it nothing")
def test_a_small_share_is_exact(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    replayed = Replay.replayed
    monkeypatch.setattr(Replay, "replayed", lambda self, b: drawn.append(replayed(self, b)) or drawn[-1])
    drive("replay", {"mixing": "share", "share": 0.01, "batch_size": 8, "epochs": 3}, job=JOB)
    per_task = len(drawn) // 5
    for start in range(0, len(drawn), per_task):
        assert sum(drawn[start : start + per_task]) == int(0.01 * 8 * (per_task - 1) + 0.01 * 4)


@pytest.mark.oracle("replay", "with all data of earlier tasks: far above finetuning, at no more samples")
@pytest.mark.parametrize("settings", [{"order": "in_order"}, {"over": "samples"}, {"rule": "tic"}], ids=str)
def test_all_earlier_data_in_the_place_of_a_memory(drive: Drive, final: Final, settings: dict[str, Any]) -> None:
    given = {"memory": "domains", "share": 0.5, "budget": "compute_equivalent", **settings}
    session, plain = drive("replay", given, job=JOB), drive("finetune", job=JOB)
    assert session.meters.totals["samples_train"] == plain.meters.totals["samples_train"]
    assert session.step == plain.step
    assert final(session) > final(plain) + 0.3
    assert session.services.needs.task_boundaries and not Replay.needs.task_boundaries


def test_replay_without_later_settings_has_the_specification_it_had() -> None:
    assert not {"memory", "order", "budget", "over", "rule"} & Replay.Config().model_dump().keys()
    assert Replay.Config(mixing="share", budget="compute_equivalent").model_dump()["memory"] == "bounded"


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"share": 0.05}, "share=0.05 acts with mixing=share or memory=domains only"),
        ({"budget": "compute_equivalent"}, "budget=compute_equivalent acts with mixing=share"),
        ({"mixing": "share", "order": "in_order"}, "order=in_order acts with memory=domains only"),
        ({"rule": "tic"}, "rule=tic acts with memory=domains only"),
        ({"memory": "domains", "rule": "tic", "share": 0.1}, "share=0.1 acts with rule=fixed only"),
    ],
    ids=str,
)
def test_settings_that_nothing_would_read_are_refused(settings: dict[str, Any], wanted: str) -> None:
    with pytest.raises(UserError, match=wanted):
        parse_config(Replay.Config, settings, "strategy replay")


def test_no_share_outside_zero_and_one() -> None:
    with pytest.raises(UserError, match=r"share=1\.5"):
        parse_config(Replay.Config, {"mixing": "share", "share": 1.5}, "strategy replay")


@pytest.mark.oracle("der", "stored outputs are those of the step that stored them")
def test_der_stores_the_outputs_it_trained_against(drive: Drive) -> None:
    """With a learning rate of zero every stored row equals what the model says now, where the output existed."""
    session = drive("der", {"lr": 0.0, "memory_size": 100}, job=JOB)
    memory, model = session.strategy.state.memory, session.model.eval()
    rows = memory.all()
    stored = rows.extra["outputs"]
    assert stored.shape == (100, 10)
    with torch.no_grad():
        now = model(session.services.transform(rows.raw, rows.labels, "plain")[0])
    known = ~stored.isnan()
    known_until = torch.arange(10) < 2 * (rows.labels[:, None] // 2 + 1)  # equal tasks of two classes here
    assert torch.equal(known, known_until)
    torch.testing.assert_close(stored[known], now[known])


@pytest.mark.oracle("der", "outputs that a stored sample did not have yet count as zero, or not at all")
def test_new_outputs_of_old_samples(drive: Drive) -> None:
    """Held at zero they add to the loss, ignored they do not."""
    losses = {}
    for choice in ("zero", "ignore"):
        strategy = drive("der", {"lr": 0.0, "new_outputs": choice, "alpha": 1.0}, job=JOB).strategy
        losses[choice] = strategy.matching_loss().item()
    assert losses["ignore"] == pytest.approx(0.0, abs=1e-10)
    assert losses["zero"] > 1e-4


# -- GDumb -------------------------------------------------------------------------------------------------------------


@pytest.mark.oracle("gdumb", "the memory is balanced by class")
@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ({"sampler": "greedy"}, [10] * 10),
        ({"sampler": "capped", "total_classes": 10}, [10] * 10),
        ({"sampler": "capped", "total_classes": 20}, [5] * 10),
    ],
    ids=str,
)
def test_gdumbs_memory_is_balanced(drive: Drive, settings: dict[str, Any], counts: list[int]) -> None:
    session = drive("gdumb", {"memory_size": 100, "epochs": 1, **settings}, job=JOB)
    assert list(session.strategy.state.memory.classes().values()) == counts


@pytest.mark.oracle("gdumb", "each fit starts from the initial weights")
def test_gdumb_starts_each_task_from_the_initial_weights(drive: Drive) -> None:
    """After a training that changes nothing the weights are the initial ones; forty passes do change them."""
    still = drive("gdumb", {"epochs": 1, "lr": 0.0}, job=JOB)
    trained = drive("gdumb", {"epochs": 40}, job=JOB)
    changed = [not torch.equal(p, q) for p, q in zip(still.model.parameters(), trained.model.parameters(), strict=True)]
    assert all(changed)
    trained.strategy.reset()
    for name, value in still.model.state_dict().items():
        assert torch.equal(trained.model.state_dict()[name], value), name


def test_gdumb_trains_on_nothing_but_its_memory(drive: Drive) -> None:
    session = drive("gdumb", {"memory_size": 40, "batch_size": 20, "epochs": 3}, job=JOB)
    collecting = 5 * 120 // 20
    assert session.step == collecting + 5 * 3 * 2


def test_capped_needs_the_number_of_classes(drive: Drive) -> None:
    with pytest.raises(UserError, match="total_classes"):
        drive("gdumb", {"sampler": "capped"}, job=JOB)


def test_cutmix_pastes_one_patch() -> None:
    x = torch.arange(6.0)[:, None, None, None].expand(6, 3, 16, 12).contiguous()
    shares = []
    for seed in range(200):
        mixed, partner, share = cutmix(x, torch.Generator().manual_seed(seed))
        own = (mixed == x).float().flatten(1).mean(1)
        moved = partner != torch.arange(6)
        assert torch.allclose(own[moved], torch.tensor(share))
        patch = mixed[moved][0, 0] != x[moved][0, 0] if moved.any() else torch.zeros(1, 1, dtype=torch.bool)
        rows, columns = patch.any(1).sum(), patch.any(0).sum()
        assert patch.sum() == rows * columns
        shares.append(share)
    assert 0.5 < sum(shares) / len(shares) < 0.8
    with pytest.raises(UserError, match="set cutmix=0"):
        cutmix(torch.zeros(4, 10), torch.Generator())


def test_cutmix_runs(drive: Drive, final: Final) -> None:
    assert final(drive("gdumb", {"epochs": 8, "cutmix": 0.5}, job=JOB)) > 0.3
