"""A trial in a new interpreter, which reads it on stdin and prints its outcome."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from clbench.conformance.trial import Outcome, Trial

HASH_SEEDS = ("1", "2")
CODE = "import sys; del sys.path[0]; from clbench.conformance.elsewhere import main; main()"


def elsewhere(trial: Trial) -> Outcome:
    """The outcome of a whole run in a process that shares nothing with this one, the seed of `hash()` included."""
    question = json.dumps({**asdict(trial), "folder": str(trial.folder)})
    here = os.environ.get("PYTHONHASHSEED")
    environment = {
        **os.environ,
        "PYTHONHASHSEED": next(seed for seed in HASH_SEEDS if seed != here),
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
    }
    command = [sys.executable, "-c", CODE]
    answer = subprocess.run(command, input=question, capture_output=True, text=True, env=environment)
    if answer.returncode:
        lines = answer.stderr.strip().splitlines() or [f"status {answer.returncode}"]
        return Outcome(error=f"in a new process: {lines[-1]}")
    return Outcome(**json.loads(answer.stdout.splitlines()[-1]))


def main() -> None:
    """Answer one question. What the strategy's file prints comes before the answer."""
    question = json.loads(sys.stdin.read())
    trial = Trial(**{**question, "folder": Path(question["folder"])})
    sys.stdout.write("\n" + json.dumps(asdict(trial.run())) + "\n")
