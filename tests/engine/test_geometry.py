"""How far a task moves the weights: plain arithmetic on the weights before and after, whatever kills the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clbench.engine.geometry import group_of
from clbench.record import read_record
from clbench.record_schema import schema_faults

TEXT = {"tokens": 1500, "context": 16, "eval_blocks": 20}
SHORT = {"steps": 5, "batch_size": 8}


def test_it_is_the_relative_norm_of_the_change(runs: Any) -> None:
    """Of a task that multiplies one block by 1.5 and leaves the others alone."""
    import torch

    from clbench.engine.reporter import Reporter
    from clbench.launch import Prepared

    spec = runs.spec("finetune", "text-shift", stream_settings=TEXT, strategy_settings=SHORT)
    session = Prepared(spec).session(runs.folder, Reporter(), None)
    session.start()
    task = next(session.remaining_tasks())
    session.begin_task(task)
    named = dict(session.model.named_parameters())
    block = next(group_of(name) for name in named if group_of(name)[-1].isdecimal())
    norms = {name: float(p.detach().double().norm()) for name, p in named.items()}
    mine = [name for name in named if group_of(name) == block]
    assert 1 < len(mine) < len(named)
    with torch.no_grad():
        for name in mine:
            named[name].mul_(1.5)
    session.end_task(task)
    (found,) = session.geometry
    changed = 0.5 * sum(norms[name] ** 2 for name in mine) ** 0.5
    assert found["total"] == pytest.approx(changed / sum(n**2 for n in norms.values()) ** 0.5, rel=1e-6)
    assert found["layers"].pop(block) == pytest.approx(0.5, rel=1e-6)
    assert set(found["layers"].values()) <= {0.0, None}
    session.close()


@pytest.mark.parametrize("fault", ["phase:8", pytest.param("end_task:2", marks=pytest.mark.slow)])
def test_killed_and_resumed_it_is_the_same(runs: Any, fault: str) -> None:
    spec = runs.spec("finetune", "text-shift", stream_settings=TEXT, strategy_settings=SHORT)
    whole = read_record(runs.finish("whole", spec, every=None))
    folder: Path = runs.finish("killed", spec, fault)
    assert runs.resume(folder) == 0
    record = read_record(folder)
    assert record["update_geometry"] == whole["update_geometry"] and schema_faults(record) == []
    tasks = record["stream"]["tasks"]
    assert [told["task"] for told in record["update_geometry"]] == list(range(len(tasks)))
    assert all(told["total"] > 0 for told in record["update_geometry"])
    assert not list(folder.glob("beginnings"))


def test_killed_two_tasks_after_the_newest_checkpoint_it_is_the_same(runs: Any, monkeypatch: Any) -> None:
    spec = runs.spec("finetune", "tiny-three", stream_settings=TEXT, strategy_settings=SHORT)
    whole = read_record(runs.finish("whole", spec, every=None))
    folder: Path = runs.finish("killed", spec, "phase:4")
    with monkeypatch.context() as patched:
        patched.setattr("clbench.engine.saver.CHECKPOINT_SHARE", 1e-9)  # no other checkpoint
        assert runs.resume(folder, "phase:9") < 0
    assert (folder / "beginnings" / "2.raw").exists()
    assert runs.resume(folder) == 0
    assert read_record(folder)["update_geometry"] == whole["update_geometry"]
    assert [told["task"] for told in whole["update_geometry"]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "group"),
    [("backbone.blocks.0.attention.weight", "backbone.blocks.0"), ("backbone.norm.bias", "backbone.norm"), ("w", "w")],
)
def test_groups_are_blocks_or_modules(name: str, group: str) -> None:
    assert group_of(name) == group
