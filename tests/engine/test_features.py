"""The cache of features: several runs write to it, and none reads what is not there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from clbench.engine.features import Features
from clbench.samples import Pool


class Doubling(nn.Module):
    def features(self, x: Tensor) -> Tensor:
        return 2.0 * x.flatten(1)


def reader(folder: Path) -> Features:
    environment: Any = SimpleNamespace(device=torch.device("cpu"), autocast=torch.no_grad)
    objective: Any = SimpleNamespace(inputs=lambda raw, labels, view, generator: (raw.float(), labels))
    return Features({"backbone": "doubling"}, Doubling, objective, environment, folder)


def pool(start: int = 0) -> Pool:
    return Pool(torch.arange(start, start + 40, dtype=torch.uint8).reshape(40, 1), torch.zeros(40, dtype=torch.int64))


def test_runs_that_overlap_in_time_add_to_the_cache(tmp_path: Path) -> None:
    shared = pool()
    first, second, third = (reader(tmp_path) for _ in range(3))
    first.read(shared, torch.arange(0, 20))
    second.read(shared, torch.arange(10, 30))
    first.flush()
    second.flush()
    assert torch.equal(third.read(shared, torch.arange(30))[:, 0], 2.0 * torch.arange(30))
    assert third.computed == 0
    assert torch.equal(third.read(shared, torch.arange(40))[:, 0], 2.0 * torch.arange(40))
    assert third.computed == 10


def test_a_pool_that_takes_the_place_of_another_is_told_apart(tmp_path: Path) -> None:
    features = reader(tmp_path)
    for start in range(5):
        assert float(features.read(pool(start), torch.tensor([3]))) == 2.0 * (start + 3)


KEEPING = """
from clbench.strategies.nmc import NMC
from clbench.strategy import Needs, Phase


class Keeping(NMC):
    needs = Needs(gradient_free=True, stores_features=True)

    def setup(self):
        super().setup()
        self.state.memory = self.memory(30)

    def phases(self, task):
        again = Phase("again", self.state.memory.samples, "plain", epochs=1, optimizer=None, after_step=self.look)
        return [*super().phases(task), again]

    def after_step(self, batch):
        super().after_step(batch)
        self.state.memory.add(batch, self.generator("memory"))

    def look(self, batch):
        replayed = self.replay(self.state.memory, 7)
        assert batch.x.shape == (len(batch), 64) and replayed.x.shape == (7, 64)
        assert batch.x.is_floating_point() and bool((batch.x == batch.raw).all())
"""


def test_a_memory_of_features_is_replayed_as_it_is(runs: Any, outcome: Any, tmp_path: Path) -> None:
    file = tmp_path / "keeping.py"
    file.write_text(KEEPING)
    kept = outcome(runs.finish("kept", runs.spec(str(file))))
    plain = outcome(runs.finish("plain", runs.spec("nmc")))
    boundary = [[row for row in r["table"] if row["kind"] == "boundary"] for r in (kept, plain)]
    assert [row["value"] for row in boundary[0]] == [row["value"] for row in boundary[1]]
