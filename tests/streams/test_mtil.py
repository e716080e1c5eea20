"""MTIL and X-TAIL: orders, shots, label spaces, sets that are evaluated before they come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clbench.errors import UserError
from clbench.stream import Stream
from clbench.streams.mtil import ORDER_I, ORDER_II

Build = Callable[..., Stream]


@pytest.fixture
def eleven(write_set: Callable[..., Path], tmp_path: Path) -> Path:
    """Small sets of the eleven names, two classes each, as folders of one folder; its path."""
    for seed, name in enumerate(ORDER_I):
        write_set(name, (f"{name} one", f"{name} two"), train=20, test=2, side=4, seed=seed)
    return tmp_path / "images"


def owners(stream: Stream) -> list[str]:
    assert stream.captions is not None
    return [stream.captions.dataset(task.classes[0]) for task in stream.tasks]


def test_the_second_order_is_the_published_one() -> None:
    assert sorted(ORDER_I) == ORDER_I and sorted(ORDER_II) == ORDER_I
    assert ORDER_II[:4] == ["stanford_cars", "food101", "mnist", "oxford_pet"]
    assert ORDER_II[-3:] == ["dtd", "eurosat", "cifar100"]


@pytest.mark.parametrize(("order", "names"), [("I", ORDER_I), ("II", ORDER_II)])
def test_sets_come_one_a_task_and_all_are_evaluated(build: Build, eleven: Path, order: str, names: list[str]) -> None:
    stream = build("mtil", 0, None, folder=str(eleven), order=order, size=4)
    assert owners(stream) == names == [task.name for task in stream.tasks]
    assert stream.mixture is None and stream.contrast.label_space == "own"
    assert [(s.name, s.belongs_to) for s in stream.eval_sets if not s.role] == [(f"task{i}", i) for i in range(11)]
    for task in stream.tasks:
        assert len(task.train) == 40
        (scored,) = (s for s in stream.eval_sets if s.belongs_to == task.index)
        assert set(scored.classes) == set(task.classes)
    assert owners(build("mtil", 7, None, folder=str(eleven), order=order, size=4)) == names


def test_x_tail_is_ten_sets_of_sixteen_shots_among_all_classes(build: Build, eleven: Path) -> None:
    stream = build("mtil", 0, None, folder=str(eleven), protocol="x-tail", size=4)
    assert owners(stream) == [name for name in ORDER_I if name != "cifar100"]
    assert stream.contrast.label_space == "union"
    assert all(len(task.train) == 32 for task in stream.tasks)
    assert [len(task.train) for task in build("mtil", 0, None, folder=str(eleven), shots=5, size=4).tasks] == [10] * 11


def test_other_sets_can_be_named(build: Build, eleven: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"sets": ["mnist", "dtd"], "size": 4}
    assert owners(build("mtil", 0, tmp_path, **settings)) == ["mnist", "dtd"]
    assert owners(build("mtil", 0, tmp_path, protocol="x-tail", **settings)) == ["mnist", "dtd"]
    with pytest.raises(UserError, match="order=II is one of the eleven"):
        build("mtil", 0, tmp_path, order="II", **settings)


def test_a_missing_set_is_named(build: Build, eleven: Path) -> None:
    with pytest.raises(UserError, match="there is no such file or folder"):
        build("mtil", 0, None, folder=str(eleven / "elsewhere"), size=4)
