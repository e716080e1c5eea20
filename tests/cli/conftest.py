"""Running commands in this process, on a small cut of the embedded digits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from clbench.cli import main

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = [
    "split-digits", "--set", "tasks=2", "--set", "train_per_task=48", "--set", "test_per_task=20",
    "--set", "epochs=1", "--threads", "1", "--no-tracking",
]  # fmt: skip


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def error(self) -> str:
        """The only line on stderr, without its prefix; stdout is empty."""
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("clbench: "), self.err
        assert "Traceback" not in self.err and self.out == ""
        return lines[0].removeprefix("clbench: ")


Cli = Callable[..., Answer]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """`cli("list", "models")`: exit code, stdout and stderr of a command run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CLBENCH_DEBUG", raising=False)
    monkeypatch.delenv("CLBENCH_TRACKING", raising=False)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments: Any) -> Answer:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


@pytest.fixture
def small_run(cli: Cli) -> Callable[..., Answer]:
    """Run a strategy on two small tasks of digits, with further arguments."""

    def call(strategy: str, *arguments: Any) -> Answer:
        return cli("run", strategy, *SMALL, *arguments)

    return call


def example(name: str) -> str:
    """`example("raising.py:Raising")`: the argument for a strategy of tests/examples."""
    return str(EXAMPLES / name)
