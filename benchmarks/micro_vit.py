"""What micro-vit's features are worth: nearest class means and a linear probe, against the pixels and no training.

CLBENCH_DATA=FOLDER python benchmarks/micro_vit.py

CIFAR-10 and CIFAR-100, 10,000 training images of each (the first of every class), all test images, frozen features.
The probe is scikit-learn's logistic regression on standardised features, its strength chosen on a tenth of the
training images.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from clbench.data.images import ImageSet, load_images
from clbench.models import build_model
from clbench.transforms import Normalise

MODELS = ("pixels", "micro-vit?pretrained=false", "micro-vit")
SETS = {"cifar10": 1000, "cifar100": 100}
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)


def first_of_each_class(data: ImageSet, n: int) -> np.ndarray:
    return np.sort(np.concatenate([np.flatnonzero(data.y == c)[:n] for c in range(len(data.class_names))]))


@torch.no_grad()
def features(spec: str, data: ImageSet, rows: np.ndarray) -> np.ndarray:
    """float32 [len(rows), d]."""
    torch.manual_seed(0)
    model = build_model(spec, channels=3, size=32, mean=(0.5,) * 3, std=(0.25,) * 3).eval()
    normalise = Normalise(model.input.mean, model.input.std, 3, model.input.size)
    images = torch.from_numpy(data.x[rows])
    return torch.cat([model.features(normalise(part)) for part in images.split(64)]).numpy()


def nearest_mean(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> float:
    x, test_x = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, test_x))
    means = np.stack([x[y == c].mean(0) for c in np.unique(y)])
    return float(((2 * test_x @ means.T - (means**2).sum(1)).argmax(1) == test_y).mean())


def linear_probe(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> float:
    scale = StandardScaler().fit(x)
    x, test_x = scale.transform(x), scale.transform(test_x)
    held = np.arange(len(y)) % 10 == 0

    def fitted(strength: float, rows: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=strength, max_iter=300).fit(x[rows], y[rows])

    best = max(STRENGTHS, key=lambda c: fitted(c, ~held).score(x[held], y[held]))
    return float(fitted(best, np.ones_like(held)).score(test_x, test_y))


def main() -> None:
    print(f"{'set':10}{'model':30}{'nearest mean':>14}{'linear probe':>14}")
    for name, per_class in SETS.items():
        train, test = load_images(name, "train"), load_images(name, "test")
        rows, all_test = first_of_each_class(train, per_class), np.arange(len(test.y))
        for spec in MODELS:
            given = features(spec, train, rows), train.y[rows], features(spec, test, all_test), test.y
            print(f"{name:10}{spec:30}{nearest_mean(*given):14.3f}{linear_probe(*given):14.3f}", flush=True)


if __name__ == "__main__":
    main()
