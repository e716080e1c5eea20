"""The split streams: tasks, labels, hashes, and what they say about bad settings and data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clbench.data import cache
from clbench.data.layout import write_image_set
from clbench.errors import UserError
from clbench.samples import Samples
from clbench.stream import Stream
from clbench.streams.image_data import read_images

CLASSES = ("ant", "bee", "cat", "dog", "elk")


def content(samples: Samples) -> list[bytes]:
    """The images of a selection, in its order."""
    return [row.numpy().tobytes() for row in samples.raw(torch.arange(len(samples)))]


def make_up(stream: Stream) -> list[Any]:
    """All that a run sees of a stream: images and labels of every task and evaluation set, in order."""
    parts = [
        *(t.train for t in stream.tasks),
        *(t.validation for t in stream.tasks),
        *(e.data for e in stream.eval_sets),
    ]
    return [(content(part), part.labels.tolist()) for part in parts if part is not None]


def test_digits_come_in_five_tasks_of_two(build) -> None:
    stream = build("split-digits")
    assert [task.classes for task in stream.tasks] == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    assert sum(len(task.train) for task in stream.tasks) == 1352
    assert sum(len(each.data) for each in stream.eval_sets) == 445
    assert stream.input_shape == (1, 8, 8)
    assert (stream.scenario, stream.initial_classes, stream.single_pass) == ("class", 0, False)
    assert stream.classes.names == tuple("0123456789")
    assert (stream.default_model, stream.feature_model) == ("mlp", "pixels")


@pytest.mark.parametrize("settings", [{}, {"sizes": [3, 5, 2]}, {"base": 4, "tasks": 3}, {"tasks": 1}])
@pytest.mark.parametrize("order_seed", [0, 7])
def test_tasks_are_disjoint_and_hold_their_classes(build, settings: dict, order_seed: int) -> None:
    stream = build("split-digits", order_seed, validation=0.1, **settings)
    rows = torch.cat([s.index for task in stream.tasks for s in (task.train, task.validation)])
    assert sorted(rows.tolist()) == list(range(1352))
    seen = 0
    for task, each in zip(stream.tasks, stream.eval_sets, strict=True):
        assert task.classes == task.new_classes == each.classes == tuple(range(seen, seen + len(task.classes)))
        for samples in (task.train, task.validation, each.data):
            assert tuple(samples.labels.unique().tolist()) == task.classes
        assert each.belongs_to == task.index
        seen += len(task.classes)
    assert seen == 10


def test_labels_name_the_class_that_the_source_names(build) -> None:
    stream = build("split-digits", 1993)
    assert stream.classes.original == tuple(np.random.RandomState(1993).permutation(10).tolist())
    data = read_images("digits", None)
    for task in stream.tasks:
        sources = data.train.y[task.train.index.numpy()]
        named = [data.class_names[source] for source in sources]
        assert named == [stream.classes.names[label] for label in task.train.labels.tolist()]


def test_a_run_sees_the_same_whatever_the_order_of_rows_and_the_place(build, write_set, tmp_path: Path) -> None:
    here = write_set("bugs", root=tmp_path / "here")
    there = write_set("bugs", root=tmp_path / "there" / "deeper", shuffle=5)
    settings = {"validation": 0.2, "train_per_task": 30, "disjoint": 0.4, "blur": 0.5, "tasks": 2}
    streams = [build("split-files", 3, path="bugs", root=root, **settings) for root in (here, there)]
    assert streams[0].content == streams[1].content
    assert streams[0].order == streams[1].order
    assert make_up(streams[0]) == make_up(streams[1])
    assert streams[0].tasks[0].train.pool.fingerprint != streams[1].tasks[0].train.pool.fingerprint


def test_content_ignores_the_order_seed_and_order_does_not(build) -> None:
    streams = [build("split-digits", seed) for seed in (0, 0, 1, 2)]
    assert len({stream.content for stream in streams}) == 1
    assert len({stream.order for stream in streams}) == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"tasks": 2},
        {"sizes": [2, 2, 2, 3, 1]},
        {"validation": 0.1},
        {"train_per_class": 20},
        {"test_per_class": 20},
        {"train_per_task": 40},
        {"scenario": "task"},
        {"online": True},
        {"disjoint": 0.5},
        {"size": 16},
        {"channels": 3},
        {"pad": 1},
        {"flip": True},
    ],
)
def test_content_changes_with_every_setting(build, settings: dict) -> None:
    assert build("split-digits", **settings).content != build("split-digits").content


def test_content_is_that_of_what_is_built_not_of_how_it_was_said(build) -> None:
    assert build("split-digits", sizes=[2, 2, 2, 2, 2]).content == build("split-digits").content
    assert build("split-digits", blur=0.9).content == build("split-digits").content


def test_content_and_order_change_with_the_data(build, write_set, tmp_path: Path) -> None:
    streams = [
        build("split-files", path="bugs", root=write_set("bugs", root=tmp_path / "a")),
        build("split-files", path="bugs", root=write_set("bugs", root=tmp_path / "b", seed=1)),
        build("split-files", path="bugs", root=write_set("bugs", (*CLASSES[:4], "eel"), root=tmp_path / "c")),
    ]
    assert len({stream.content for stream in streams}) == 3
    assert len({stream.order for stream in streams}) == 3


def test_which_images_are_used_does_not_depend_on_the_order_seed(build) -> None:
    def used(seed: int) -> set[bytes]:
        stream = build("split-digits", seed, train_per_task=40, validation=0.25)
        return {row for task in stream.tasks for row in content(task.train)}

    assert len(used(0)) == 150
    assert used(0) == used(4)


def test_limits_and_validation(build) -> None:
    stream = build("split-digits", train_per_class=20, test_per_task=30, validation=0.25)
    for task, each in zip(stream.tasks, stream.eval_sets, strict=True):
        assert task.train.labels.bincount()[list(task.classes)].tolist() == [15, 15]
        assert task.validation.labels.bincount()[list(task.classes)].tolist() == [5, 5]
        assert each.data.labels.bincount()[list(each.classes)].tolist() == [15, 15]


def test_blurry_streams_use_every_row_once_and_number_classes_by_arrival(build) -> None:
    stream = build("split-digits", 2, disjoint=0.5, blur=0.4)
    rows = torch.cat([task.train.index for task in stream.tasks])
    assert sorted(rows.tolist()) == list(range(1352))
    tasks_of = {c: [t.index for t in stream.tasks if c in t.classes] for c in range(10)}
    home = {c: e.belongs_to for e in stream.eval_sets for c in e.classes}
    assert sum(len(tasks) == 1 for tasks in tasks_of.values()) == 5
    assert all(home[c] in tasks for c, tasks in tasks_of.items())
    arrived = [c for task in stream.tasks for c in task.new_classes]
    assert arrived == list(range(10))
    for task in stream.tasks:
        assert task.classes == tuple(task.train.labels.unique().tolist())
    moved = sum((home[int(c)] != task.index) for task in stream.tasks for c in task.train.labels)
    assert 0.1 * 1352 < moved < 0.2 * 1352  # half the classes, 40 % of their rows, one in five of them comes home
    assert stream.order != build("split-digits", 3, disjoint=0.5, blur=0.4).order


def test_online_scenario_and_augmentation_reach_the_stream(build) -> None:
    stream = build("split-digits", online=True, scenario="task", pad=1, flip=True)
    assert stream.single_pass
    assert stream.training.epochs == 1 < build("split-digits").training.epochs
    assert stream.scenario == "task"
    assert (stream.augmentation.pad, stream.augmentation.flip) == (1, True)


def test_size_and_channels_of_the_digits(build) -> None:
    stream = build("split-digits", size=12, channels=3)
    x = stream.tasks[0].train.raw(torch.arange(4))
    assert stream.input_shape == tuple(x.shape[1:]) == (3, 12, 12)
    assert (x[:, 0] == x[:, 2]).all()
    assert len(stream.mean) == len(stream.std) == 3


def test_files_by_folder_of_images(build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    for split, n in (("train", 4), ("test", 2)):
        for name in ("up", "down", "left"):
            folder = tmp_path / "mine" / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    stream = build("split-files", path=str(tmp_path / "mine"), tasks=2, size=8)
    assert stream.classes.names == ("down", "left", "up")
    assert [len(task.train) for task in stream.tasks] == [8, 4]
    assert stream.input_shape == (3, 8, 8)


def test_images_are_not_copied_into_the_pool(write_set) -> None:
    data = read_images("bugs", write_set("bugs"))
    pool = data.train.pool(np.arange(5))
    assert pool.inputs.data_ptr() == data.train.x.ctypes.data


def test_mapped_images_stay_on_disk_and_make_the_same_stream(build, write_set, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_set("bugs")
    loaded = build("split-files", path="bugs")
    monkeypatch.setattr(cache, "MAP_SHARE", 0.0)
    data = read_images("bugs", root)
    assert isinstance(data.train.x, np.memmap)
    assert data.train.pool(np.arange(5)).inputs.data_ptr() == data.train.x.ctypes.data
    mapped = build("split-files", path="bugs")
    assert (mapped.content, mapped.order) == (loaded.content, loaded.order)
    assert make_up(mapped) == make_up(loaded)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": 11}, "more tasks than classes"),
        ({"sizes": [3, 3]}, "add up to 6"),
        ({"sizes": [5, 5], "base": 2}, "leave out tasks and base"),
        ({"base": 10}, "none is left"),
        ({"validation": 1.0}, "validation=1.0"),
        ({"validation": 0.999}, "class '0' has 134 training rows"),
        ({"blur": 1.5}, "blur=1.5"),
        ({"disjoint": -0.1}, "disjoint=-0.1"),
        ({"scenario": "task", "disjoint": 0.5}, "leave out disjoint"),
        ({"scenario": "domain"}, "scenario='domain'"),
        ({"train_per_task": 1}, "has no training rows"),
        ({"test_per_task": 1}, "has no test rows"),
        ({"task": 2}, "did you mean tasks"),
        ({"channels": 2}, "channels=2"),
    ],
)
def test_bad_settings_are_told_in_one_line(build, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        build("split-digits", **settings)
    assert "\n" not in str(error.value)


def test_missing_and_unusable_data(build, write_set, tmp_path: Path) -> None:
    write_set("beetles", ["only"])
    with pytest.raises(UserError, match="did you mean beetles"):
        build("split-files", path="beatles")
    with pytest.raises(UserError, match="1 class; a stream of classes needs 2"):
        build("split-files", path="beetles")
    with pytest.raises(UserError, match="path=NAME"):
        build("split-files")
    with pytest.raises(UserError, match="no image set 'cifar100'"):
        build("split-cifar100")


def test_labels_out_of_range_and_empty_classes(build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    x = np.random.default_rng(0).integers(0, 256, (6, 3, 6, 6), dtype=np.uint8)
    for split in ("train", "test"):
        write_image_set(tmp_path / "images" / "hollow", split, x, np.array([0, 1, 0, 1, 0, 1]), ["a", "b", "c"])
    with pytest.raises(UserError, match=r"class 'c'.*has no images"):
        build("split-files", path="hollow")
    write_image_set(tmp_path / "images" / "wild", "train", x, np.array([0, 1, 0, 7, 0, 1]), ["a", "b"])
    with pytest.raises(UserError, match="label 7 is out of range"):
        build("split-files", path="wild")


@pytest.mark.parametrize("name", ["split-mnist", pytest.param("split-cifar100", marks=pytest.mark.slow)])
def test_real_sets(build, real_data: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    if not (real_data / "images" / name.removeprefix("split-")).is_dir():
        pytest.skip(f"CLBENCH_DATA does not hold the data of {name}")
    stream = build(name, 1993, root=real_data)
    n = len(stream.classes.names)
    assert stream.classes.original == tuple(np.random.RandomState(1993).permutation(n).tolist())
    assert [len(task.classes) for task in stream.tasks] == {10: [2] * 5, 100: [10] * 10}[n]
    train = Samples.union([task.train for task in stream.tasks])
    data = train.raw(torch.arange(0, len(train), 7)).float() / 255
    assert torch.allclose(data.mean((0, 2, 3)), torch.tensor(stream.mean), atol=0.01)
    assert torch.allclose(data.std((0, 2, 3)), torch.tensor(stream.std), atol=0.01)
