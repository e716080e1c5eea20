"""A stream's mixture reaches any strategy's phases: numbers of each source, what they hold, resuming, refusals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clbench.engine.pools import buffer
from clbench.engine.reporter import Reporter
from clbench.engine.session import Session
from clbench.errors import UserError
from clbench.launch import Prepared
from clbench.mixtures import pool_counts
from clbench.rng import Randomness
from clbench.run import run
from clbench.samples import Pool, Samples
from clbench.spec import make_spec

FILE = Path(__file__).parent / "pooled.py"
SIZES = [2, 2, 6]
STREAM = {"sizes": SIZES, "train_per_class": 20, "test_per_class": 5}
TASK, PRETRAINING, BUFFER = 0, 1, 2


@pytest.fixture
def driven(tmp_path: Path) -> Callable[..., Session]:
    torch.set_num_threads(1)

    def go(
        strategy: str = f"{FILE}:Noting",
        stream: str = f"{FILE}:Pooled",
        batch_size: int = 12,
        steps: int = 5,
        **settings: Any,
    ) -> Session:
        values = {
            "strategy": strategy,
            "strategy_settings": {"batch_size": batch_size, "steps": steps},
            "stream": stream,
            "stream_settings": {**STREAM, **settings},
            "backbone": "mlp:8x1",
            "eval_grid": "none",
            "threads": 1,
        }
        session = Prepared(make_spec(values)).session(tmp_path, Reporter(), None)
        try:
            run(session)
        finally:
            session.close()
        return session

    return go


def test_every_batch_has_its_parts_and_each_part_its_data(driven: Callable[..., Session]) -> None:
    session = driven()  # of 1,352 images, so that only the used ones are kept
    tasks = session.stream.tasks
    for number, parts, index, _ in session.strategy.state.seen:
        if len(parts) < 12:  # a task's last batch, which keeps the proportions
            continue
        counts = Counter(parts)
        assert (counts[PRETRAINING], counts[TASK], counts[BUFFER]) == ((5, 7, 0) if number == 0 else (4, 5, 3))
        earlier = {i for task in tasks[:number] for i in task.train.index.tolist()}
        owned = {
            TASK: set(tasks[number].train.index.tolist()),
            PRETRAINING: set(tasks[-1].train.index.tolist()),
            BUFFER: earlier,
        }
        assert all(i in owned[part] for part, i in zip(parts, index, strict=True))


def test_full_batches_are_alike_whatever_smaller_ones_owe(driven: Callable[..., Session]) -> None:
    """Each pass over the third task has eleven full batches and one of 2: by error diffusion alone one would differ."""
    shares = (1 / 11, 2 / 11, 8 / 11)
    session = driven(shares=list(shares), train_per_class=15, steps=72, batch_size=8)
    last = [Counter(parts) for number, parts, _, _ in session.strategy.state.seen if number == 2]
    full = [counts for counts in last if sum(counts.values()) == 8]
    before, task, after = pool_counts(8, shares, True, True)
    assert len(last) == 72 and len(full) == 66
    assert all(counts == {TASK: task, PRETRAINING: before, BUFFER: after} for counts in full)


def test_tasks_may_be_called_as_the_other_sources(driven: Callable[..., Session]) -> None:
    plain = driven().strategy.state.seen
    assert driven(names=["buffer", "pretraining", "buffer"]).strategy.state.seen == plain


def test_each_source_is_read_without_replacement(driven: Callable[..., Session]) -> None:
    session = driven(train_per_class=40)
    for number in (0, 1, 2):
        for part in (TASK, PRETRAINING):
            seen = session.strategy.state.seen
            rows = [i for n, p, index, _ in seen for q, i in zip(p, index, strict=True) if n == number and q == part]
            assert len(set(rows)) == len(rows)
    before = session.strategy.state.seen
    drawn = [i for _, parts, index, _ in before for p, i in zip(parts, index, strict=True) if p == PRETRAINING]
    assert len(set(drawn)) == len(drawn)  # goes on from task to task


def test_without_pretraining_the_first_task_has_the_whole_batch(driven: Callable[..., Session]) -> None:
    session = driven(shares=[0.0, 0.5, 0.5])
    of_task = {number: Counter(parts) for number, parts, _, _ in session.strategy.state.seen}
    assert of_task == {0: {TASK: 12}, 1: {TASK: 6, 1: 6}, 2: {TASK: 6, 1: 6}}


def test_one_task_is_the_oracle_up_to_the_first_tasks_rule(driven: Callable[..., Session]) -> None:
    """Sanity relation: with one task the buffer's share is the others', and all data are there from the start."""
    one = driven(sizes=[10], shares=[0.25, 0.25, 0.5])
    oracle = driven(sizes=[10], shares=[0.5, 0.5, 0.0])
    assert one.strategy.state.seen == oracle.strategy.state.seen
    assert {label for _, _, _, labels in one.strategy.state.seen for label in labels} == set(range(10))
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, oracle.model.state_dict()[name]), name


def test_a_bounded_buffer_holds_its_capacity_evenly_and_only_loses(driven: Callable[..., Session]) -> None:
    pool = Pool(torch.zeros(100, 1), torch.arange(100) % 10)
    tasks = [Samples(pool, [i for i in range(100) if i % 10 // 2 == t]) for t in range(5)]
    kept: set[int] = set()
    for number in range(1, 6):
        held = buffer(tasks[:number], 13, Randomness(3))
        counts = Counter(held.labels.tolist())
        assert len(held) == 13
        assert max(counts.values()) - min(counts.values()) <= 1
        assert not kept or set(held.index.tolist()) <= kept | set(tasks[number - 1].index.tolist())
        kept = set(held.index.tolist())
    assert len(buffer(tasks, None, Randomness(3))) == len(buffer(tasks, 100, Randomness(3))) == 100
    assert set(buffer(tasks, 13, Randomness(4)).index.tolist()) != kept
    session = driven(capacity=6)
    drawn = {
        i
        for number, parts, index, _ in session.strategy.state.seen
        for part, i in zip(parts, index, strict=True)
        if part == BUFFER and number == 2
    }
    assert len(drawn) <= 6


def test_a_strategy_with_sources_of_its_own_is_refused_before_training(driven: Callable[..., Session]) -> None:
    with pytest.raises(UserError, match="mixes sources of its own"):
        driven(f"{FILE}:OwnSources")


def test_other_samples_are_counted(driven: Callable[..., Session]) -> None:
    session = driven()
    others = sum(part != TASK for _, parts, _, _ in session.strategy.state.seen for part in parts)
    assert session.cost()["samples_of_other_sources"] == others > 0


@pytest.mark.parametrize("fault", ["phase:8", "end_task:1"])
def test_resuming_repeats_every_bit(runs: Any, outcome: Any, fault: str) -> None:
    settings = {"steps": 5, "batch_size": 12}
    spec = runs.spec(
        f"{FILE}:Noting",
        stream=f"{FILE}:Pooled",
        stream_settings={**STREAM, "capacity": 30},
        strategy_settings=settings,
        backbone="mlp:8x1",
    )
    whole = outcome(runs.whole(spec))
    folder = runs.finish("killed", spec, fault)
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole
