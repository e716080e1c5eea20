"""Methods that train on features: a head on a frozen backbone, a backbone frozen by a phase, drawn features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clbench.errors import RunFailed
from clbench.launch import Prepared
from clbench.run import run
from clbench.spec import make_spec

JOB = {"stream": "split-digits", "threads": 1, "eval_grid": "none", "seed": 3}
SMALL = {"sizes": [3, 5, 2], "train_per_class": 30, "test_per_class": 10}

PROBE = """
from clbench.strategy import Strategy

class Probe(Strategy):
    inputs = "features"
"""

ADAPTED = """
import torch
from clbench.phase import Phase
from clbench.samples import Pool, Samples
from clbench.strategy import Strategy

class Adapted(Strategy):
    seen = []
    back = False

    def setup(self):
        self.state.sums = torch.zeros(10, 0)

    def phases(self, task):
        means = Phase("means", task.train, inputs="features", epochs=1, shuffle=False, optimizer=None,
                      after_step=self.add)
        if self.back and task.index == 1:
            return [Phase("again", task.train, inputs="raw", epochs=1)]
        return [self.phase("adapt", task.train), means] if task.index == 0 else [means]

    def extract(self, inputs):
        assert not self.model.training
        Adapted.seen.append(len(inputs))
        return 2 * self.model.features(inputs)

    def add(self, batch):
        assert self.frozen and batch.x.ndim == 2
        if not self.state.sums.shape[1]:
            self.state.sums = torch.zeros(10, batch.x.shape[1])
        self.state.sums.index_add_(0, batch.y, batch.x)

    def predict(self, inputs):
        return inputs @ self.state.sums.T if self.frozen else self.model(inputs)


class Drawn(Strategy):
    def phases(self, task):
        g = torch.Generator().manual_seed(task.index)
        drawn = Pool(torch.randn(40, self.model.feature_dim, generator=g), torch.arange(40) % 3, features=True)
        return [self.phase("train", task.train, steps=2),
                self.phase("head", Samples(drawn), steps=3, loss=self.on_features,
                           trainable=lambda name: name.startswith("head."))]

    def on_features(self, batch):
        assert batch.x.shape[1:] == (self.model.feature_dim,)
        return self.objective.mean_loss(self.model.head(batch.x), batch.y)
"""


def file(folder: Path, text: str) -> str:
    path = folder / "methods.py"
    path.write_text(text)
    return str(path)


def drive(folder: Path, strategy: str, **fields: Any) -> Any:
    folder.mkdir()
    settings = {"batch_size": 16, **fields.pop("settings", {})}
    spec = make_spec({**JOB, "strategy": strategy, "stream_settings": SMALL, "strategy_settings": settings, **fields})
    session = Prepared(spec).session(folder, _quiet(), None)
    try:
        run(session)
    finally:
        session.close()
    return session


def _quiet() -> Any:
    from clbench.engine.reporter import Reporter

    return Reporter()


def test_a_head_is_trained_on_the_features_of_a_frozen_backbone(tmp_path: Path) -> None:
    probe = drive(tmp_path / "probe", file(tmp_path, PROBE), backbone="slim-resnet18", settings={"steps": 20})
    assert [name for name, _ in probe.model.named_parameters()] == ["head.weight", "head.bias"]
    assert probe.model.head.weight.shape == (10, 160)
    assert probe.cost()["parameters_trained"] == 10 * 161
    assert probe.cost()["parameters"] == probe.builder.described()["parameters"] + 10 * 161
    again = drive(tmp_path / "again", file(tmp_path, PROBE), backbone="slim-resnet18", settings={"steps": 20})
    assert again.services.features.computed == 0, "the first run's features are kept"
    assert torch.equal(again.model.head.weight, probe.model.head.weight)


def test_a_phase_freezes_the_backbone_and_each_sample_is_extracted_once(tmp_path: Path) -> None:
    session = drive(tmp_path / "run", f"{file(tmp_path, ADAPTED)}:Adapted", backbone="mlp:16x1", settings={"steps": 5})
    samples = sum(len(t.train) for t in session.stream.tasks) + sum(len(s.data) for s in session.stream.eval_sets)
    assert session.services.features.computed == samples
    task = session.stream.tasks[0].train
    features = session.services.batch(task, torch.arange(len(task)), "plain").x
    x, _ = session.objective.inputs(task.raw(torch.arange(len(task))), task.labels, "plain", None)
    with torch.no_grad():
        torch.testing.assert_close(features, 2 * session.model.features(x))


def test_a_frozen_backbone_is_not_trained_again(tmp_path: Path) -> None:
    text = ADAPTED.replace("back = False", "back = True")
    with pytest.raises(RunFailed, match="'again' reads raw inputs, but the backbone is frozen"):
        drive(tmp_path / "run", f"{file(tmp_path, text)}:Adapted", backbone="mlp:16x1", settings={"steps": 5})


def test_drawn_features_reach_a_step_as_they_are(tmp_path: Path) -> None:
    session = drive(tmp_path / "run", f"{file(tmp_path, ADAPTED)}:Drawn", backbone="mlp:16x1")
    assert session.step == 3 * 5


@pytest.mark.parametrize("kind", ["Probe", "Adapted", "Drawn"])
@pytest.mark.parametrize(
    "fault",
    ["phase:3", "phase-begin:2"]
    + [pytest.param(f, marks=pytest.mark.slow) for f in ("end_task:1", "evaluate:2", "phase:9", "end_task:2")],
)
def test_killed_and_resumed(
    runs: Any, outcome: Callable[[Path], dict[str, Any]], tmp_path: Path, kind: str, fault: str
) -> None:
    strategy = f"{file(tmp_path, PROBE + ADAPTED)}:{kind}"
    settings = {"batch_size": 32, "steps": 4}
    spec = runs.spec(strategy, strategy_settings=settings, backbone="mlp:16x1", stream_settings=SMALL)
    whole = outcome(runs.whole(spec))
    folder = runs.finish("killed", spec, fault)
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole
