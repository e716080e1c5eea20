"""A user's file, written with images in mind, on images, text and images with captions: unchanged, by the command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .conftest import Cli

PAGE = Path(__file__).parents[2] / "docs" / "adding_a_method.md"
STREAMS = {
    "classification": [
        "split-digits", "--set", "tasks=2", "--set", "train_per_task=48", "--set", "test_per_task=100",
        "--set", "lr=0.1",
    ],
    "language_modeling": [
        "text-shift", "--backbone", "byte-gpt?d=16,layers=1,ctx=16",
        "--set", "context=16", "--set", "tokens=800", "--set", "eval_blocks=16",
    ],
    "contrastive": [
        "fomo", "--backbone", "micro-clip?pretrained=false,width=16", "--set", "sets=[stripes:noisy]",
        "--set", "held_out=[stripes:coloured]", "--set", "pretraining=[stripes:clean]", "--set", "tasks=2",
        "--set", "train_per_concept=8", "--set", "pool_per_concept=4", "--set", "lr=0.01",
    ],
}  # fmt: skip
SHORT = ["--set", "steps=6", "--set", "batch_size=16", "--eval-grid", "none", "--threads", "1", "--no-tracking"]


@pytest.fixture
def method(tmp_path: Path) -> str:
    """The example of docs/adding_a_method.md, in a file beside the runs."""
    found = re.search(r"<!-- example: (\S+) -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    (tmp_path / found[1]).write_text(found[2], encoding="utf-8")
    return f"./{found[1]}:PullBack"


def matrix(cli: Cli, strategy: str, objective: str, *more: str) -> list[list[float]]:
    """The scores after each task, of the command's record."""
    answer = cli("run", strategy, *STREAMS[objective], *SHORT, *more, "--json")
    assert answer.code == 0, answer.err
    record = answer.json()
    assert (record["status"], record["stream"]["objective"]) == ("completed", objective)
    rows: list[list[float]] = record["metrics"]["matrix"]["rows"]
    return rows


@pytest.mark.parametrize("objective", STREAMS)
def test_a_users_file_runs_on_every_objective(method: str, objective: str, cli: Cli) -> None:
    """Where it pulls weights back by nothing it is finetuning; where it pulls, the second task ends elsewhere."""
    plain, free = matrix(cli, "finetune", objective), matrix(cli, method, objective, "--set", "strength=0")
    pulled = matrix(cli, method, objective, "--set", "strength=5")
    assert len(plain) >= 2 and free == plain
    assert pulled[0] == plain[0] and pulled[1] != plain[1]
