"""The example in docs/adding_a_stream.md, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from clbench.config import parse_config
from clbench.errors import UserError
from clbench.objectives import build_objective
from clbench.registry import load_recipe
from clbench.stream import Stream

DOC = Path(__file__).parents[2] / "docs" / "adding_a_stream.md"


@pytest.fixture
def example(tmp_path: Path):
    code = re.search(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    file = tmp_path / "squares.py"
    file.write_text(code.group(1), encoding="utf-8")

    def build(order_seed: int = 0, **settings) -> Stream:
        recipe = load_recipe(f"{file}:Squares")
        return recipe("squares", parse_config(recipe.Config, settings, "squares"), order_seed=order_seed).build()

    return build


def test_the_example_is_a_sound_stream(example) -> None:
    stream = example()
    rows = torch.cat([t.train.index for t in stream.tasks] + [e.data.index for e in stream.eval_sets])
    assert sorted(rows.tolist()) == list(range(6 * 53))
    assert stream.classes.names == ("red", "green", "blue", "yellow", "white", "black")
    for task in stream.tasks:
        assert tuple(task.train.labels.unique().tolist()) == task.classes
    assert example(5).content == stream.content != example(noise=1.0).content
    assert example(5).order != stream.order


def test_the_example_can_be_learned(example) -> None:
    stream = example(1)
    objective, task = build_objective(stream), stream.tasks[0]
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    optimiser = torch.optim.SGD(model.parameters(), stream.training.lr)
    for rows in torch.randperm(len(task.train)).split(stream.training.batch_size):
        x, y = objective.inputs(task.train.raw(rows), task.train.labels[rows], "train", None)
        optimiser.zero_grad()
        objective.losses(model(x), y).mean().backward()
        optimiser.step()
    test = stream.eval_sets[0]
    x, y = objective.inputs(test.data.raw(torch.arange(len(test.data))), test.data.labels, "plain", None)
    assert objective.scores(model(x), y, test).mean() > 0.9


def test_its_settings_are_checked(example) -> None:
    with pytest.raises(UserError, match="per_class=3"):
        example(per_class=3)
