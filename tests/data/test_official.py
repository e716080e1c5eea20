"""Published sets, read from small folders in the form their authors publish them in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clbench.cli import main
from clbench.data.check import check
from clbench.data.get import get
from clbench.data.images import load_images
from clbench.errors import UserError


def refused(name: str, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_images(name, "train", root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def colours(name: str, split: str, root: Path) -> list[tuple[int, ...]]:
    """The colour of each image, which is all one colour."""
    x = load_images(name, split, root, size=4).x
    assert (x == x[:, :, :1, :1]).all()
    return [tuple(int(v) for v in row[:, 0, 0]) for row in x]


@pytest.mark.parametrize("unpacked", ["cub200", "CUB_200_2011", "cub200/CUB_200_2011"])
def test_cub_follows_its_lists(root: Path, published_sets: Any, unpacked: str) -> None:
    folder = root / "images" / unpacked
    rows = published_sets.cub200(folder)
    for split, flag in (("train", "1"), ("test", "0")):
        expected = [row for row in rows if row.training == flag]
        found = load_images("cub200", split, root, size=4)
        assert found.class_names == published_sets.BIRDS
        assert [published_sets.BIRDS[label] for label in found.y] == [row.bird for row in expected]
        assert colours("cub200", split, root) == [row.colour for row in expected]
    assert found.name == "cub200:official"


def test_cub_class_folders_are_another_split_and_must_be_asked_for(root: Path, published_sets: Any) -> None:
    folder = root / "images" / "cub200"
    for split in ("train", "test"):
        for label, bird in enumerate(published_sets.BIRDS):
            path = folder / split / bird / "0.png"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (5, 4), (label, 0, split == "test")).save(path)
    assert colours("cub200:folders", "test", root) == [(0, 0, 1), (1, 0, 1), (2, 0, 1)]
    text = refused("cub200", root)
    assert "images.txt" in text and "cub200:folders" in text and "5,994" not in text


def test_cars_in_both_publications(root: Path, published_sets: Any) -> None:
    names, rows = published_sets.cars_devkit(root / "images" / "cars196")
    found = load_images("cars196", "train", root, size=4)
    assert found.class_names == names
    for split in ("train", "test"):
        assert colours("cars196", split, root) == [row.colour for row in rows[split]]
        assert load_images("cars196", split, root, size=4).y.tolist() == [row.label for row in rows[split]]
    other = root.parent / "other"
    published_sets.cars_one_list(other / "images" / "stanford_cars", names, rows)
    for split in ("train", "test"):
        a, b = load_images("cars196", split, root, size=4), load_images("cars196", split, other, size=4)
        assert a.fingerprint == b.fingerprint


def test_cars_test_labels_are_a_file_of_their_own(root: Path, published_sets: Any) -> None:
    folder = root / "images" / "cars196"
    published_sets.cars_devkit(folder)
    (folder / "cars_test_annos_withlabels.mat").unlink()
    assert "cars_test_annos_withlabels.mat" in refused("cars196", root)


def test_imagenet_r_has_splits_that_differ_and_one_must_be_named(root: Path, published_sets: Any) -> None:
    folder = root / "images" / "imagenet-r"
    lists = published_sets.imagenet_r(folder)
    for name in ("l2p", "coda"):
        for split in ("train", "test"):
            found = load_images(f"imagenet_r:{name}", split, root, size=4)
            assert found.class_names == sorted(found.class_names) and found.name == f"imagenet_r:{name}"
            assert colours(f"imagenet_r:{name}", split, root) == [row.colour for row in lists[name][split]]
            assert [found.class_names[y] for y in found.y] == [row.wnid for row in lists[name][split]]
    prints = {load_images(f"imagenet_r:{name}", "test", root, size=4).fingerprint for name in ("l2p", "coda")}
    assert len(prints) == 2
    (folder / "val_list.txt").unlink()
    text = refused("imagenet_r:l2p", root)
    assert "val_list.txt" in text and "gist.github.com" in text
    assert "train/" in refused("imagenet_r:folders", root)


def test_an_image_in_both_lists_is_refused(root: Path, published_sets: Any) -> None:
    folder = root / "images" / "imagenet_r"
    published_sets.imagenet_r(folder)
    (folder / "val_list.txt").write_text((folder / "train_list.txt").read_text())
    assert "both splits" in refused("imagenet_r:l2p", root)


def test_core50_is_split_by_sessions(root: Path, published_sets: Any) -> None:
    published_sets.core50(root / "images" / "core50", frames=1)
    train, test = (load_images("core50", split, root) for split in ("train", "test"))
    assert train.x.shape == (8 * 50, 3, 8, 8) and test.x.shape == (3 * 50, 3, 8, 8)
    assert sorted(set(test.x[:, 0, 0, 0].tolist())) == [3, 7, 10]  # the session is the red channel
    assert train.x[::50, 0, 0, 0].tolist() == [1, 2, 4, 5, 6, 8, 9, 11]
    np.testing.assert_array_equal(train.x[:, 1, 0, 0], train.y + 1)  # the object the green one
    assert train.class_names[5] == "mobile phone 1" and train.class_names[49] == "remote control 5"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cub200", ("CUB_200_2011.tgz", "data.caltech.edu", "images/cub200")),
        ("Cars-196", ("car_devkit.tgz", "cars_test_annos_withlabels.mat", "images/cars196")),
        ("imagenet_r:coda", ("imagenet-r.tar", "GT-RIPL/CODA-Prompt", "imagenet-r_train.yaml", "images/imagenet_r")),
        ("core50", ("core50_128x128.zip", "images/core50")),
    ],
)
def test_a_missing_set_says_in_one_line_what_to_fetch_and_where_to_put_it(
    root: Path, name: str, words: tuple[str, ...]
) -> None:
    assert all(word in refused(name, root) for word in words)
    with pytest.raises(UserError) as caught:
        get(name, root)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)
    assert "train_list.txt" not in str(caught.value)  # the lists of another split


def test_an_unknown_split_names_those_there_are(root: Path) -> None:
    assert "imagenet_r:l2p, imagenet_r:coda, imagenet_r:folders" in refused("imagenet_r:lp2", root)


def test_the_data_commands_know_them(root: Path, published_sets: Any, capsys: pytest.CaptureFixture[str]) -> None:
    published_sets.cub200(root / "images" / "cub200")
    report = check("cub200", root)
    assert report.ok and report.kind == "images" and report.classes == 3 and report.splits["train"].rows == 6
    assert main(["data", "check", "cub200", "--data-root", str(root)]) == 0
    next((root / "images" / "cub200").rglob("*.png")).unlink()
    with pytest.raises(UserError, match="no such file"):
        check("cub200", root)


def test_the_centre_of_a_larger_resized_image(root: Path) -> None:
    folder = root / "images" / "framed"
    for split in ("train", "test"):
        for name in ("a", "b"):
            pixels = np.zeros((16, 24, 3), np.uint8)
            pixels[4:12, 8:16] = 200  # the central eight pixels of sixteen
            path = folder / split / name / "0.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(pixels).save(path)
    assert (load_images("framed", "train", root, size=8, resize=16).x == 200).all()
    assert not (load_images("framed", "train", root, size=8).x == 200).all()
    with pytest.raises(UserError, match="resize=4"):
        load_images("framed", "train", root, size=8, resize=4)
