"""The domain streams: shared labels, transforms, class matching, held-out sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clbench.errors import UserError
from clbench.streams.warping import permuted, rotated

WARPED = ("rotated-digits", "permuted-digits")


@pytest.mark.parametrize("name", WARPED)
def test_domains_share_their_labels(build, name: str) -> None:
    stream = build(name, validation=0.1)
    assert (stream.scenario, stream.initial_classes, len(stream.tasks)) == ("domain", 10, 5)
    assert stream.tasks[0].new_classes == tuple(range(10))
    assert all(task.new_classes == () for task in stream.tasks[1:])
    for task, each in zip(stream.tasks, stream.eval_sets, strict=True):
        assert task.name == each.name
        assert task.classes == each.classes == tuple(range(10))
        assert len(task.train) + len(task.validation) == 1352
        assert task.train.labels.bincount().tolist() == stream.tasks[0].train.labels.bincount().tolist()
    rows = torch.cat([task.train.index for task in stream.tasks])
    assert len(rows.unique()) == len(rows)


@pytest.mark.parametrize("name", WARPED)
def test_the_order_seed_permutes_domains_and_changes_none(build, name: str) -> None:
    plain, shuffled = build(name), build(name, 3)
    assert plain.content == shuffled.content
    assert plain.order != shuffled.order
    order = np.random.RandomState(3).permutation(5)
    assert [t.name for t in shuffled.tasks] == [plain.tasks[i].name for i in order]
    for task in shuffled.tasks:
        same = next(t for t in plain.tasks if t.name == task.name)
        assert torch.equal(task.train.raw(torch.arange(50)), same.train.raw(torch.arange(50)))
        assert torch.equal(task.train.labels, same.train.labels)


def test_a_limited_domain_is_a_part_of_the_whole(build) -> None:
    whole, part = build("rotated-digits"), build("rotated-digits", train_per_task=100, test_per_class=5)
    for large, small, test in zip(whole.tasks, part.tasks, part.eval_sets, strict=True):
        rows = {row.numpy().tobytes() for row in large.train.raw(torch.arange(len(large.train)))}
        assert {row.numpy().tobytes() for row in small.train.raw(torch.arange(100))} <= rows
        assert small.train.labels.bincount().tolist() == [10] * 10
        assert test.data.labels.bincount().tolist() == [5] * 10


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("rotated-digits", {"angles": [0, 30]}),
        ("rotated-digits", {"span": 90}),
        ("permuted-digits", {"tasks": 3}),
        ("permuted-digits", {"permutation_seed": 1}),
        ("rotated-digits", {"train_per_class": 30}),
        ("rotated-digits", {"size": 16}),
        ("permuted-digits", {"channels": 3}),
        ("permuted-digits", {"validation": 0.1}),
        ("permuted-digits", {"online": True}),
    ],
)
def test_content_changes_with_every_setting(build, name: str, settings: dict) -> None:
    assert build(name, **settings).content != build(name).content


def test_angles_are_the_names_of_the_domains(build) -> None:
    assert [t.name for t in build("rotated-digits", tasks=4).tasks] == [f"rotated-{a}" for a in (0, 45, 90, 135)]
    assert [t.name for t in build("rotated-digits", angles=[10.5, 0]).tasks] == ["rotated-10.5", "rotated-0"]


def test_quarter_turns_are_exact_and_others_stay_close() -> None:
    x = np.random.default_rng(0).integers(0, 256, (5000, 1, 8, 8), dtype=np.uint8)
    assert (rotated(x, 0) == x).all()
    assert (rotated(x, 90) == np.rot90(x, axes=(2, 3))).all()
    assert (rotated(x, 180) == x[:, :, ::-1, ::-1]).all()
    dot = np.zeros((1, 1, 21, 21), np.uint8)
    dot[0, 0, 10, 18] = 255  # on the right; turned anticlockwise by 45 degrees it stands at the top right
    turned = rotated(dot, 45)[0, 0].astype(float)
    row, column = np.average(np.indices((21, 21)), axis=(1, 2), weights=np.broadcast_to(turned, (21, 21)))
    assert abs(row - (10 - 8 / 2**0.5)) < 0.5
    assert abs(column - (10 + 8 / 2**0.5)) < 0.5


def test_permutations_keep_the_pixels_and_differ() -> None:
    x = np.random.default_rng(0).integers(0, 256, (20, 3, 6, 6), dtype=np.uint8)
    assert (permuted(x, 0, 0) == x).all()
    one, two, other = permuted(x, 1, 0), permuted(x, 2, 0), permuted(x, 1, 1)
    for y in (one, two, other):
        assert (np.sort(y.reshape(20, 3, -1)) == np.sort(x.reshape(20, 3, -1))).all()
        assert not (y == x).all()
    assert not (one == two).all()
    assert not (one == other).all()
    grey = permuted(x[:, :1], 1, 0)
    assert (grey[:, 0] == one[:, 0]).all()


def test_sets_are_matched_by_class_name(build, write_set) -> None:
    write_set("photo", ["ant", "bee", "cat"])
    write_set("sketch", ["cat", "ant", "bee"], seed=1)
    write_set("clay", ["bee", "cat", "ant"], seed=2, side=9, train=7)
    stream = build("domains", sets=["photo", "sketch"], held_out=["clay"])
    assert stream.classes.names == ("ant", "bee", "cat")
    assert [(e.name, e.belongs_to) for e in stream.eval_sets] == [("photo", 0), ("sketch", 1), ("clay", None)]
    assert stream.input_shape == (3, 6, 6)
    assert len({id(e.data.pool) for e in stream.eval_sets}) == 1
    swapped = build("split-files", path="sketch", tasks=1)
    for name in ("ant", "bee", "cat"):
        label, other = stream.classes.names.index(name), swapped.classes.names.index(name)
        ours, theirs = stream.eval_sets[1].data, swapped.eval_sets[0].data
        one = ours.raw(torch.nonzero(ours.labels == label).flatten())
        two = theirs.raw(torch.nonzero(theirs.labels == other).flatten())
        assert torch.equal(one, two)


def test_domain_content_ignores_the_order_of_the_list_of_equal_sets(build, write_set, tmp_path: Path) -> None:
    for place, shuffle in (("x", 0), ("y", 3)):
        write_set("photo", ["ant", "bee"], root=tmp_path / place, shuffle=shuffle)
        write_set("sketch", ["ant", "bee"], root=tmp_path / place, shuffle=shuffle, seed=1)
    one = build("domains", sets=["photo", "sketch"], root=tmp_path / "x")
    two = build("domains", sets=["photo", "sketch"], root=tmp_path / "y")
    turned = build("domains", sets=["sketch", "photo"], root=tmp_path / "x")
    assert (one.content, one.order) == (two.content, two.order)
    assert one.content == turned.content
    assert one.order != turned.order
    assert one.content != build("domains", sets=["photo"], held_out=["sketch"], root=tmp_path / "x").content


def test_shared_classes_drop_the_others(build, write_set) -> None:
    write_set("photo", ["ant", "bee", "cat"], train=10)
    write_set("sketch", ["dog", "cat", "ant"], train=8, seed=1)
    stream = build("domains", sets=["photo", "sketch"], classes="shared")
    assert stream.classes.names == ("ant", "cat")
    assert [len(task.train) for task in stream.tasks] == [20, 16]


def test_sets_that_do_not_fit_are_told_in_one_line(build, write_set) -> None:
    write_set("photo", ["ant", "bee", "cat"])
    write_set("sketch", ["ant", "bee"])
    write_set("signs", ["stop", "go"])
    for settings, message in [
        ({"sets": ["photo", "sketch"]}, "sketch has no 'cat'"),
        ({"sets": ["sketch", "photo"]}, "sketch has no 'cat'"),
        ({"sets": ["photo", "signs"], "classes": "shared"}, "0 classes in common"),
        ({"sets": ["photo", "photo"]}, "named twice"),
        ({"sets": ["photo"], "held_out": ["photo"]}, "named twice"),
        ({"sets": ["foto"]}, "did you mean photo"),
        ({}, "needs the sets"),
        ({"sets": "photo"}, "sets='photo'"),
    ]:
        with pytest.raises(UserError, match=message) as error:
            build("domains", **settings)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("rotated-digits", {"angles": []}, "names no domain"),
        ("rotated-digits", {"angles": [0, 360]}, "an angle twice"),
        ("rotated-digits", {"span": 0}, "span=0"),
        ("permuted-digits", {"tasks": 0}, "tasks=0"),
    ],
)
def test_bad_settings_are_told_in_one_line(build, name: str, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        build(name, **settings)
    assert "\n" not in str(error.value)


def test_pacs(build, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    sets = ["pacs_photo", "pacs_cartoon"]
    if not all((real_data / "images" / name).is_dir() for name in [*sets, "pacs_sketch"]):
        pytest.skip("CLBENCH_DATA holds no PACS")
    stream = build("domains", sets=sets, held_out=["pacs_sketch"], root=real_data, size=32, train_per_class=20)
    assert [len(task.train) for task in stream.tasks] == [140, 140]
    assert stream.eval_sets[-1].belongs_to is None
    assert len(stream.classes.names) == 7
