"""Does cost grow linearly with the number of tasks? The same work in every task, in streams of 5, 20 and 50 tasks.

python benchmarks/tasks.py [--tasks 5,20,50] [--strategies finetune,replay] [--steps 50] [--model mlp] [--threads 1]

Each task is 320 generated images of its own class, 16 px, learned in the same number of steps. If nothing in the loop
depends on how many tasks lie behind, training seconds per step are the same in a stream's first and last tasks, and in
short streams and long ones. Evaluation is timed apart: every boundary scores all sets seen, so its samples grow with
the square of the tasks, and its milliseconds per image should stay the same. The default model is small, so that what
the engine adds to a step is a good part of it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from clbench.config import setting
from clbench.engine.reporter import Reporter
from clbench.launch import start_run
from clbench.samples import Pool, Samples
from clbench.spec import make_spec
from clbench.stream import EvalSet, Recipe, Stream, Task, Training

SIDE, TRAIN, TEST = 16, 320, 64


class ManyTasks(Recipe):
    """One class a task: noise around a pattern of the class. Made from a seed; nothing is read."""

    class Config(Recipe.Config):
        tasks: int = setting(5, "tasks of one class each", source="clbench", ge=1)

    def build(self) -> Stream:
        tasks, each = self.config.tasks, TRAIN + TEST
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(tasks).repeat_interleave(each)
        patterns = torch.randint(0, 256, (tasks, 3, SIDE, SIDE), generator=generator).float()
        noise = torch.randn(tasks * each, 3, SIDE, SIDE, generator=generator) * 64
        inputs = (patterns[labels] + noise).clamp(0, 255).to(torch.uint8)
        pool = Pool(inputs, labels, f"many-tasks-{tasks}")
        rows = torch.arange(tasks * each).view(tasks, each)
        return Stream(
            name="many-tasks",
            objective="classification",
            tasks=tuple(Task(i, f"task{i}", Samples(pool, rows[i, :TRAIN]), None, (i,), (i,)) for i in range(tasks)),
            eval_sets=tuple(EvalSet(f"task{i}", Samples(pool, rows[i, TRAIN:]), i, (i,)) for i in range(tasks)),
            content=f"many-tasks-{tasks}",
            order=f"many-tasks-{tasks}",
            input_shape=(3, SIDE, SIDE),
            scenario="class",
            mean=(0.5, 0.5, 0.5),
            std=(0.3, 0.3, 0.3),
            training=Training(optimizer="sgd", lr=0.03, batch_size=32, epochs=1),
            default_model="mlp",
        )


class Stopwatch(Reporter):
    """Seconds from one step to the next within a task, by task: evaluation and hooks at boundaries are not in them."""

    def __init__(self) -> None:
        self.seconds: dict[int, list[float]] = {}
        self._last = (-1, 0.0)

    def stepped(self, task: int, step: int, length: int, loss: Any) -> None:
        now = time.perf_counter()
        if self._last[0] == task:
            self.seconds.setdefault(task, []).append(now - self._last[1])
        self._last = (task, now)

    def step(self, tasks: range) -> float:
        """Median milliseconds of a step in these tasks."""
        return 1000 * statistics.median(s for task in tasks for s in self.seconds[task])


def measure(strategy: str, model: str, tasks: int, steps: int, threads: int) -> tuple[float, ...]:
    """Milliseconds: of a step in the first tasks, of one in the last, of all training per step (hooks included), of
    evaluation per image scored; then the seconds of training and of evaluation."""
    watch = Stopwatch()
    spec = make_spec(
        {
            "strategy": strategy,
            "stream": f"{__file__}:ManyTasks",
            "stream_settings": {"tasks": tasks},
            "strategy_settings": {"steps": steps},
            "backbone": model,
            "eval_grid": "none",
            "threads": threads,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        _, record = start_run(spec, Path(folder), watch, checkpoint_every=10**9)
    cost = record["cost"]
    few = min(5, tasks)
    return (
        watch.step(range(few)),
        watch.step(range(tasks - few, tasks)),
        1000 * cost["seconds_train"] / cost["steps"],
        1000 * cost["seconds_evaluate"] / cost["samples_evaluate"],
        cost["seconds_train"],
        cost["seconds_evaluate"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="5,20,50")
    parser.add_argument("--strategies", default="finetune,replay")
    parser.add_argument("--steps", type=int, default=50, help="per task, at least 2")
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.environ["CLBENCH_TRACKING"] = "off"
    heads = ("first tasks", "last tasks", "all", "eval/image", "training", "evaluation")
    units = ("ms/step", "ms/step", "ms/step", "ms", "s", "s")
    print(f"{'':14}{'tasks':>6}" + "".join(f"{head:>13}" for head in heads))
    print(f"{'':20}" + "".join(f"{unit:>13}" for unit in units))
    measure("finetune", options.model, 2, 5, options.threads)  # imports and kernels are ready afterwards
    for strategy in options.strategies.split(","):
        for tasks in map(int, options.tasks.split(",")):
            figures = measure(strategy, options.model, tasks, options.steps, options.threads)
            print(f"{strategy:14}{tasks:6}" + "".join(f"{figure:13.3f}" for figure in figures), flush=True)


if __name__ == "__main__":
    main()
