"""`clbench new strategy NAME`: a method and its test, which work as they are."""

from __future__ import annotations

import keyword
import os
import re
from pathlib import Path

from clbench.cli.text import print_lines
from clbench.errors import UserError

METHOD = '''"""{title}: what it does, in a line or two. Source: the paper and its equations."""

from __future__ import annotations

import torch
from torch import Tensor

from clbench.config import setting
from clbench.samples import Batch
from clbench.strategy import Needs, Strategy
from clbench.stream import Task


class {cls}(Strategy):
    """Finetuning with a pull back to the weights the task began with (an example: put your method here).

    loss = objective + strength / 2 * sum_i (w_i - w_i at the task's beginning)^2
    """

    class Config(Strategy.Config):
        strength: float = setting(0.1, "how strong the pull is", source="{title}: an example", ge=0)

    needs = Needs()  # what it uses: stored samples, task boundaries, ... (`clbench show strategy` prints it)

    def setup(self) -> None:
        """Once. What is put into `self.state` is saved in checkpoints."""
        self.state.anchor = {{}}

    def begin_task(self, task: Task) -> None:
        """Before each task's first step."""
        self.state.anchor = {{name: value.detach().clone() for name, value in self.trainable().items()}}

    def loss(self, batch: Batch) -> Tensor:
        """Every step. The objective knows whether the batch is images or text."""
        loss = self.objective.loss(self.model, batch)
        anchor = self.state.anchor
        pull = [torch.sum((value - anchor[name]) ** 2) for name, value in self.trainable().items() if name in anchor]
        return loss + 0.5 * self.config.strength * sum(pull)
'''

TEST = '''"""{cls} on real images, through the engine. Run it with: pytest {test}"""

from __future__ import annotations

from pathlib import Path

from clbench.launch import start_run
from clbench.spec import make_spec

METHOD = f"{{Path(__file__).with_name('{file}')}}:{cls}"


def run(folder: Path, **settings):
    spec = make_spec({{
        "strategy": METHOD,
        "stream": "split-digits",
        "strategy_settings": settings,
        "stream_settings": {{"tasks": 2}},
        "eval_grid": "none",
        "threads": 1,
    }})
    return start_run(spec, folder)[1]


def test_it_learns_every_task(tmp_path):
    record = run(tmp_path)
    assert record["status"] == "completed"
    assert record["metrics"]["learning"] > 0.6


def test_a_strong_pull_changes_the_result(tmp_path):
    weak, strong = run(tmp_path, strength=0.0), run(tmp_path, strength=10.0)
    assert weak["metrics"]["matrix"] != strong["metrics"]["matrix"]
'''


def new_strategy_command(name: str) -> None:
    """Write NAME.py and test_NAME.py here. Raises UserError for a bad name, or where one of them exists."""
    stem = re.sub(r"[-\s]+", "_", name.removesuffix(".py")).lower()
    if not re.fullmatch(r"[a-z][a-z0-9_]*", stem) or keyword.iskeyword(stem):
        raise UserError(f"{name!r} cannot name a Python file: use letters, digits and -, a letter first")
    cls = "".join(part.capitalize() for part in stem.split("_") if part)
    file, test = f"{stem}.py", f"test_{stem}.py"
    words = {"title": stem.replace("_", " "), "cls": cls, "file": file, "test": test}
    for path in (file, test):
        if Path(path).exists():
            raise UserError(f"{path} exists already: choose another name, or move it away")
    for path, template in ((file, METHOD), (test, TEST)):
        with Path(path).open("x", encoding="utf-8") as handle:
            handle.write(template.format(**words))
    print_lines(
        [
            f"wrote {file} and {test}",
            f"run it     clbench run .{os.sep}{file}:{cls} split-digits",
            f"test it    pytest {test}",
            f"check it   clbench check .{os.sep}{file}:{cls}",
        ]
    )
