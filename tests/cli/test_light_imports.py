"""Help, listings and errors come before anything heavy is imported: checked in fresh processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "torch",
    "numpy",
    "mlflow",
    "pandas",
    "pyarrow",
    "torchvision",
    "timm",
    "transformers",
    "sklearn",
    "matplotlib",
    "scipy",
    "jinja2",
)
SCRIPT = f"""
import json, sys
from clbench.cli import main
code = main(sys.argv[1:])
print(json.dumps([code, [name for name in {HEAVY} if name in sys.modules], "rich" in sys.modules]))
"""
COMMANDS = (
    (["--help"], 0),
    (["--version"], 0),
    (["run", "--help"], 0),
    (["list", "strategies"], 0),
    (["list", "streams", "--json"], 0),
    (["list", "schedules"], 0),
    (["list", "models"], 0),
    (["show", "strategy", "ewc"], 0),
    (["show", "stream", "split-cifar100"], 0),
    (["show", "metric", "forgetting"], 0),
    (["leaderboard", "--help"], 0),
    (["references", "--help"], 0),
    (["references", "nonsense"], 2),
    (["power", "--help"], 0),
    (["runs", "list"], 0),
    (["power", "finetune"], 2),
    (["run", "finetun", "split-digits"], 2),
    (["run", "finetune", "split-digits", "--set", "lr=fast"], 2),
)


@pytest.mark.parametrize("arguments, code", COMMANDS, ids=[" ".join(c[0]) for c in COMMANDS])
def test_nothing_heavy_is_imported(tmp_path: Path, arguments: list[str], code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found, heavy, rich = json.loads(done.stdout.splitlines()[-1])
    assert (found, heavy, rich) == (code, [], False), done.stderr


def test_python_m_clbench_and_broken_pipes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "clbench", "list", "models"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "clbench: input or output failed: No space left on device\n"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    os.close(write)
    assert done.returncode == 1 and done.stderr == "clbench: the reader of the output went away\n"
