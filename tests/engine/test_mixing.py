"""Batches from several sources: how many of each, in which order, how long; and every bit again on resuming."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clbench.engine.reporter import Reporter
from clbench.engine.session import Session
from clbench.errors import RunFailed, UserError
from clbench.launch import Prepared
from clbench.run import run
from clbench.spec import make_spec

MIXED = Path(__file__).parent / "mixed.py"
TASKS = 3
PER_TASK = 20  # samples; two classes each


@pytest.fixture
def driven(tmp_path: Path) -> Callable[..., Session]:
    """A finished session of a strategy of `mixed.py` on three tasks of 20 digits."""
    torch.set_num_threads(1)

    def go(name: str = "Mixed", stream: dict[str, Any] | None = None, **settings: Any) -> Session:
        strategy = name if name == "finetune" else f"{MIXED}:{name}"
        values = {
            "strategy": strategy,
            "strategy_settings": {"batch_size": 8, "epochs": 1, **settings},
            "stream": "split-digits",
            "stream_settings": {"train_per_class": 10, "test_per_class": 5, "sizes": [2, 2, 6], **(stream or {})},
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


def parts(session: Session, task: int) -> list[Counter[int]]:
    """Of each step of a task's phase: how many samples of each source."""
    sizes = [len(t.train) for t in session.stream.tasks]
    steps = session.strategy.state.seen
    per_task = [-(-n // 8) for n in sizes]
    start = sum(per_task[:task])
    return [Counter(step[0]) for step in steps[start : start + per_task[task]]]


def weights(session: Session) -> list[torch.Tensor]:
    return list(session.model.state_dict().values())


def test_without_a_share_it_is_a_phase_without_a_mixture(driven: Callable[..., Session]) -> None:
    """Bit for bit, also where an epoch's last batch is smaller."""
    mixed, plain = driven(share=0.0, epochs=3), driven("finetune", epochs=3)
    assert mixed.step == plain.step
    assert all(torch.equal(a, b) for a, b in zip(weights(mixed), weights(plain), strict=True))


def test_counts_are_those_of_the_quotas(driven: Callable[..., Session]) -> None:
    session = driven(share=0.25)
    assert parts(session, 0) == [Counter({0: 8}), Counter({0: 8}), Counter({0: 4})]
    assert parts(session, 1) == [Counter({0: 6, 1: 2}), Counter({0: 6, 1: 2}), Counter({0: 3, 1: 1})]
    third = parts(session, 2)
    assert [sum(step.values()) for step in third] == [8] * 7 + [4]
    total = sum(third, Counter())
    assert total[0] == 45 and {total[1], total[2]} == {7, 8}


def test_samples_are_those_of_the_source_their_part_names(driven: Callable[..., Session]) -> None:
    session = driven(share=0.5)
    tasks = session.stream.tasks
    for step in session.strategy.state.seen[3:6]:
        for part, index in zip(*step, strict=True):
            assert index in tasks[1 - part].train.index


def test_an_additive_phase_reads_every_new_sample_once(driven: Callable[..., Session]) -> None:
    session = driven(share=0.2, budget="additive")
    steps = session.strategy.state.seen
    for task in session.stream.tasks:
        own = set(task.train.index.tolist())
        current = [i for s in steps for part, i in zip(*s, strict=True) if part == 0 and i in own]
        assert sorted(current) == sorted(own)
    assert session.step == 3 + 4 + 10  # 20, 25 and 75 samples
    assert session.meters.totals["samples_train"] == 20 + 25 + 75


def test_in_order_goes_on_where_it_stopped(driven: Callable[..., Session]) -> None:
    session = driven(share=0.5, order="in_order")
    first = session.stream.tasks[0].train.index.tolist()
    steps = session.strategy.state.seen
    replayed = [i for s in steps[3:6] for part, i in zip(*s, strict=True) if part == 1]
    replayed += [i for s in steps[6:] for part, i in zip(*s, strict=True) if part == 1]
    assert replayed == (first * 3)[: len(replayed)] and len(replayed) > 20


def test_shuffled_reads_all_before_any_again(driven: Callable[..., Session]) -> None:
    session = driven(share=0.5)
    steps = session.strategy.state.seen[3:]
    replayed = [i for s in steps for part, i in zip(*s, strict=True) if part == 1]
    first = session.stream.tasks[0].train.index.tolist()
    assert sorted(replayed[:20]) == sorted(first) and replayed[:20] != first
    assert session.diagnostics[-1]["values"]["task0"]["samples"] == 20 + len(replayed)


def test_what_may_be_read_again_counts_as_stored(driven: Callable[..., Session]) -> None:
    session = driven()
    image = session.stream.tasks[0].train.raw(torch.tensor([0])).numel()
    assert session.stored_bytes() == 100 * (image + 8)
    with_validation = driven("Guided", {"validation": 0.2})
    assert with_validation.stored_bytes() == 100 * (image + 8)


def test_a_source_left_to_the_strategy(driven: Callable[..., Session]) -> None:
    session = driven("LeftOut", share=0.25)
    assert [len(s[0]) for s in session.strategy.state.seen[:3]] == [6, 6, 3]


def test_sources_of_several_pools(driven: Callable[..., Session]) -> None:
    one, other = driven("OwnPool", share=0.25), driven(share=0.25)
    assert parts(one, 1) == parts(other, 1)
    assert parts(driven("OwnPool", share=0.9), 0) == [Counter({1: 7, 0: 1}), Counter({1: 7, 0: 1}), Counter({1: 4})]


def test_an_undeclared_use_is_refused(driven: Callable[..., Session]) -> None:
    with pytest.raises(RunFailed, match="stores_samples=True"):
        driven("Undeclared")


def test_no_validation_data_is_said_with_the_remedy(driven: Callable[..., Session]) -> None:
    with pytest.raises(UserError, match=r"--set validation=0\.05 keeps some"):
        driven("Guided")


def test_an_online_stream_is_read_once(driven: Callable[..., Session]) -> None:
    driven(stream={"online": True}, budget="additive")
    with pytest.raises(UserError, match="one pass over a task's data"):
        driven(stream={"online": True}, epochs=2)


@pytest.mark.parametrize(
    ("fault", "anneal"),
    [
        ("phase:2", 0.0),
        ("phase:6", 0.0),
        ("phase:11", 0.0),
        ("end_task:2", 0.0),
        ("evaluate:3", 0.0),
        ("phase:10", 0.4),
    ],
)
def test_resuming_repeats_every_bit(runs: Any, outcome: Any, fault: str, anneal: float) -> None:
    """The policy's state, what quotas owe and the places in the sources are in the checkpoint; inside a branch, too."""
    stream = {"train_per_class": 12, "test_per_class": 5, "sizes": [3, 3, 4], "validation": 0.2}
    settings = {"steps": 5, "batch_size": 6, "anneal": anneal}
    spec = runs.spec(f"{MIXED}:Guided", stream_settings=stream, strategy_settings=settings, backbone="mlp:8x1")
    whole = outcome(runs.whole(spec))
    folder = runs.finish("killed", spec, fault)
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole
