"""The streams of published photo sets: tasks, splits, classes and notes, on small folders in the official form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clbench.errors import UserError
from clbench.stream import Stream

SMALL = {"size": 8, "resize": 9}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))


def sizes(stream: Stream) -> list[int]:
    return [len(task.classes) for task in stream.tasks]


def test_cub_has_ten_tasks_and_seed_1993_gives_the_usual_order(build, published_sets: Any, tmp_path: Path) -> None:
    names = [f"{n:03}.Bird" for n in range(1, 201)]
    published_sets.cub200(tmp_path / "images" / "cub200", names, per_class=2)
    stream = build("split-cub200", 1993, **SMALL)
    assert sizes(stream) == [20] * 10
    assert stream.classes.original == tuple(np.random.RandomState(1993).permutation(200).tolist())
    assert stream.input_shape == (3, 8, 8) and "CUB" in stream.pretraining_overlap
    assert (stream.augmentation.crop, stream.augmentation.flip) == (0.5, True)


def test_cub_from_class_folders_is_other_content(build, published_sets: Any, tmp_path: Path) -> None:
    folder = tmp_path / "images" / "cub200"
    rows = published_sets.cub200(folder)
    for row in rows:
        split = "train" if row.label == 1 or row.training == "0" else "test"
        for place in (split, "test" if row.file.split("_")[-2] == "0" else split):
            (folder / place / row.bird).mkdir(parents=True, exist_ok=True)
            (folder / place / row.file).write_bytes((folder / "images" / row.file).read_bytes())
    official = build("split-cub200", tasks=1, **SMALL)
    folders = build("split-cub200", tasks=1, layout="folders", **SMALL)
    assert official.content != folders.content


def test_cars_start_with_sixteen_classes(build, published_sets: Any, tmp_path: Path) -> None:
    published_sets.cars_devkit(tmp_path / "images" / "cars196", classes=196, train=196, test=196)
    stream = build("split-cars196", **SMALL)
    assert sizes(stream) == [16] + [20] * 9
    assert stream.classes.names[:2] == ("Maker 0 Model/0 2012", "Maker 1 Model/1 2012")


def test_the_splits_of_imagenet_r_are_streams_of_their_own(build, published_sets: Any, tmp_path: Path) -> None:
    folder = tmp_path / "images" / "imagenet_r"
    published_sets.imagenet_r(folder)
    ours = build("split-imagenet-r", tasks=3, **SMALL)
    coda = build("split-imagenet-r-coda", tasks=3, **SMALL)
    assert ours.content != coda.content
    assert sum(len(task.train) for task in ours.tasks) == 12 and sum(len(e.data) for e in ours.eval_sets) == 3
    assert "ImageNet-1k" in ours.pretraining_overlap == coda.pretraining_overlap
    with pytest.raises(UserError, match=r"no .*train.*LAMDA-PILOT"):
        build("split-imagenet-r-pilot", tasks=3, **SMALL)
    for split, count in (("train", 2), ("test", 1)):
        for wnid in ("n01443537", "n01484850"):
            for i in range(count):
                path = folder / split / wnid / f"{i}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes((folder / "imagenet-r" / wnid / f"art_{i}.jpg").read_bytes())
    assert sum(len(task.train) for task in build("split-imagenet-r-pilot", tasks=2, **SMALL).tasks) == 4


@pytest.mark.parametrize("stream", ["split-imagenet-r", "split-cub200", "split-cars196", "core50-nc", "core50-ni"])
def test_without_the_files_one_line_says_what_to_fetch(build, stream: str) -> None:
    with pytest.raises(UserError, match=r"fetch .* unpack .*images") as caught:
        build(stream)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def core50(published_sets: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("core50")
    published_sets.core50(root / "images" / "core50", runs=2)
    return root


def test_core50_nc_takes_ten_objects_and_then_five_at_a_time(build, core50: Path) -> None:
    stream = build("core50-nc", root=core50, size=8)
    assert sizes(stream) == [10] + [5] * 8
    assert stream.classes.names[:6] == (*(f"plug adapter {n}" for n in range(1, 6)), "mobile phone 1")
    for task, each in zip(stream.tasks, stream.eval_sets, strict=True):
        train, test = (s.raw(torch.arange(len(s)))[:, 0, 0, 0].unique().tolist() for s in (task.train, each.data))
        assert train == [1, 2, 4, 5, 6, 8, 9, 11] and test == [3, 7, 10]


def test_core50_nc_follows_a_published_run(build, core50: Path) -> None:
    for run in (0, 1):
        stream = build("core50-nc", root=core50, size=8, run=run)
        order = np.random.RandomState(run).permutation(50)  # as published_sets wrote the lists
        assert stream.classes.original == tuple(order.tolist()) and sizes(stream) == [10] + [5] * 8
    with pytest.raises(UserError, match=r"batches_filelists\.zip"):
        build("core50-nc", root=core50, size=8, run=2)
    with pytest.raises(UserError, match="order seed"):
        build("core50-nc", 3, root=core50, size=8, run=1)
    with pytest.raises(UserError, match="leave out"):
        build("core50-nc", root=core50, size=8, run=1, tasks=4)


@pytest.mark.parametrize(("level", "classes"), [("object", 50), ("category", 10)])
def test_core50_ni_has_a_session_a_task_and_deals_out_its_test_data(
    build, core50: Path, level: str, classes: int
) -> None:
    stream = build("core50-ni", root=core50, size=8, level=level)
    assert [task.name for task in stream.tasks] == ["s1", "s2", "s4", "s5", "s6", "s8", "s9", "s11"]
    assert (stream.scenario, stream.initial_classes, len(stream.classes.names)) == ("domain", classes, classes)
    for task in stream.tasks:
        raw = task.train.raw(torch.arange(len(task.train)))
        assert raw[:, 0, 0, 0].unique().tolist() == [int(task.name[1:])]
        objects = raw[:, 1, 0, 0].long() - 1
        assert torch.equal(task.train.labels, objects if level == "object" else objects // 5)
    rows = torch.cat([each.data.index for each in stream.eval_sets])
    assert sorted(rows.tolist()) == list(range(3 * 50 * 2))  # each test image once
    lengths = [len(each.data) for each in stream.eval_sets]
    assert max(lengths) - min(lengths) <= 8


def test_core50_ni_permutes_sessions_and_not_what_is_in_them(build, core50: Path) -> None:
    stream, other = build("core50-ni", root=core50, size=8), build("core50-ni", 5, root=core50, size=8)
    assert stream.content == other.content and stream.order != other.order
    assert {task.name for task in stream.tasks} == {task.name for task in other.tasks}


def test_overlap_with_pretraining_data_is_shown_recorded_and_found_by_name(finished_results: Path) -> None:
    from clbench import catalogue
    from clbench.runs import iter_records
    from clbench.streams.pretraining import CIFAR, CUB, PACS, overlap

    assert catalogue.find("stream", "split-cifar100").pretraining_overlap == CIFAR
    assert catalogue.find("stream", "split-digits").as_dict(whole=True)["pretraining_overlap"] == ""
    assert overlap(["pacs_photo", "PACS-sketch"]) == PACS
    assert overlap(["cub200:folders", "unheard-of", "pacs_photo"]) == f"{CUB}; {PACS}"
    assert {record["stream"]["pretraining_overlap"] for _, record in iter_records(finished_results)} == {""}


def test_any_set_brings_its_note(build, write_set) -> None:
    root = write_set("cifar10")
    assert "ImageNet" in build("split-files", path="cifar10", root=root).pretraining_overlap
    assert build("split-files", path="digits").pretraining_overlap == ""
    assert "ImageNet" in build("domains", sets=["cifar10"], root=root).pretraining_overlap
