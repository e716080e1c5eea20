"""Language models: clbench beside a bare PyTorch loop and `transformers.Trainer`, the same model and blocks.

python benchmarks/text.py [--tokens 400k] [--rounds 5] [--threads 1] [--bf16] [--only clbench,bare]

Every contestant is a whole process; rounds alternate. `loop` leaves start-up out; CPU seconds are of the whole process.
`default grid` evaluates continually as a run does by itself, on two domains, with 64 blocks each: its own share of the
time is what counts there. Data as clbench finds them (CLBENCH_DATA: the text sets english_novels and python_code).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

LOOPS = Path(__file__).parent / "text_loops.py"
MODEL = "byte-gpt?ctx=128,d=128,layers=4,heads=4"
ONE_DOMAIN = ["text-shift", "--set", "domains=english_novels", "--set", "context=128", "--set", "eval_blocks=16"]
TWO_DOMAINS = ["text-strong", "--set", "eval_blocks=64"]
TRAINING = ["lr=0.001", "batch_size=16", "epochs=1", "schedule=constant", "optimizer=adamw", "weight_decay=0.1"]


def contestants(options: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    common = ["--threads", str(options.threads)]
    ours = [sys.executable, "-m", "clbench", "run", "finetune"]
    run = ["--backbone", MODEL, "--quiet", "--json", "--no-tracking", "--out", str(folder / "results"), *common]
    run += [part for setting in [*TRAINING, "clip=1"] for part in ("--set", setting)]
    run += ["--set", f"tokens={options.tokens}", *(["--precision", "bf16"] if options.bf16 else [])]
    loop = [str(folder / "blocks.npz"), "--model", MODEL, *common, *(["--bf16"] if options.bf16 else [])]
    found = {
        "bare": [sys.executable, str(LOOPS), "bare", *loop],
        "clbench": [*ours, *ONE_DOMAIN, *run, "--eval-grid", "none"],
        "Trainer": [sys.executable, str(LOOPS), "trainer", *loop],
        "default grid": [*ours, *TWO_DOMAINS, *run, "--set", f"upstream_tokens={options.tokens}"],
    }
    chosen = options.only.split(",") if options.only else list(found)
    return {name: command for name, command in found.items() if name in chosen or name == "bare"}


def measure(name: str, command: list[str], folder: Path) -> dict[str, float]:
    environment = {**os.environ, "CLBENCH_CACHE": str(folder / "cache"), "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        out.seek(0)
        text = out.read().decode()
    if status:
        raise SystemExit(f"{name} failed: {' '.join(command)}")
    result = json.loads(text[text.rindex('{"wall"') :] if '{"wall"' in text else text[text.index("{") :])
    cost = result.get("cost", {})
    return {
        "loop s": result["loop"] if "loop" in result else cost["seconds_train"],
        "CPU s": usage.ru_utime + usage.ru_stime,
        "MB": usage.ru_maxrss / 1024,
        "evaluation": cost.get("trace_share", 0.0),
    }


def report(rounds: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> None:
    print(f"\n{options.tokens} tokens, {options.threads} thread(s), {'bf16' if options.bf16 else 'fp32'}; medians")
    print(f"{'':14}{'loop s':>9}{'CPU s':>9}{'MB':>7}{'loop/bare':>11}{'CPU/bare':>10}{'evaluation':>12}")
    for name, figures in rounds.items():
        middle = {key: median(f[key] for f in figures) for key in figures[0]}
        ratio = {
            k: median(f[k] / b[k] for f, b in zip(figures, rounds["bare"], strict=True)) for k in ("loop s", "CPU s")
        }
        print(
            f"{name:14}{middle['loop s']:9.2f}{middle['CPU s']:9.2f}{middle['MB']:7.0f}"
            f"{ratio['loop s']:11.3f}{ratio['CPU s']:10.3f}{middle['evaluation']:12.3f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", default="400k")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help="contestants besides bare, by commas")
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        blocks = [sys.executable, str(LOOPS), "blocks", str(folder / "blocks.npz"), "--tokens", options.tokens]
        subprocess.run(blocks, check=True)
        rounds: dict[str, list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for contestant, command in contestants(options, folder).items():
                rounds.setdefault(contestant, []).append(measure(contestant, command, folder))
        report(rounds, options)


if __name__ == "__main__":
    main()
