"""Losses of single blocks: those of the table's rows, whatever kills the run, and whoever learned the first task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clbench.block_losses import FILE, paired_difference, read_block_losses
from clbench.errors import UserError
from clbench.table import EvaluationTable

TEXT = {"tokens": 1500, "context": 16, "eval_blocks": 20}
SHORT = {"steps": 5, "batch_size": 8}
PLAIN = {**SHORT, "schedule": "warmup-cosine"}


def spec(runs: Any, strategy: str = "finetune", **fields: Any) -> Any:
    return runs.spec(strategy, "text-shift", stream_settings=TEXT, **{"strategy_settings": SHORT, **fields})


def test_every_row_of_the_primary_metric_is_the_mean_of_its_losses(runs: Any) -> None:
    folder = runs.finish("run", spec(runs), every=None)
    found = read_block_losses(folder)
    rows = [row for row in EvaluationTable.read(folder / "evaluations.parquet").rows if row.metric == "nats"]
    assert len(found.n) == len(rows) and {row.kind for row in rows} == {"boundary", "trace"}
    for entry, row in enumerate(rows):
        assert (found.step[entry], found.eval_set[entry], found.n[entry]) == (row.step, row.eval_set, row.n)
        assert np.mean(found.of(entry), dtype=np.float64) == pytest.approx(row.value, rel=1e-12)
    assert not (folder / "block_losses.raw").exists()


@pytest.mark.parametrize(
    "fault", ["evaluate:4", *(pytest.param(f, marks=pytest.mark.slow) for f in ("phase:4", "end_task:2", "fork:1"))]
)
def test_killed_and_resumed_the_file_is_the_same(runs: Any, fault: str) -> None:
    settings = {**SHORT, "anneal": 0.4} if "fork" in fault else SHORT
    mine = spec(runs, strategy_settings=settings)
    whole = runs.finish("whole", mine, every=None)
    folder = runs.finish("killed", mine, fault)
    assert (folder / "block_losses.raw").exists() and not (folder / FILE).exists()
    assert runs.resume(folder) == 0
    assert (folder / FILE).read_bytes() == (whole / FILE).read_bytes()


@pytest.mark.slow
def test_those_of_a_shared_upstream_are_handed_on(runs: Any) -> None:
    """To the run that has it trained, and to one that finds it."""
    fields: dict[str, Any] = {"upstream": "shared", "upstream_settings": SHORT}
    first = runs.finish("first", spec(runs, **fields), every=None)
    again = runs.finish("again", spec(runs, **fields), every=None)
    assert (first / FILE).read_bytes() == (again / FILE).read_bytes()
    found = read_block_losses(first)
    assert any(found.step[e] in range(1, 5) and found.kind[e] == "trace" for e in range(len(found.n)))


@pytest.mark.slow
def test_a_sample_of_the_upstreams_own_is_not_paired_with_the_streams(runs: Any) -> None:
    """Where task 0 was traced on other blocks; whole sets are paired, and here they are of equal weights."""
    many = {**TEXT, "eval_blocks": 300}
    fields: dict[str, Any] = {"stream_settings": many, "strategy_settings": PLAIN}
    own = runs.finish("own", runs.spec("finetune", "text-shift", **fields), every=None)
    shared = {"upstream": "shared", "upstream_settings": PLAIN}
    adopted = runs.finish("shared", runs.spec("finetune", "text-shift", **fields, **shared), every=None)
    losses = read_block_losses(own)
    traced = next(e for e in range(len(losses.n)) if losses.kind[e] == "trace" and 0 < losses.step[e] < 5)
    name, step = str(losses.eval_set[traced]), int(losses.step[traced])
    assert losses.n[traced] < 300
    with pytest.raises(UserError, match="scored different samples"):
        paired_difference(own, adopted, name, step)
    at_the_end = paired_difference(own, adopted, name)
    assert (at_the_end.mean, at_the_end.se, at_the_end.n) == (0.0, 0.0, 300)


def test_classification_keeps_none(runs: Any) -> None:
    folder: Path = runs.finish("run", runs.spec("finetune", strategy_settings=SHORT), every=None)
    assert not list(folder.glob("block_losses*"))
