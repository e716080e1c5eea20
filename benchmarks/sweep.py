"""What a sweep costs above its runs, and what two workers gain: the same suite with one and with two jobs at a time.

python benchmarks/sweep.py [--runs 8] [--stream split-cifar10] [--set KEY=VALUE ...] [--rounds 3] [--plain]

Finetuning with as many seeds as there are runs. Contestants, in turn in every round, each a whole `clbench sweep`:

    1x1   one job at a time, one thread each
    1x2   one job at a time, two threads each
    2x1   two jobs at a time, one thread each

and with --plain also `clbench run` once for each seed, one thread, as a shell loop would do it.

Reported: wall seconds of the process; of the engine; overhead, which is what its workers were idle for although runs
were waiting (starting workers, handing over jobs and results), as a share of the runs' own time; and the idle tail,
which is how long workers had nothing left to do before the last run ended. See `clbench/sweeps/schedule_report.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import yaml

CONTESTANTS = {"1x1": (1, 1), "1x2": (1, 2), "2x1": (2, 1)}
SMALL_CIFAR = {"train_per_task": 250, "test_per_task": 100}


def clbench(*arguments: str) -> float:
    """Wall seconds of a command; its output is shown where it fails."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "clbench", *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"clbench {' '.join(arguments)}:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - started


def swept(options: argparse.Namespace, settings: dict[str, Any], jobs: int, threads: int) -> dict[str, float]:
    """One sweep in an empty results folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        entry = {"strategy": "finetune", "stream": options.stream, "seeds": f"0-{options.runs - 1}", **settings}
        suite = {"name": "sweep", "runs": [{**entry, "resources": {"cpus": threads}}]}
        (folder / "sweep.yaml").write_text(yaml.safe_dump(suite))
        out = ["--out", str(folder / "results"), "--jobs", str(jobs), "--no-tracking", "--quiet"]
        process = clbench("sweep", str(folder / "sweep.yaml"), *out)
        report = json.loads((folder / "results/sweeps/sweep/report.json").read_text())
        return {"process": process, **report["scheduling"]}


def plain(options: argparse.Namespace, settings: dict[str, Any]) -> dict[str, float]:
    """The same runs, one command after another."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f"--set={key}={value}" for key, value in settings.items()]
        command = ["run", "finetune", options.stream, *words, "--threads", "1", "--no-tracking", "--out", folder]
        return {"process": sum(clbench(*command, "--seed", str(seed)) for seed in range(options.runs))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--stream", default="split-cifar10")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    settings = dict(SMALL_CIFAR) if options.stream == "split-cifar10" else {}
    settings |= {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in options.set)}
    os.environ.pop("OMP_NUM_THREADS", None)
    found: dict[str, list[dict[str, float]]] = {}
    for number in range(options.rounds):
        for name, (jobs, threads) in CONTESTANTS.items():
            found.setdefault(name, []).append(swept(options, settings, jobs, threads))
        if options.plain:
            found.setdefault("plain", []).append(plain(options, settings))
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    print(
        f"{options.runs} runs of finetune on {options.stream} {settings}, medians of {options.rounds} rounds, seconds"
    )
    print(f"{'':6}{'process':>9}{'engine':>9}{'runs':>9}{'overhead':>10}{'share':>9}{'tail':>7}")
    for name, rounds in found.items():
        keys = ("process", "wall", "busy", "overhead", "overhead_share", "tail")
        values = {key: median(one[key] for one in rounds) for key in keys if key in rounds[0]}
        cells = [f"{values[key]:9.2f}" if key in values else " " * 9 for key in ("process", "wall", "busy")]
        if "overhead" in values:
            cells.append(f"{values['overhead']:10.3f}{100 * values['overhead_share']:8.2f}%{values['tail']:7.2f}")
        print(f"{name:6}{''.join(cells)}")
    for against in ("1x1", "1x2"):
        ratios = [two["wall"] / one["wall"] for two, one in zip(found["2x1"], found[against], strict=True)]
        print(f"2x1 against {against}: {median(ratios):.2f} (engine, {', '.join(f'{ratio:.2f}' for ratio in ratios)})")


if __name__ == "__main__":
    main()
