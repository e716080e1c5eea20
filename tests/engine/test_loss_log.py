"""Losses of single blocks: those of the table's rows, whatever kills the run, and whoever learned the first task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clbench.block_losses import FILE, read_block_losses
from clbench.table import EvaluationTable

TEXT = {"tokens": 1500, "context": 16, "eval_blocks": 20}
SHORT = {"steps": 5, "batch_size": 8}


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


def test_those_of_a_shared_upstream_are_handed_on(runs: Any) -> None:
    """To the run that has it trained, and to one that finds it."""
    fields: dict[str, Any] = {"upstream": "shared", "upstream_settings": SHORT}
    first = runs.finish("first", spec(runs, **fields), every=None)
    again = runs.finish("again", spec(runs, **fields), every=None)
    assert (first / FILE).read_bytes() == (again / FILE).read_bytes()
    found = read_block_losses(first)
    assert any(found.step[e] in range(1, 5) and found.kind[e] == "trace" for e in range(len(found.n)))


def test_classification_keeps_none(runs: Any) -> None:
    folder: Path = runs.finish("run", runs.spec("finetune", strategy_settings=SHORT), every=None)
    assert not list(folder.glob("block_losses*"))
