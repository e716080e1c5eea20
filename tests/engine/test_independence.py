"""What must not influence what: evaluation, caches, chunks and memory layout never touch a run's numbers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from clbench.engine.cursor import Line
from clbench.engine.reporter import Reporter
from clbench.engine.session import Session
from clbench.launch import Prepared, start_run
from clbench.models import build_model
from clbench.spec import make_spec

Outcome = Callable[[Path], dict[str, Any]]
SMALL = {"stream": "split-digits", "stream_settings": {"sizes": [3, 5, 2], "train_per_class": 30}, "threads": 1}
STATISTICS = {"mean": (0.4, 0.4, 0.4), "std": (0.2, 0.2, 0.2)}


def global_states() -> list[bytes]:
    """The states of torch's, numpy's and Python's global generators."""
    _, keys, *position = np.random.get_state()
    return [
        torch.get_rng_state().numpy().tobytes(),
        np.asarray(keys).tobytes() + repr(position).encode(),
        repr(random.getstate()).encode(),
    ]


@pytest.fixture(autouse=True)
def _one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A run of finetune on the digits, its first task built, nothing trained."""
    built = Prepared(make_spec({**SMALL, "strategy": "finetune"}))
    one = built.session(tmp_path, Reporter(), None)
    one.start()
    one.build(one.stream.tasks[0])
    yield one
    one.close()


def test_reading_batches_draws_nothing(session: Session) -> None:
    before = global_states()
    rows = sum(len(batch) for batch in session.services.batches(session.stream.tasks[0].train, 16, "plain"))
    assert rows == len(session.stream.tasks[0].train) > 16
    assert global_states() == before


@pytest.mark.parametrize("which", ["boundary", "trace"])
def test_an_evaluation_draws_nothing(session: Session, which: str) -> None:
    before = global_states()
    evaluator = session.evaluator
    rows = evaluator.boundary(0, 0, repeats=False, line=Line(-1)) if which == "boundary" else evaluator.trace(0, 0)
    assert any(row.value is not None for row in rows)
    assert global_states() == before


def test_a_data_loader_that_does_not_shuffle_draws() -> None:
    """Why the engine has none: iterating PyTorch's loader advances the global generator, shuffled or not."""
    loader = DataLoader(TensorDataset(torch.arange(8)), batch_size=4, shuffle=False)
    before = global_states()
    assert len(list(loader)) == 2
    after = global_states()
    assert after[0] != before[0]
    assert after[1:] == before[1:]


def test_features_do_not_depend_on_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Outcome) -> None:
    """No cache, an empty one, one filled by the same data, and one where half of the rows are missing."""
    spec = make_spec({**SMALL, "strategy": "nmc", "backbone": "mlp:32x1"})

    def run(name: str) -> dict[str, Any]:
        return outcome(start_run(spec, tmp_path / name)[0])

    with monkeypatch.context() as patch:
        patch.setattr("clbench.engine.assembly._cache_folder", lambda: None)
        without = run("without")
    assert not list(tmp_path.glob("cache/features/*"))
    assert run("empty") == without
    caches = sorted((tmp_path / "cache" / "features").iterdir())
    assert run("filled") == without
    for folder in caches:
        done, values = np.load(folder / "done.npy"), np.load(folder / "values.npy")
        done[::2], values[::2] = False, -7.0
        np.save(folder / "done.npy", done)
        np.save(folder / "values.npy", values)
    before = [np.load(folder / "done.npy").sum() for folder in caches]
    assert run("half") == without
    after = [np.load(folder / "done.npy").sum() for folder in caches]
    assert caches and all(more > fewer for more, fewer in zip(after, before, strict=True))


@pytest.mark.parametrize(("name", "side"), [("slim-resnet18", 32), ("mlp", 8)])
def test_scores_do_not_depend_on_the_grouping_of_rows(name: str, side: int) -> None:
    """From 32 rows on, bit for bit: the promise that evaluation in chunks rests on."""
    torch.manual_seed(0)
    model = build_model(name, channels=3, size=side, **STATISTICS)
    model.grow(10)  # type: ignore[operator]
    model.eval()
    x = torch.randn(128, 3, side, side)
    order = torch.randperm(128)
    with torch.no_grad():
        whole = model(x)
        for size in (32, 48, 64, 80, 96):
            assert torch.equal(grouped(model, x, size), whole), size
        assert torch.equal(model(x[order]), whole[order])


def grouped(model: torch.nn.Module, x: Tensor, size: int) -> Tensor:
    """Outputs of all rows in groups of this size; the last group is filled up with rows from before it."""
    starts = [min(start, len(x) - size) for start in range(0, len(x), size)]
    outputs = torch.empty(len(x), 10)
    for start in starts:
        outputs[start : start + size] = model(x[start : start + size])
    return outputs


@pytest.mark.parametrize("strategy", ["replay", "ewc"])
def test_keeping_only_the_rows_in_use_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, strategy: str
) -> None:
    spec = make_spec({**SMALL, "strategy": strategy, "strategy_settings": {"steps": 6}})
    sizes: list[int] = []
    build = Prepared.__init__

    def noting(self: Prepared, spec: Any) -> None:
        build(self, spec)
        sizes.append(len(self.stream.tasks[0].train.pool.labels))

    monkeypatch.setattr(Prepared, "__init__", noting)
    small = outcome(start_run(spec, tmp_path / "small")[0])
    monkeypatch.setattr("clbench.launch.compacted", lambda stream: stream)
    large = outcome(start_run(spec, tmp_path / "large")[0])
    assert sizes[0] < sizes[1]
    assert small == large


@pytest.mark.parametrize("kind", ["boundary", "trace"])
def test_evaluation_leaves_running_statistics_alone(tmp_path: Path, kind: str) -> None:
    spec = {**SMALL, "strategy": "finetune", "backbone": "slim-resnet18"}
    built = Prepared(make_spec(spec))
    session = built.session(tmp_path, Reporter(), None)
    session.start()
    session.build(session.stream.tasks[0])
    session.model.train()
    before = {name: value.clone() for name, value in session.model.named_buffers()}
    assert any(name.endswith("running_mean") for name in before)
    evaluator = session.evaluator
    evaluator.boundary(0, 0, repeats=False, line=Line(-1)) if kind == "boundary" else evaluator.trace(0, 0)
    after = dict(session.model.named_buffers())
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(module.training for module in session.model.modules())
    session.model(torch.randn(32, *session.stream.input_shape))
    assert not torch.equal(dict(session.model.named_buffers())[next(iter(before))], before[next(iter(before))])
    session.close()
