"""Costs: FLOPs against torch's own counter, seconds that add up, bytes, equal after resuming."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from clbench.engine.evaluation import chunks
from clbench.engine.reporter import Reporter
from clbench.launch import Prepared


def cost_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "record.json").read_text())["cost"]
    return found


def by_hand(spec: Any, folder: Path) -> tuple[int, int]:
    """FLOPs of all steps and all boundary evaluations of finetuning on whole batches of 16, from torch's counter."""
    built = Prepared(spec)
    session = built.session(folder, Reporter(), None)
    train = evaluate = 0
    x = torch.zeros(16, *built.stream.input_shape)
    for task in built.stream.tasks:
        session.objective.grow(session.model, task)
        with FlopCounterMode(display=False) as counter:
            session.model(x).sum().backward()
        train += counter.get_total_flops() * built.config.steps
        session.model.eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            session.model(x)
        session.model.train()
        scored = sum(len(s.data) for s in built.stream.eval_sets if s.belongs_to <= task.index)
        run_through = sum(len(rows) for rows, _ in chunks(scored))
        evaluate += counter.get_total_flops() // 16 * run_through
    session.close()
    return train, evaluate


@pytest.mark.parametrize("backbone", ["mlp", "slim-resnet18"])
def test_flops_are_those_of_torchs_counter(runs: Any, tmp_path: Path, backbone: str) -> None:
    settings = {"steps": 3, "batch_size": 16}
    spec = runs.spec("finetune", backbone=backbone, strategy_settings=settings, eval_grid="none")
    cost = cost_of(runs.finish("run", spec, every=None))
    (tmp_path / "hand").mkdir()
    train, evaluate = by_hand(spec, tmp_path / "hand")
    assert cost["flops_train"] == pytest.approx(train, rel=1e-3)
    assert cost["flops_evaluate"] == pytest.approx(evaluate, rel=1e-3)
    parts = cost["seconds_train"] + cost["seconds_evaluate"] + cost["seconds_checkpoints"]
    assert parts <= cost["seconds_total"]


@pytest.mark.parametrize("fault", ["phase:5", "evaluate:9", "end_task:2"])
def test_counts_of_a_resumed_run_are_those_of_a_whole_one(runs: Any, fault: str) -> None:
    spec = runs.spec("der++", strategy_settings={"steps": 4, "batch_size": 16, "memory_size": 30}, eval_grid="full")
    whole = cost_of(runs.finish("whole", spec, every=None))
    folder = runs.finish("killed", spec, fault)
    assert runs.resume(folder) == 0
    resumed = cost_of(folder)
    for key in ("flops_train", "flops_evaluate", "samples_train", "samples_evaluate", "stored_bytes", "steps"):
        assert resumed[key] == whole[key], key


def test_a_run_on_the_cpu_leaves_the_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from clbench.rng import Randomness

    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    Randomness(0).enter("setup")
    assert not seeded
    Randomness(0, cuda=True).enter("setup")
    assert seeded


def test_a_run_does_not_import_torchs_compiler(tmp_path: Path) -> None:
    settings = ["--set", "steps=2", "--set", "batch_size=16"]
    settings += ["--backbone", "mlp"]
    words = ["run", "finetune", "split-digits", "--quiet", "--threads", "1", *settings, "--out", str(tmp_path)]
    program = f"import sys; from clbench.cli import main; main({words!r}); print('torch._dynamo' in sys.modules)"
    environment = {**os.environ, "CLBENCH_TRACKING": "off", "CLBENCH_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert list(tmp_path.glob("runs/*/*/*/evaluations.parquet"))
