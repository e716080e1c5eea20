"""How long a board of many records takes, in every format, and how much memory.

Copies one real run with changed seeds, settings and scores, sealed as a real one is; then builds the board in
processes of their own.

    python benchmarks/board.py RUN [--records 2000] [--seeds 5] [--boards 10] [--formats table,json]

RUN is the folder of a completed run. There are records / seeds rows, on --boards boards.
"""

from __future__ import annotations

import argparse
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from clbench.record import Record, read_record, write_record

SCORES = ("average", "average_incremental", "learning", "forgetting", "gap_depth", "gap_area", "min_acc", "wc_acc")


def main() -> None:
    """Make the records, time each format, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--boards", type=int, default=10)
    parser.add_argument("--formats", default="table,md,csv,json,latex,html")
    parser.add_argument("--folder", type=Path, default=None, help="keep the records here")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="clbench-board-"))
    try:
        make_records(options.run, folder, options.records, options.seeds, options.boards)
        for format in options.formats.split(","):
            wall, cpu, megabytes, size = measure(folder, format)
            print(
                f"{format:6} {wall:6.2f} s, CPU {cpu:6.2f} s, {megabytes:4.0f} MB, {size / 1e6:6.2f} MB written",
                flush=True,
            )
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


def make_records(run: Path, folder: Path, records: int, seeds: int, boards: int) -> None:
    """Write `records` runs into `folder`/runs: rows of `seeds` runs, spread over `boards` boards."""
    original = read_record(run)
    draws = random.Random(0)
    for number in range(records):
        row, seed = divmod(number, seeds)
        board = row % boards
        if seed == 0:
            level = draws.gauss(0, 0.03)
        record = _changed(copy.deepcopy(original), row, seed, board, level, draws)
        strategy, stream = record["strategy"]["name"], record["stream"]["name"]
        target = folder / "runs" / stream / strategy / record["run"]
        target.mkdir(parents=True, exist_ok=True)
        for name in ("evaluations.parquet", "config.yaml"):
            shutil.copyfile(run / name, target / name)
        write_record(target, record)


def _changed(record: Record, row: int, seed: int, board: int, level: float, draws: random.Random) -> Record:
    """A run that could have been: another seed, strategy or setting, another stream, scores moved a little."""
    names = ("finetune", "replay", "der", "ewc", "si", "lwf", "gdumb", "joint")
    record["run"] = f"20260101-{row:06d}-{seed:08d}"
    record["strategy"]["name"] = record["spec"]["strategy"] = names[row % len(names)]
    record["spec"]["strategy_settings"]["lr"] = round(0.01 * (1 + row), 6)
    record["spec"]["seed"] = seed
    record["stream"]["name"] = f"{record['stream']['name']}-{board}"
    record["stream"]["content"] = f"{board:064x}"
    metrics: dict[str, Any] = record["metrics"]
    for key in SCORES:
        if isinstance(metrics.get(key), float):
            metrics[key] += level + draws.gauss(0, 0.01)
    for key in ("seconds_train", "seconds_total", "seconds_evaluate"):
        record["cost"][key] *= 1 + 0.1 * draws.random()
    return record


def measure(folder: Path, format: str) -> tuple[float, float, float, int]:
    """`clbench leaderboard --format FORMAT` in a process of its own: wall and CPU seconds, peak megabytes, bytes."""
    target = folder / f"board.{format}"
    command = [sys.executable, "-m", "clbench", "leaderboard", "--results", str(folder), "--format", format]
    start = time.perf_counter()
    child = subprocess.Popen([*command, "--out", str(target)], stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {child.returncode}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000, target.stat().st_size


if __name__ == "__main__":
    main()
