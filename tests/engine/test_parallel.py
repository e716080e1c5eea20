"""A run on several devices gives the numbers of one process."""

from __future__ import annotations

import dataclasses
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clbench.engine.parallel import Group, Ranks
from clbench.engine.reporter import Reporter
from clbench.engine.saving import final_state_hash, saved_state
from clbench.errors import RunFailed, UserError
from clbench.launch import Prepared
from clbench.run import run
from clbench.samples import Batch, Share
from clbench.spec import make_spec
from clbench.stream import Augmentation

DIGITS = {"stream": "split-digits", "stream_settings": {"sizes": [3, 5, 2]}, "backbone": "mlp:32x2"}
TEXT = {
    "stream": "text-shift",
    "backbone": "byte-gpt?d=16,layers=1,ctx=16",
    "stream_settings": {"context": 16, "tokens": 2000, "eval_blocks": 32},
}
METHODS: dict[str, dict[str, Any]] = {
    "finetune": {},
    "replay": {"memory_size": 50},
    "der++": {"memory_size": 50},
    "ewc": {"ewc_lambda": 300},
    "lwf": {},
}
RELATIVES: dict[str, dict[str, Any]] = {"der": {"memory_size": 50}, "si": {}}


class Losses(Reporter):
    """Keeps every step's loss."""

    def __init__(self) -> None:
        self.losses: list[float | None] = []

    def stepped(self, task: int, step: int, length: int, loss: Tensor | None) -> None:
        self.losses.append(None if loss is None else float(loss))


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CLBENCH_TRACKING", "off")
    torch.set_num_threads(1)


def on_ranks(work: Callable[[Ranks], Any], size: int, folder: Path) -> list[Any]:
    """What `work` returns on each of several processes, forked from this one, that form a group."""
    folder.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            try:
                os.environ.update(RANK=str(rank), GLOO_SOCKET_IFNAME="lo")
                store = torch.distributed.FileStore(str(folder / "store"), size)
                result = work(Group.join(store, rank, size, rank, torch.device("cpu"), str))
                (folder / f"result-{rank}").write_bytes(pickle.dumps(result))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * size
    return [pickle.loads((folder / f"result-{rank}").read_bytes()) for rank in range(size)]


def trained(
    fields: dict[str, Any], folder: Path, ranks: Ranks, augmentation: Augmentation | None = None
) -> dict[str, Any]:
    """A run from begin to end on one of its processes: losses, table, state."""
    built = Prepared(make_spec({"threads": 1, **fields, "devices": ranks.size}))
    if augmentation is not None:
        built.stream = dataclasses.replace(built.stream, augmentation=augmentation)
    reporter = Losses()
    session = built.session(folder, reporter, None, ranks)
    run(session)
    kept = {name: t.numpy() for name, t in saved_state(session)[0].items()}
    digest = final_state_hash(session)
    session.close()
    return {
        "losses": reporter.losses,
        "table": [(r.step, r.tasks_seen, r.eval_set, r.kind, r.value) for r in session.table.table.rows],
        "state": kept,
        "hash": digest,
        "warnings": session.warnings,
        "cost": {key: session.cost()[key] for key in ("steps", "samples_train", "samples_evaluate", "stored_bytes")},
        "flops": (session.cost()["flops_train"], session.cost()["flops_evaluate"]),
    }


def both(
    fields: dict[str, Any], folder: Path, size: int = 2, **more: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One process's run, and that of several."""
    (folder / "one").mkdir(parents=True)
    (folder / "several").mkdir()
    one = trained(fields, folder / "one", Ranks(), **more)
    return one, on_ranks(lambda ranks: trained(fields, folder / "several", ranks, **more), size, folder / "several")


def equal(one: dict[str, Any], several: list[dict[str, Any]], tolerance: float = 1e-4) -> None:
    """Ranks hold equal bytes; those are one process's up to rounding, and exactly so where they are no floats."""
    first = several[0]
    assert all(other["hash"] == first["hash"] for other in several)
    assert all(other["table"] == first["table"] for other in several)
    assert len(first["losses"]) == len(one["losses"]) > 5
    close = {"abs": tolerance, "rel": tolerance}
    for a, b in zip(first["losses"], one["losses"], strict=True):
        assert a == b or a == pytest.approx(b, **close)
    for mine, its in zip(first["table"], one["table"], strict=True):
        assert mine[:4] == its[:4]
        assert mine[4] == pytest.approx(its[4], abs=0.02), mine
    assert first["state"].keys() == one["state"].keys()
    for name, value in one["state"].items():
        assert first["state"][name] == pytest.approx(value, nan_ok=True, **close), name
        if value.dtype.kind in "iub":
            assert (first["state"][name] == value).all(), name
    assert first["cost"] == one["cost"]


@pytest.mark.parametrize("name", [*METHODS, *(pytest.param(n, marks=pytest.mark.slow) for n in RELATIVES)])
def test_two_processes_give_the_numbers_of_one(name: str, tmp_path: Path) -> None:
    settings = {"steps": 8, "batch_size": 12, **(METHODS | RELATIVES)[name]}
    one, several = both({**DIGITS, "strategy": name, "strategy_settings": settings}, tmp_path)
    equal(one, several)
    assert several[0]["flops"] == one["flops"]


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        ("replay", {"mixing": "share", "share": 0.3, "memory_size": 40}),
        pytest.param("replay", {"memory": "domains", "share": 0.3}, marks=pytest.mark.slow),
        pytest.param("skill-it", {"observe_every": 3}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_batches_of_several_sources(strategy: str, settings: dict[str, Any], tmp_path: Path) -> None:
    digits = {**DIGITS, "stream_settings": {"sizes": [3, 5, 2], "validation": 0.1}}
    settings = {"steps": 6, "batch_size": 12, **settings}
    one, several = both({**digits, "strategy": strategy, "strategy_settings": settings}, tmp_path)
    equal(one, several)
    assert several[0]["flops"] == one["flops"]


def test_two_processes_give_the_numbers_of_one_for_gdumb(tmp_path: Path) -> None:
    settings = {"epochs": 4, "memory_size": 40}
    equal(*both({**DIGITS, "strategy": "gdumb", "strategy_settings": settings}, tmp_path))


@pytest.mark.parametrize("kept", ["stable", pytest.param("annealed", marks=pytest.mark.slow)])
def test_tasks_that_fork(kept: str, tmp_path: Path) -> None:
    settings = {"steps": 6, "batch_size": 12, "anneal": 0.34, "resume_from": kept, "memory_size": 50}
    equal(*both({**DIGITS, "strategy": "replay", "strategy_settings": settings}, tmp_path))


@pytest.mark.parametrize("name", ["finetune", "replay"])
def test_text(name: str, tmp_path: Path) -> None:
    settings = {"steps": 6, "batch_size": 8, **(METHODS | RELATIVES)[name]}
    equal(*both({**TEXT, "strategy": name, "strategy_settings": settings}, tmp_path))


@pytest.mark.slow
def test_images_with_captions_are_computed_whole_by_each(pairs_stream: Any, tmp_path: Path) -> None:
    """A sample's loss depends on its batch: half of a batch would have another one."""
    fields = {**pairs_stream.job(tmp_path), "strategy": "replay"}
    one, several = both({**fields, "strategy_settings": {"steps": 4, "batch_size": 8, "memory_size": 10}}, tmp_path)
    equal(one, several)
    assert several[0]["flops"] == one["flops"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["der", "der++", "ewc", "lwf", "si"])
def test_text_of_further_methods(name: str, tmp_path: Path) -> None:
    settings = {"steps": 6, "batch_size": 8, **(METHODS | RELATIVES)[name]}
    equal(*both({**TEXT, "strategy": name, "strategy_settings": settings}, tmp_path))


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        # the batch whole, the memory's shared were it not for that
        pytest.param(2, {"batch_size": 7, "replay_batch_size": 4}, marks=pytest.mark.slow),
        (2, {"batch_size": 6, "replay_batch_size": 5}),  # the memory's part whole, the batch shared
        (3, {"batch_size": 9, "replay_batch_size": 6, "epochs": 1, "steps": None}),  # smaller last batches
    ],
)
def test_sizes_that_do_not_divide(size: int, settings: dict[str, Any], tmp_path: Path) -> None:
    settings = {"steps": 8, "memory_size": 40, **settings}
    fields = {**DIGITS, "strategy": "replay", "strategy_settings": settings}
    fields["stream_settings"] = {"sizes": [3, 5, 2], "train_per_class": 20}
    equal(*both(fields, tmp_path, size))


@pytest.mark.parametrize("name", ["Idiom", "OneForward", "Unused"])
@pytest.mark.parametrize("batch_size", [12, pytest.param(7, marks=pytest.mark.slow)])
def test_what_strategies_do_in_loss(name: str, batch_size: int, own: Any, tmp_path: Path) -> None:
    settings = {"steps": 8, "batch_size": batch_size, "optimizer": "adam", "weight_decay": 0.1}
    one, several = both({**DIGITS, "strategy": own(name), "strategy_settings": settings}, tmp_path / "runs")
    equal(one, several)
    if name == "Unused":
        assert not any("none" in key for key in one["state"] if key.startswith("optimizer/"))


def test_augmented_images_are_those_of_one_process(tmp_path: Path) -> None:
    fields = {**DIGITS, "strategy": "replay", "strategy_settings": {"steps": 8, "batch_size": 8}}
    one, several = both(fields, tmp_path, augmentation=Augmentation(pad=1, flip=True))
    equal(one, several)
    assert one["losses"] != trained(fields, tmp_path, Ranks())["losses"]


def test_random_numbers_differ_by_rank_in_loss_and_nowhere_else(own: Any, tmp_path: Path) -> None:
    settings = {"steps": 6, "batch_size": 8}
    _, several = both({**DIGITS, "strategy": own("Noisy"), "strategy_settings": settings}, tmp_path / "runs")
    assert several[0]["hash"] == several[1]["hash"]
    first, last, _ = several[0]["state"]["state/seen"]
    assert first != last


def test_every_service_on_two_processes(everything: str, tmp_path: Path) -> None:
    settings = {"batch_size": 16, "steps": 5}
    _, several = both({**DIGITS, "strategy": everything, "strategy_settings": settings}, tmp_path / "runs")
    assert several[0]["hash"] == several[1]["hash"]


def test_a_strategy_that_parts_the_processes_is_stopped(own: Any, tmp_path: Path) -> None:
    fields = {**DIGITS, "strategy": own("Apart"), "strategy_settings": {"steps": 3}}

    def work(ranks: Ranks) -> str:
        with pytest.raises(RunFailed) as caught:
            trained(fields, tmp_path, ranks)
        return str(caught.value)

    for text in on_ranks(work, 2, tmp_path / "store"):
        assert "strategy Apart: after task 0 the 2 processes of the run do not hold the same state" in text


# -- batch statistics --------------------------------------------------------------------------------------------------


def normalised(x: Tensor, ranks: Ranks) -> dict[str, Tensor]:
    """A step of a small network with norms on this rank's rows of x."""
    from clbench.models.sync_norm import synchronised

    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(80, 4))
    model.append(nn.BatchNorm1d(4, momentum=None))
    if ranks.size > 1:
        model = synchronised(model, torch.device("cpu"))
    mine = x.chunk(ranks.size)[ranks.rank]
    loss = model(mine).sin().square().mean()
    loss.backward()
    loss = ranks.average(list(model.parameters()), [], loss, False)
    gradients = {f"{name}.grad": p.grad for name, p in model.named_parameters()}
    return {"loss": loss.detach(), **gradients, **model.state_dict(), "eval": model.eval()(x).detach()}


def test_synchronised_norms_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    x = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1)) * 3 + 2
    whole = normalised(x, Ranks())
    for part in on_ranks(lambda ranks: normalised(x, ranks), 2, tmp_path):
        assert part.keys() == whole.keys()
        for name, value in whole.items():
            assert torch.allclose(part[name].float(), value.float(), atol=1e-5), name


def test_norms_that_cannot_be_synchronised_are_refused() -> None:
    from clbench.models.sync_norm import synchronised

    class Strange(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:
            return input

    with pytest.raises(UserError, match="--sync-bn: cannot synchronise Strange layers"):
        synchronised(nn.Sequential(Strange(3)), torch.device("cpu"))


@pytest.mark.slow
def test_norms_of_timm_keep_their_activation() -> None:
    from clbench.models.sync_norm import SynchronisedNorm, synchronised
    from clbench.torchvision_schemas import prepare

    prepare()
    from timm.layers import BatchNormAct2d

    torch.manual_seed(0)
    norm = BatchNormAct2d(3).eval()
    same = synchronised(norm, torch.device("cpu"))
    x = torch.randn(4, 3, 5, 5)
    assert isinstance(same, SynchronisedNorm)
    assert torch.equal(same(x), norm(x)) and (norm(x) >= 0).all()
    assert same.state_dict().keys() == norm.state_dict().keys()


@pytest.mark.slow
@pytest.mark.parametrize("sync_bn", [True, False])
def test_a_model_with_batch_statistics(sync_bn: bool, tmp_path: Path) -> None:
    fields = {**DIGITS, "strategy": "replay", "backbone": "slim-resnet18?width=2", "sync_bn": sync_bn}
    settings = {"steps": 4, "batch_size": 8, "lr": 0.001}  # larger steps make rounding errors grow tenfold a step
    one, several = both({**fields, "strategy_settings": settings}, tmp_path)
    if sync_bn:
        equal(one, several, tolerance=1e-3)
        assert several[0]["warnings"] == []
    else:
        assert several[0]["hash"] == several[1]["hash"] != one["hash"]
        assert max(abs(a - b) for a, b in zip(one["losses"], several[0]["losses"], strict=True)) > 1e-3
        assert "the model has batch statistics" in several[0]["warnings"][0]
        assert several[0]["warnings"][0].endswith("(--sync-bn makes them so)")


# -- shares ------------------------------------------------------------------------------------------------------------


def batch(n: int, start: int = 0) -> Batch:
    rows = torch.arange(start, start + n)
    return Batch(x=rows[:, None].float(), y=rows, raw=rows, labels=rows, index=rows, extra={"z": rows * 2})


def test_a_share_knows_the_whole() -> None:
    whole = batch(6)
    shares = [Share.of(whole, rank, 3) for rank in range(3)]
    assert torch.equal(torch.cat([s.y for s in shares]), whole.y)
    assert all(s.whole is whole and len(s) == 2 for s in shares)
    assert whole.whole is whole
    assert torch.equal(shares[2].extra["z"], torch.tensor([8, 10]))


def test_joins_of_shares() -> None:
    a, b, c = batch(4), batch(6, 10), batch(3, 100)
    shared = Batch.join([Share.of(a, 1, 2), Share.of(b, 1, 2)])
    assert shared.labels.tolist() == [2, 3, 13, 14, 15]
    assert shared.part is not None and shared.part.tolist() == [0, 0, 1, 1, 1]
    assert shared.whole.labels.tolist() == [0, 1, 2, 3, 10, 11, 12, 13, 14, 15]
    mixed = [Batch.join([Share.of(a, rank, 2), c]) for rank in range(2)]
    assert mixed[1].labels.tolist() == [2, 3, 2, 3, 100, 101, 102]
    means = [m.x.mean() for m in mixed]
    assert torch.allclose(sum(means) / 2, Batch.join([a, c]).x.mean())  # type: ignore[arg-type]
