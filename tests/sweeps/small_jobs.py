"""Small jobs on the embedded digits, and what their runs left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from clbench.record import read_record
from clbench.spec import RunSpec, make_spec
from clbench.sweeps.job import Job, Resources

EXAMPLES = Path(__file__).parents[1] / "examples"
STREAM = {"tasks": 2, "train_per_task": 48, "test_per_task": 20}


def small_spec(strategy: str = "finetune", seed: int = 0, threads: int = 1, **settings: Any) -> RunSpec:
    """One epoch on two tasks of digits; `file.py:Class` is looked for among the examples of the tests."""
    name = str(EXAMPLES / strategy) if ".py" in strategy else strategy
    given = settings if strategy == "nmc" else {"epochs": 1, **settings}
    return make_spec(
        {
            "strategy": name,
            "stream": "split-digits",
            "backbone": "pixels" if strategy == "nmc" else "mlp",
            "seed": seed,
            "threads": threads,
            "stream_settings": STREAM,
            "strategy_settings": given,
        }
    )


def small_job(
    number: int = 1, strategy: str = "finetune", cpus: int = 1, resume: Path | None = None, **more: Any
) -> Job:
    spec = small_spec(strategy, threads=cpus, **more)
    return Job(number, f"{strategy} {number}", spec, Resources(cpus), resume)


def result_of(folder: Path) -> tuple[str, list[dict[str, Any]], dict[str, Any]]:
    """State hash, table and metrics of a completed run: what must be equal byte for byte."""
    record = read_record(folder)
    assert record["status"] == "completed", record["error"]
    return record["state_hash"], pq.read_table(folder / "evaluations.parquet").to_pylist(), record["metrics"]


def run_folders(out: Path) -> list[Path]:
    return sorted(out.glob("runs/*/*/*"))
