"""Avalanche's benchmarks as streams, on small sets in the files that torchvision downloads."""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clbench.errors import UserError
from clbench.launch import start_run
from clbench.registry import load_recipe
from clbench.samples import Samples
from clbench.spec import make_spec
from clbench.stream import Stream

pytestmark = pytest.mark.skipif(
    find_spec("avalanche") is None, reason='Avalanche is not installed: pip install "clbench[avalanche]"'
)
TRAIN, TEST = 80, 40


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    """uint8 [120, 28, 28] and the ten classes in turn."""
    return np.random.default_rng(0).integers(0, 256, (TRAIN + TEST, 28, 28), dtype=np.uint8), np.arange(
        TRAIN + TEST
    ) % 10


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, images: tuple[np.ndarray, np.ndarray]) -> Path:
    """A data folder with these images as MNIST and as Fashion-MNIST."""
    folder = tmp_path_factory.mktemp("data")
    for name, kind in (("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")):
        raw = folder / "avalanche" / name / kind / "raw"
        raw.mkdir(parents=True)
        for part, rows in (("train", slice(0, TRAIN)), ("t10k", slice(TRAIN, None))):
            x, y = images[0][rows], images[1][rows].astype(np.uint8)
            head = struct.pack(">HBBIII", 0, 8, 3, *x.shape)
            (raw / f"{part}-images-idx3-ubyte").write_bytes(head + x.tobytes())
            (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, len(y)) + y.tobytes())
    return folder


def _build(root: Path, name: str, order_seed: int = 0, **settings: Any) -> Stream:
    recipe = load_recipe(f"avalanche:{name}")
    return recipe(f"avalanche:{name}", recipe.Config(**settings), order_seed=order_seed, data_root=root).build()


def _rows(samples: Samples) -> list[tuple[bytes, int]]:
    """Pixels and label of each sample, in an order that depends on nothing else."""
    images = samples.raw(torch.arange(len(samples))).numpy()
    return sorted(zip(map(bytes, images), samples.labels.tolist(), strict=True))


def _sorted(image: np.ndarray | bytes) -> bytes:
    return bytes(sorted(bytes(image)))


def test_classes_arrive_in_order(root: Path, images: tuple[np.ndarray, np.ndarray]) -> None:
    stream = _build(root, "SplitFMNIST", n_experiences=5)
    assert stream.scenario == "class" and stream.input_shape == (1, 28, 28) and stream.initial_classes == 0
    assert [task.classes for task in stream.tasks] == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    assert [task.new_classes for task in stream.tasks] == [task.classes for task in stream.tasks]
    assert stream.mean == (0.2860,)
    for task, tested in zip(stream.tasks, stream.eval_sets, strict=True):
        for samples, rows in ((task.train, slice(0, TRAIN)), (tested.data, slice(TRAIN, None))):
            x, y = images[0][rows], images[1][rows]
            here = np.isin(y, task.classes)
            assert _rows(samples) == sorted(zip(map(bytes, x[here]), y[here].tolist(), strict=True))


def test_the_order_seed_permutes_classes_and_keeps_the_content(root: Path) -> None:
    plain, first, again, other = (_build(root, "SplitMNIST", seed, n_experiences=5) for seed in (0, 1, 1, 2))
    assert plain.content == first.content == other.content
    assert len({plain.order, first.order, other.order}) == 3 and first.order == again.order
    assert first.classes is not None and first.classes.original != tuple(range(10))
    assert [task.classes for task in first.tasks] == [task.classes for task in plain.tasks]  # places in the head
    assert _build(root, "SplitMNIST", n_experiences=2).content != plain.content


def test_task_labels_make_a_task_incremental_stream(root: Path) -> None:
    assert _build(root, "SplitMNIST", n_experiences=5, return_task_id=True).scenario == "task"


def test_permutations_make_a_domain_incremental_stream(root: Path, images: tuple[np.ndarray, np.ndarray]) -> None:
    stream = _build(root, "PermutedMNIST", n_experiences=3)
    assert stream.scenario == "domain" and stream.initial_classes == 10
    first, second = (_rows(task.train) for task in stream.tasks[:2])
    assert first != second
    pixels = sorted(zip(map(_sorted, images[0][:TRAIN]), images[1][:TRAIN].tolist(), strict=True))
    assert sorted((_sorted(row), label) for row, label in first) == pixels
    assert _rows(_build(root, "PermutedMNIST", n_experiences=3).tasks[1].train) == second


def test_a_run_on_it(root: Path, tmp_path: Path) -> None:
    for strategy in ("finetune", "avalanche:Naive"):
        spec = {"strategy": strategy, "stream": "avalanche:SplitFMNIST", "stream_settings": {"n_experiences": 5}}
        spec |= {"strategy_settings": {"epochs": 1}, "threads": 1, "data_root": str(root), "eval_grid": "none"}
        folder, record = start_run(make_spec(spec), tmp_path)
        assert record["stream"]["name"] == "avalanche:SplitFMNIST" and folder.parents[1].name == "avalanche-SplitFMNIST"


def test_data_that_are_not_there_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(UserError, match=r"SplitMNIST: Avalanche cannot build it: .*its data belong in") as told:
        _build(tmp_path, "SplitMNIST", n_experiences=5)
    assert "\n" not in str(told.value)


def test_unknown_benchmarks_name_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean SplitMNIST"):
        load_recipe("avalanche:SplitMINST")
