"""Squared per-sample gradients of 500 samples: seconds of clbench's, vmap over all parameters, a loop over samples,
and the usual shortcut (one gradient a batch of 32, squared: not the same quantity).

    python benchmarks/per_sample_fisher.py [--model slim-resnet18] [--samples 500] [--size 32] [--threads 2]

Prints the median of interleaved repetitions and each way's ratio to the batch loop.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from clbench.gradients import _PerSample, squared_gradients
from clbench.models import build_model
from clbench.objectives import Objective, build_objective
from clbench.samples import Batch
from clbench.stream import Stream

Way = Callable[[nn.Module, Objective, list[Batch]], None]


def closed_form(model: nn.Module, objective: Objective, batches: list[Batch]) -> None:
    squared_gradients(model, objective, batches)


def vmap_only(model: nn.Module, objective: Objective, batches: list[Batch]) -> None:
    model.eval()
    per_sample = _PerSample(model, objective)
    for batch in batches:
        for x, y in zip(batch.x.split(16), batch.y.split(16), strict=True):
            per_sample.generic(per_sample.parameters, x, y)


def sample_loop(model: nn.Module, objective: Objective, batches: list[Batch]) -> None:
    _loop(model, objective, batches, 1)


def batch_loop(model: nn.Module, objective: Objective, batches: list[Batch]) -> None:
    _loop(model, objective, batches, 32)


def _loop(model: nn.Module, objective: Objective, batches: list[Batch], size: int) -> None:
    model.eval()
    total = [torch.zeros_like(p) for p in model.parameters()]
    for batch in batches:
        for x, y in zip(batch.x.split(size), batch.y.split(size), strict=True):
            model.zero_grad()
            objective.losses(model(x), y).mean().backward()
            for square, p in zip(total, model.parameters(), strict=True):
                if p.grad is not None:
                    square += p.grad**2


WAYS: dict[str, Way] = {
    "clbench": closed_form,
    "vmap": vmap_only,
    "sample loop": sample_loop,
    "batch-mean loop": batch_loop,
}


def job(spec: str, n: int, size: int) -> tuple[nn.Module, Objective, list[Batch]]:
    """A model with ten classes (or 256 bytes) and random inputs in batches of 64."""
    if spec.startswith("byte-gpt"):
        stream = Stream("job", "language_modeling", (), (), "", "", (size,), vocabulary=257)
        model = build_model(spec, channels=0, size=size, mean=(), std=(), vocab_size=257)
        x = torch.randint(0, 257, (n, size))
        y = x.roll(-1, 1)
    else:
        channels = 3
        stats = (0.5,) * channels
        stream = Stream("job", "classification", (), (), "", "", (channels, size, size), mean=stats, std=stats)
        model = build_model(spec, channels=channels, size=size, mean=stats, std=stats)
        model.grow(10)  # type: ignore[operator]
        x, y = torch.randn(n, channels, size, size), torch.randint(0, 10, (n,))
    index = torch.arange(n)
    batches = [Batch(x=x[i], y=y[i], raw=x[i], labels=index[i], index=index[i]) for i in index.split(64)]
    return model, build_objective(stream), batches


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="slim-resnet18")
    options.add_argument("--samples", type=int, default=500)
    options.add_argument("--size", type=int, default=32, help="image side, or tokens of a block")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--repetitions", type=int, default=3)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    model, objective, batches = job(given.model, given.samples, given.size)
    for way in WAYS.values():
        way(model, objective, batches[:1])
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(given.repetitions):
        for name, way in WAYS.items():
            start = time.perf_counter()
            way(model, objective, batches)
            seconds[name].append(time.perf_counter() - start)
    reference = statistics.median(seconds["batch-mean loop"])
    print(f"{given.model}, {given.samples} samples of size {given.size}, {given.threads} threads")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:16} {median:8.3f} s   {median / reference:6.2f} x the batch-mean loop")


if __name__ == "__main__":
    main()
