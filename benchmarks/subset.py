"""The benchmark data: CIFAR-10 cut as the jobs want it, written once as .npz for the loops that are not clbench.

python benchmarks/subset.py OUT.npz --train 500 --test 250     (images per task; data found as clbench finds them)
"""

from __future__ import annotations

import argparse

import numpy as np

from clbench.registry import load_recipe


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--train", type=int, default=500)
    parser.add_argument("--test", type=int, default=250)
    options = parser.parse_args()
    recipe = load_recipe("split-cifar10")
    settings = recipe.Config(train_per_task=options.train, test_per_task=options.test, pad=0, flip=False)
    stream = recipe("split-cifar10", settings).build()
    arrays = {}
    for task, held in zip(stream.tasks, stream.eval_sets, strict=True):
        for name, samples in ((f"train{task.index}", task.train), (f"test{task.index}", held.data)):
            arrays[f"{name}_x"] = samples.pool.inputs[samples.index].numpy()
            arrays[f"{name}_y"] = samples.labels.numpy()
    np.savez(options.out, mean=np.array(stream.mean), std=np.array(stream.std), **arrays)


if __name__ == "__main__":
    main()
