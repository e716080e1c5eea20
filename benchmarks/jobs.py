"""The jobs of benchmarks/README.md, each as clbench, as a bare loop and in Avalanche, in turn: medians and ratios.

python benchmarks/jobs.py [--jobs J1,J2] [--rounds 5] [--train 500 --test 250] [--avalanche PYTHON] [--threads 2]

The data are CIFAR-10 as clbench finds them (CLBENCH_DATA). --avalanche names a Python that has avalanche-lib. Every
contestant is a whole process; rounds alternate; wall seconds, seconds after start-up, and peak memory are reported.
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

HERE = Path(__file__).parent
VIT = "timm:vit_tiny_patch16_224?img_size=32,patch_size=4"
CLBENCH = {
    "J1": ["finetune", "--eval-grid", "none"],
    "J2": ["replay", "--eval-grid", "none", "--set", "memory_size=500"],
    "J3": ["finetune", "--eval-grid", "1"],
    "J4": ["nmc", "--eval-grid", "none", "--backbone", VIT],
    "J5": ["ewc", "--eval-grid", "none", "--set", "ewc_lambda=10"],
    "J1 default grid": ["finetune"],
}


class Contest:
    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.data = folder / "subset.npz"
        size = ["--train", str(options.train), "--test", str(options.test)]
        subprocess.run([sys.executable, HERE / "subset.py", self.data, *size], check=True)

    def contestants(self, job: str) -> dict[str, list[str]]:
        o = self.options
        threads = ["--threads", str(o.threads)]
        settings = [f"train_per_task={o.train}", f"test_per_task={o.test}", "pad=0", "flip=false"]
        ours = [sys.executable, "-m", "clbench", "run", CLBENCH[job][0], "split-cifar10", *CLBENCH[job][1:], *threads]
        ours += [part for setting in settings for part in ("--set", setting)]
        ours += ["--quiet", "--json", "--no-tracking", "--out", str(self.folder / "results")]
        bare = [sys.executable, str(HERE / "bare.py"), job.split()[0], str(self.data), *threads]
        found = {"clbench": ours, **({"clbench, cached": ours} if job == "J4" else {}), "bare": bare}
        if o.bf16:
            found["clbench bf16"] = [*ours, "--precision", "bf16"]
        if o.avalanche and job in ("J1", "J2", "J3", "J5"):
            found["avalanche"] = [o.avalanche, str(HERE / "avalanche_jobs.py"), job, str(self.data), *threads]
        return found

    def measure(self, name: str, command: list[str], round_: int) -> dict[str, float]:
        cache = self.folder / "cache"
        if name == "clbench":  # the decoded images stay, the features go
            subprocess.run(["rm", "-rf", str(cache / "features")], check=True)
        environment = {**os.environ, "CLBENCH_CACHE": str(cache), "PYTHONWARNINGS": "ignore"}
        start = time.perf_counter()
        with tempfile.TemporaryFile() as out:
            child = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=environment)
            _, status, usage = os.wait4(child.pid, 0)
            wall = time.perf_counter() - start
            out.seek(0)
            text = out.read().decode()
        if status:
            raise SystemExit(f"{name} failed: {' '.join(command)}")
        result = json.loads(text[text.index("{") :])
        cost = result.get("cost", {})
        loop = result.get("loop", sum(cost.get(f"seconds_{k}", 0) for k in ("train", "evaluate", "checkpoints")))
        trace = cost.get("trace_share", 0.0)
        evaluated = cost.get("samples_evaluate", result.get("evaluated", 0))
        peak = usage.ru_maxrss / 1024
        return {"wall": wall, "loop": loop, "MB": peak, "trace": trace, "evaluated": evaluated}

    def run(self, job: str) -> None:
        rounds: dict[str, list[dict[str, float]]] = {}
        for round_ in range(-self.options.warmup, self.options.rounds):
            for name, command in self.contestants(job).items():
                figures = self.measure(name, command, round_)
                if round_ >= 0:
                    rounds.setdefault(name, []).append(figures)
        print(f"\n{job}: {self.options.train}/{self.options.test} images a task, {self.options.rounds} rounds")
        print(
            f"{'':18}{'wall s':>9}{'loop s':>9}{'MB':>7}{'wall/bare':>11}{'loop/bare':>11}{'trace':>8}{'evaluated':>11}"
        )
        for name, figures in rounds.items():
            middle = {key: median(f[key] for f in figures) for key in figures[0]}
            ratio = {
                k: median(f[k] / b[k] for f, b in zip(figures, rounds["bare"], strict=True)) for k in ("wall", "loop")
            }
            print(
                f"{name:18}{middle['wall']:9.2f}{middle['loop']:9.2f}{middle['MB']:7.0f}{ratio['wall']:11.3f}"
                f"{ratio['loop']:11.3f}{middle['trace']:8.3f}{middle['evaluated']:11.0f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", default="J1,J2,J3,J4,J5")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1, help="rounds not counted")
    parser.add_argument("--train", type=int, default=500)
    parser.add_argument("--test", type=int, default=250)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--avalanche")
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        contest = Contest(options, Path(folder))
        for job in options.jobs.split(","):
            contest.run(job)


if __name__ == "__main__":
    main()
