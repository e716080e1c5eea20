"""The same jobs in Avalanche (its own environment: pip install -c constraints.txt avalanche-lib). One JSON line.

python benchmarks/avalanche_jobs.py J1|J2|J3|J5 DATA.npz [--threads 2]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time

START = time.perf_counter()

import numpy as np
import torch

library = torch.library.Library("torchvision", "DEF")  # PyPI's torchvision beside a CPU torch
for operator in ("nms", "qnms"):
    with contextlib.suppress(RuntimeError):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.models import SlimResNet18
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.plugins.ewc import EWCPlugin
from avalanche.training.storage_policy import ReservoirSamplingBuffer
from avalanche.training.supervised import Naive
from torch.utils.data import Dataset


class Images(Dataset):
    """Normalised tensors, as cheap as Avalanche's data path allows."""

    def __init__(self, x: np.ndarray, y: np.ndarray, mean: np.ndarray, std: np.ndarray) -> None:
        shape = (1, 3, 1, 1)
        self.x = (torch.from_numpy(x).float() / 255 - torch.tensor(mean).float().view(shape)) / torch.tensor(
            std
        ).float().view(shape)
        self.targets = y.tolist()

    def __getitem__(self, i: int):  # type: ignore[no-untyped-def]
        return self.x[i], self.targets[i]

    def __len__(self) -> int:
        return len(self.targets)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=["J1", "J2", "J3", "J5"])
    parser.add_argument("data")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    a = np.load(options.data)

    def sets(kind: str) -> list:  # type: ignore[type-arg]
        return [
            as_classification_dataset(Images(a[f"{kind}{t}_x"], a[f"{kind}{t}_y"], a["mean"], a["std"]))
            for t in range(5)
        ]

    benchmark = benchmark_from_datasets(train=sets("train"), test=sets("test"))
    model = SlimResNet18(10)
    plugins = []
    if options.job == "J2":
        plugins = [ReplayPlugin(500, storage_policy=ReservoirSamplingBuffer(500))]
    if options.job == "J5":
        plugins = [EWCPlugin(10.0, mode="online", decay_factor=1.0)]
    strategy = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.03),
        train_mb_size=32,
        eval_mb_size=64,
        train_epochs=1,
        plugins=plugins,
        evaluator=EvaluationPlugin(accuracy_metrics(stream=True, experience=True), loggers=[]),
        eval_every=1 if options.job == "J3" else -1,
        **({"peval_mode": "iteration"} if options.job == "J3" else {}),
    )
    tests, result = benchmark.test_stream, {}
    for experience in benchmark.train_stream:
        t = experience.current_experience
        strategy.train(experience, eval_streams=[tests[: t + 1]] if options.job == "J3" else [])
        result = strategy.eval(tests[: t + 1])
    final = {k: v for k, v in result.items() if "Top1_Acc_Stream" in k}
    print(json.dumps({"final": final, "seconds": time.perf_counter() - START}))


if __name__ == "__main__":
    main()
