"""What all methods on frozen features share: unequal tasks, resuming, domains, and a result better than finetuning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clbench.engine.session import Session
from clbench.errors import Interrupted
from clbench.registry import load_strategy
from clbench.state import pack

Drive = Callable[..., Session]
SETTINGS: dict[str, dict[str, Any]] = {
    "simplecil": {"batch_size": 10},
    "slda": {"batch_size": 10},
    "fecam": {"batch_size": 10},
    "ranpac": {"first_session": "none", "projection": 200},
    "dkvb": {"codebooks": 16, "pairs": 16, "batch_size": 10, "key_epochs": 1, "lr": 30.0},
}
BETTER_THAN_NMC = ("slda", "fecam", "ranpac")
INVARIANT: list[tuple[str, dict[str, Any]]] = [
    ("simplecil", {}),
    ("slda", {}),
    ("fecam", {}),
    ("fecam", {"covariance": "shared", "tukey": None, "normalise": "distance"}),
    ("ranpac", {"first_session": "none", "projection": 200, "ridge": 100.0}),
]


def job(per_class: int = 40, **stream: Any) -> dict[str, Any]:
    settings = {"train_per_class": per_class, **stream}
    return {"stream": "split-digits", "backbone": "pixels", "stream_settings": settings}


def scores_by_original_class(session: Session) -> Tensor:
    """Scores of the same 200 test samples, in the source's order of classes: float64 [200, 10]."""
    data = [s.data for s in session.stream.eval_sets]
    samples = type(data[0]).union(data)
    samples = type(samples)(samples.pool, samples.index.sort().values[:200])
    scores = session.strategy.predict(session.services.batch(samples, torch.arange(200), "plain").x)
    return scores.double()[:, torch.tensor(session.stream.classes.original).argsort()]


@pytest.mark.parametrize("strategy", SETTINGS)
def test_its_config_says_where_each_default_comes_from(strategy: str) -> None:
    kind = load_strategy(strategy)
    assert kind.paper and kind.__doc__
    assert all(f.json_schema_extra["source"] for f in kind.Config.model_fields.values())


@pytest.mark.parametrize("strategy", SETTINGS)
def test_unequal_tasks_and_domains(strategy: str, drive: Drive, final: Callable[[Session], float]) -> None:
    session = drive(strategy, SETTINGS[strategy], job=job(sizes=[3, 5, 2]))
    assert session.n_classes() == 10
    assert final(session) > 0.5
    domains = {"stream": "rotated-digits", "backbone": "pixels", "stream_settings": {"train_per_class": 10}}
    assert final(drive(strategy, SETTINGS[strategy], job=domains)) > 0.3


@pytest.mark.oracle("simplecil", "order and cut of the stream change nothing")
@pytest.mark.oracle("slda", "order and cut of the stream change nothing")
@pytest.mark.oracle("fecam", "order and cut of the stream change nothing")
@pytest.mark.oracle("ranpac", "with a fixed ridge, order and cut of the stream change nothing")
@pytest.mark.parametrize(("strategy", "settings"), INVARIANT, ids=str)
def test_order_and_cut_of_the_stream_do_not_matter(strategy: str, settings: dict[str, Any], drive: Drive) -> None:
    reference = scores_by_original_class(drive(strategy, settings, job=job()))
    scale = reference.abs().max().item()
    for order_seed, cut in ((0, {"sizes": [3, 5, 2]}), (3, {"tasks": 1}), (4, {"tasks": 10})):
        found = scores_by_original_class(drive(strategy, settings, job=job(**cut), order_seed=order_seed))
        torch.testing.assert_close(found, reference, rtol=1e-6, atol=1e-6 * scale)


@pytest.mark.parametrize("strategy", SETTINGS)
def test_an_interrupted_run_ends_with_the_same_bits(strategy: str, drive: Drive, tmp_path: Path) -> None:
    """Stopped at steps of the first, second and last task, each time continued by a new session."""
    whole = drive(strategy, SETTINGS[strategy], job=job(12, sizes=[3, 5, 2]))
    stops = sorted({1, 2, whole.step // 2, whole.step - 1} - {0})
    folder, done = tmp_path / "stopped", 0
    for stop in stops:
        torch.rand(3)
        with pytest.raises(Interrupted):
            drive(strategy, SETTINGS[strategy], job=job(12, sizes=[3, 5, 2]), stop_at=stop - done, folder=folder)
        done = stop
    again = drive(strategy, SETTINGS[strategy], job=job(12, sizes=[3, 5, 2]), folder=folder)
    expected, found = kept(whole), kept(again)
    assert expected.keys() == found.keys() and expected
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert list(whole.table.table) == list(again.table.table)


def kept(session: Session) -> dict[str, Tensor]:
    """The tensors of the strategy's state and of its model, where it has one."""
    found: dict[str, Tensor] = {}
    for name, value in vars(session.strategy.state).items():
        pack(value, name, found)
    return found | (session.model.state_dict() if session.keeps_model else {})


@pytest.mark.parametrize("strategy", BETTER_THAN_NMC)
def test_covariances_help(strategy: str, drive: Drive, final: Callable[[Session], float]) -> None:
    assert final(drive(strategy, SETTINGS[strategy], job=job(100))) > final(drive("nmc", job=job(100))) + 0.02


@pytest.mark.parametrize("strategy", ["simplecil", "slda", "fecam", "ranpac"])
def test_classes_without_samples_are_never_predicted(strategy: str, drive: Drive) -> None:
    run = drive(strategy, SETTINGS[strategy], job=job(12)).strategy
    gathered = run.state.gram if strategy == "ranpac" else run.state.statistics
    gathered.counts[[0, 4]] = 0
    if strategy != "ranpac":
        gathered.sums[[0, 4]] = 0
    scores = run.predict(torch.randn(50, 64))
    assert scores[:, [0, 4]].isneginf().all()
    assert scores[:, [1, 2, 3, 5, 6, 7, 8, 9]].isfinite().all()
