from __future__ import annotations

import io
import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clbench.data import cache
from clbench.data.fingerprint import content_fingerprint
from clbench.data.images import load_images
from clbench.data.layout import write_image_set
from clbench.errors import UserError

NAMES = ["ant", "bee", "cat"]


def pictures(n: int, side: int = 8, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, channels, side, side), dtype=np.uint8)


def png(pixels: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def refused(*args: object, **kwargs: object) -> str:
    """The error's text, which must be a single line."""
    with pytest.raises(UserError) as caught:
        load_images(*args, **kwargs)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(path: Path, **columns: object) -> None:
    pq.write_table(pa.table(columns), path)


def test_round_trip(tiny: Path, root: Path) -> None:
    found = load_images("tiny", "train", root)
    assert found.x.dtype == np.uint8 and found.y.dtype == np.int64
    np.testing.assert_array_equal(found.x, pictures(12))
    np.testing.assert_array_equal(found.y, np.arange(12) % 3)
    assert (found.name, found.class_names) == ("tiny", NAMES)
    assert found.info["splits"]["test"] == {"total": 6, "min_per_class": 2, "max_per_class": 2}
    assert found.fingerprint == content_fingerprint(found.x, [NAMES[label] for label in found.y])


def test_second_load_comes_from_the_cache(tiny: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_images("tiny", "train", root)
    monkeypatch.setattr("clbench.data.images.decode", None)
    second = load_images("tiny", "train", root)
    np.testing.assert_array_equal(first.x, second.x)
    np.testing.assert_array_equal(first.y, second.y)
    assert first.fingerprint == second.fingerprint and first.class_names == second.class_names


def test_changed_content_of_equal_size_and_time_of_another_file_is_seen(tiny: Path, root: Path) -> None:
    before = load_images("tiny", "train", root)
    write_image_set(tiny, "train", pictures(12, seed=5), np.arange(12) % 3, NAMES)
    after = load_images("tiny", "train", root)
    assert before.fingerprint != after.fingerprint
    np.testing.assert_array_equal(after.x, pictures(12, seed=5))


def test_new_class_names_are_seen(tiny: Path, root: Path) -> None:
    before = load_images("tiny", "train", root)
    info = json.loads((tiny / "info.json").read_text())
    (tiny / "info.json").write_text(json.dumps({**info, "class_names": ["x", "y", "z"]}))
    after = load_images("tiny", "train", root)
    assert after.class_names == ["x", "y", "z"] and before.fingerprint != after.fingerprint


@pytest.mark.parametrize("damage", ["truncate", "garbage", "remove"])
def test_damaged_cache_is_replaced(tiny: Path, root: Path, own_cache: Path, damage: str) -> None:
    first = load_images("tiny", "train", root).x.copy()  # it is a map of the file that is harmed
    array = next(own_cache.glob("images/*/x.npy"))
    if damage == "remove":
        array.unlink()
    else:
        array.write_bytes(array.read_bytes()[:200] if damage == "truncate" else b"no array")
    np.testing.assert_array_equal(load_images("tiny", "train", root).x, first)
    assert np.array_equal(np.load(next(own_cache.glob("images/*/x.npy"))), first)


def test_cache_that_cannot_be_written(tiny: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_images("tiny", "train", root)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "file" / "below"))
    assert cache.cache_dir() is None
    again = load_images("tiny", "train", root)
    assert again.fingerprint == first.fingerprint


def test_full_cache_disk(tiny: Path, root: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.np, "save", full)
    np.testing.assert_array_equal(load_images("tiny", "train", root).x, pictures(12))
    assert not list(own_cache.glob("images/*")) and not list(own_cache.glob("images/.new-*"))


def test_large_sets_are_mapped_and_never_altered(
    tiny: Path, root: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MAP_SHARE", 0.0)
    for _ in range(2):
        found = load_images("tiny", "train", root)
        assert isinstance(found.x, np.memmap)
        np.testing.assert_array_equal(found.x, pictures(12))
        found.x[:] = 0
    assert np.load(next(own_cache.glob("images/*/x.npy"))).any()


def test_fingerprint_ignores_order_label_numbers_and_place(tiny: Path, root: Path, tmp_path: Path) -> None:
    order = np.random.default_rng(3).permutation(12)
    swapped = ["cat", "ant", "bee"]
    labels = np.array([swapped.index(NAMES[label]) for label in np.arange(12) % 3])
    other = tmp_path / "elsewhere"
    write_image_set(other, "train", pictures(12)[order], labels[order], swapped)
    first, second = load_images("tiny", "train", root), load_images(other, "train")
    assert first.fingerprint == second.fingerprint
    write_image_set(other, "train", pictures(12)[order], (labels[order] + 1) % 3, swapped)
    assert load_images(other, "train").fingerprint != first.fingerprint


def test_fingerprint_counts_duplicates_and_knows_shapes() -> None:
    x = pictures(2)
    once = content_fingerprint(x, ["a", "b"])
    assert content_fingerprint(np.concatenate([x, x[:1]]), ["a", "b", "a"]) != once
    assert content_fingerprint(x.reshape(2, 3, 4, 16), ["a", "b"]) != once
    assert content_fingerprint(x[::-1], ["b", "a"]) == once


def test_greyscale(root: Path) -> None:
    grey = pictures(3, channels=1)
    write_image_set(root / "images" / "grey", "train", grey, [0, 1, 2], NAMES)
    colour, single = load_images("grey", "train", root), load_images("grey", "train", root, channels=1)
    np.testing.assert_array_equal(colour.x, np.repeat(grey, 3, axis=1))
    np.testing.assert_array_equal(single.x, grey)


def test_one_channel_of_a_coloured_set(tiny: Path, root: Path) -> None:
    assert "in colour" in refused("tiny", "train", root, channels=1)


def test_grey_pictures_kept_as_rgb_have_one_channel(root: Path) -> None:
    grey = pictures(3, channels=1)
    write_image_set(root / "images" / "g", "train", np.repeat(grey, 3, axis=1), [0, 1, 2], NAMES)
    np.testing.assert_array_equal(load_images("g", "train", root, channels=1).x, grey)


def test_sixteen_bit_palette_and_transparent_images(root: Path) -> None:
    rgb = pictures(1)[0].transpose(1, 2, 0)
    wide = (pictures(1, channels=1)[0, 0].astype(np.uint16) << 8) + 7
    palette = io.BytesIO()
    Image.fromarray(rgb).quantize(16).save(palette, "PNG")
    alpha = png(np.dstack([rgb, np.full((8, 8), 9, np.uint8)]))
    write_image_set(root / "images" / "odd", "train", [png(wide), palette.getvalue(), alpha], [0, 1, 2], NAMES)
    x = load_images("odd", "train", root).x
    np.testing.assert_array_equal(x[0], np.repeat((wide >> 8).astype(np.uint8)[None], 3, axis=0))
    np.testing.assert_array_equal(x[2], rgb.transpose(2, 0, 1))


def test_sizes_that_vary(root: Path) -> None:
    shapes = [(10, 10), (10, 17), (23, 10), (30, 20), (4, 7)]
    images = [np.full((h, w), 10 * i, np.uint8) for i, (h, w) in enumerate(shapes)]
    write_image_set(root / "images" / "vary", "train", images, [0, 1, 2, 0, 1], NAMES)
    default = load_images("vary", "train", root).x
    assert default.shape == (5, 3, 10, 10)
    assert [int(row[0, 0, 0]) for row in default] == [0, 10, 20, 30, 40]
    assert load_images("vary", "train", root, size=6).x.shape == (5, 3, 6, 6)


def test_centre_crop_takes_the_middle(root: Path) -> None:
    wide = np.zeros((8, 16), np.uint8)
    wide[:, 4:12] = 200
    write_image_set(root / "images" / "wide", "train", [wide], [0], ["only"])
    assert (load_images("wide", "train", root).x == 200).all()


@pytest.mark.parametrize("stated", [6, "6x6 JPEG", "short side 6 px", [9, 6]])
def test_size_stated_in_info(tiny: Path, root: Path, stated: object) -> None:
    info = json.loads((tiny / "info.json").read_text())
    (tiny / "info.json").write_text(json.dumps({**info, "image_size": stated}))
    assert load_images("tiny", "test", root).x.shape == (6, 3, 6, 6)


def test_huge_images_are_reduced_unless_asked_for(root: Path) -> None:
    write_image_set(root / "images" / "big", "train", [np.zeros((300, 400), np.uint8)], [0], ["only"])
    assert load_images("big", "train", root).x.shape == (1, 3, 224, 224)
    assert load_images("big", "train", root, size=300).x.shape == (1, 3, 300, 300)


def test_plain_bytes_column_and_shards(root: Path) -> None:
    folder = root / "images" / "hub" / "data"
    folder.mkdir(parents=True)
    for shard in range(2):
        rows = [png(pictures(4)[2 * shard + i].transpose(1, 2, 0)) for i in range(2)]
        rewrite(folder / f"train-0000{shard}-of-00002.parquet", image=rows, label=[0, 1])
    found = load_images("hub", "train", root)
    np.testing.assert_array_equal(found.x, pictures(4))
    assert found.class_names == ["0", "1"] and found.y.tolist() == [0, 1, 0, 1]


def test_class_names_from_the_schema(tiny: Path, root: Path) -> None:
    (tiny / "info.json").unlink()
    assert load_images("tiny", "train", root).class_names == NAMES


def test_image_folder_equals_parquet(tiny: Path, root: Path) -> None:
    folder = root / "images" / "folder"
    for i, picture in enumerate(pictures(12)):
        place = folder / "train" / NAMES[i % 3] / "deep"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.png").write_bytes(png(picture.transpose(1, 2, 0)))
        (place / "notes.txt").write_text("not an image")
    found = load_images("folder", "train", root)
    assert found.class_names == NAMES
    assert found.fingerprint == load_images("tiny", "train", root).fingerprint
    assert "no split 'test'" in refused("folder", "test", root)


def class_folders(folder: Path) -> None:
    for i, picture in enumerate(pictures(30)):
        place = folder / NAMES[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.png").write_bytes(png(picture.transpose(1, 2, 0)))


def test_class_folders_are_split_by_hash(tmp_path: Path) -> None:
    class_folders(tmp_path / "a")
    train, test = load_images(tmp_path / "a", "train"), load_images(tmp_path / "a", "test")
    assert np.bincount(train.y).tolist() == [8, 8, 8] and np.bincount(test.y).tolist() == [2, 2, 2]
    both = {row.tobytes() for row in train.x} | {row.tobytes() for row in test.x}
    assert len(both) == 30
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert load_images(tmp_path / "b", "test").fingerprint == test.fingerprint


def test_folder_with_an_empty_class(tmp_path: Path) -> None:
    class_folders(tmp_path / "a")
    (tmp_path / "a" / "dog").mkdir()
    assert "class 'dog'" in refused(tmp_path / "a", "train")


def test_folder_class_that_info_does_not_know(tmp_path: Path) -> None:
    class_folders(tmp_path / "a")
    (tmp_path / "a" / "info.json").write_text(json.dumps({"class_names": ["ant", "bee"]}))
    assert "'cat' is not in class_names" in refused(tmp_path / "a", "train")


def test_name_forms(tiny: Path, root: Path) -> None:
    tiny.rename(tiny.with_name("tiny_set_2"))
    for name in ("tiny_set_2", "tiny-set-2", "Tiny-Set2"):
        assert load_images(name, "train", root).name == "tiny_set_2"
    assert load_images(root / "images" / "tiny_set_2", "train").name == "tiny_set_2"
    shutil.move(root / "images" / "tiny_set_2", root / "moved")
    assert load_images("moved", "train", root).name == "moved"


def test_validation_stands_in_for_test_but_not_the_reverse(tiny: Path, root: Path) -> None:
    assert "no split 'val' (it has train, test)" in refused("tiny", "val", root)
    (tiny / "test.parquet").rename(tiny / "val.parquet")
    assert len(load_images("tiny", "test", root).x) == 6


def test_missing_set(tiny: Path, root: Path) -> None:
    message = refused("tinny", "train", root)
    assert "did you mean tiny?" in message and "clbench data get tinny" in message
    assert "there is no such file" in refused(str(root / "nowhere" / "x"), "train")


def test_text_set_where_images_are_needed(tiny: Path, root: Path) -> None:
    (root / "text" / "prose").mkdir(parents=True)
    assert "is a text set" in refused("prose", "train", root)


def test_corrupt_parquet(tiny: Path, root: Path) -> None:
    data = (tiny / "train.parquet").read_bytes()
    (tiny / "train.parquet").write_bytes(data[:-20])
    assert "not a readable Parquet file" in refused("tiny", "train", root)
    (tiny / "train.parquet").write_bytes(data[:40] + bytes(400) + data[440:])
    message = refused("tiny", "train", root)
    assert "train.parquet" in message or "row" in message


@pytest.mark.parametrize("damage", ["truncated", "noise", "none"])
def test_corrupt_image_is_named(tiny: Path, root: Path, damage: str) -> None:
    jpeg = png(pictures(1, side=32)[0].transpose(1, 2, 0), "JPEG")
    bad = {"truncated": jpeg[: len(jpeg) // 2], "noise": b"\0" * 50, "none": None}[damage]
    rewrite(tiny / "train.parquet", image=[{"bytes": b, "path": None} for b in (jpeg, bad, jpeg)], label=[0, 1, 2])
    assert "row 1: unusable image" in refused("tiny", "train", root, size=8)
    assert "row 1: unusable image" in refused("tiny", "train", root) or damage == "truncated"


@pytest.mark.parametrize("label", [-1, 3])
def test_label_out_of_range(tiny: Path, root: Path, label: int) -> None:
    write_image_set(tiny, "train", pictures(4), [0, 1, 2, label], NAMES)
    message = refused("tiny", "train", root)
    assert f"row 3: label {label} is out of range" in message and "0 to 2" in message


def test_empty_class(tiny: Path, root: Path) -> None:
    write_image_set(tiny, "train", pictures(2), [0, 2], NAMES)
    assert "class 'bee' (label 1) has no images" in refused("tiny", "train", root)


def test_no_rows(tiny: Path, root: Path) -> None:
    write_image_set(tiny, "train", [], [], NAMES)
    assert "no rows" in refused("tiny", "train", root)


def test_faulty_columns(tiny: Path, root: Path) -> None:
    rows = [png(pictures(1)[0].transpose(1, 2, 0))] * 3
    rewrite(tiny / "train.parquet", picture=rows, label=[0, 1, 2])
    assert "no column 'image' (it has picture, label)" in refused("tiny", "train", root)
    rewrite(tiny / "train.parquet", image=rows, fine=[0, 1, 2])
    assert "no column 'label'" in refused("tiny", "train", root)
    rewrite(tiny / "train.parquet", image=rows, label=["ant", "bee", "cat"])
    assert "not integers" in refused("tiny", "train", root)
    rewrite(tiny / "train.parquet", image=rows, label=[0, None, 2])
    assert "row 1: the label is missing" in refused("tiny", "train", root)
    rewrite(tiny / "train.parquet", image=["a", "b", "c"], label=[0, 1, 2])
    assert "not encoded bytes" in refused("tiny", "train", root)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ('{"class_names": [1, 2, 3]}', "list of strings"),
        ('{"class_names": ["a", "b", "a"]}', "'a' twice"),
    ],
)
def test_unreadable_info(tiny: Path, root: Path, content: str, said: str) -> None:
    (tiny / "info.json").write_text(content)
    assert said in refused("tiny", "train", root)


def test_folder_without_a_set(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "is no image set" in refused(tmp_path / "empty", "train")
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refused(tmp_path / "file", "train")


def test_bad_arguments(tiny: Path, root: Path) -> None:
    assert "at least 1 pixel" in refused("tiny", "train", root, size=0)
    assert "1 or 3 channels" in refused("tiny", "train", root, channels=2)


@pytest.mark.skipif(not os.environ.get("CLBENCH_DATA"), reason="CLBENCH_DATA names no folder of real sets")
@pytest.mark.parametrize(("name", "classes"), [("pacs_sketch", 7), ("caltech101", 101), ("medical_mnist", 6)])
def test_real_sets(name: str, classes: int) -> None:
    for split in ("train", "test"):
        found = load_images(name, split)
        assert found.x.shape == (len(found.y), 3, 64, 64) and len(found.class_names) == classes
        assert found.info["splits"][split]["total"] == len(found.y)


def test_files_can_be_read_by_others(tiny: Path) -> None:
    assert stat.S_IMODE((tiny / "train.parquet").stat().st_mode) == 0o644
