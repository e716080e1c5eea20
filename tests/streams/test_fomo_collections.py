"""Streams of concepts from whatever people have: folders of images of any kind, odd names, few classes, few images."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clbench.errors import UserError
from clbench.stream import Stream
from clbench.streams.fomo_report import shared_names, shown_in_training
from clbench.streams.fomo_roles import roles

Build = Callable[..., Stream]
Folder = Callable[..., str]
TASK_ALONE = [0.0, 1.0, 0.0]
REPLAY = [0.0, 0.5, 0.5]


def picture(random: np.random.Generator, mode: str, width: int, height: int) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(random.integers(0, 2**16, (height, width), dtype=np.uint16))
    pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """`folder(name, classes, ...)`: images in train/CLASS and test/CLASS, or in CLASS alone; the folder's path."""
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))

    def write(
        name: str,
        classes: Sequence[str] = ("ash", "birch", "cedar"),
        splits: dict[str, int] | None = None,
        mode: str = "RGB",
        sides: tuple[int, int] = (6, 6),
        **files: Any,
    ) -> str:
        place = tmp_path / "mine" / name
        random = np.random.default_rng(list(os.fsencode(name)))
        for class_name in classes:
            for split, images in ({"train": 3, "test": 2} if splits is None else splits).items():
                (place / split / class_name).mkdir(parents=True, exist_ok=True)
                for number in range(images):
                    picture(random, mode, *sides).save(place / split / class_name / f"{number}.png")
        for file, content in files.items():
            (place / f"{file}.json").write_text(json.dumps(content), encoding="utf-8")
        return str(place)

    return write


@pytest.fixture
def fomo(build: Build) -> Build:
    """`fomo(*sets, order_seed=0, **settings)`: the stream, 4 pixels wide."""

    def make(*sets: str, order_seed: int = 0, name: str = "fomo", **settings: Any) -> Stream:
        return build(name, order_seed, None, sets=list(sets), **{"size": 4, "mixture": REPLAY, **settings})

    return make


def keys(stream: Stream) -> list[str]:
    assert stream.captions is not None
    return [stream.captions.concepts[label] for task in stream.tasks for label in task.classes]


def roles_of(stream: Stream) -> dict[str, str]:
    return {s.name: s.role for s in stream.eval_sets if s.role}


# -- what works --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "sides"), [("L", (9, 5)), ("RGBA", (5, 40)), ("P", (7, 7)), ("1", (4, 4)), ("I;16", (6, 8))]
)
def test_images_of_any_kind_and_shape(fomo: Build, folder: Folder, mode: str, sides: tuple[int, int]) -> None:
    stream = fomo(folder("mine", mode=mode, sides=sides), held_out=[folder("other")])
    images = stream.tasks[0].train.raw(stream.tasks[0].train.index * 0)
    assert images.shape[1:] == (3, 4, 4) and len(keys(stream)) == 3


def test_names_with_spaces_and_of_any_script(fomo: Build, folder: Folder) -> None:
    stream = fomo(folder("meine Bäume", ("Größe", "猫", "a+++b", "red_fox")), held_out=[folder("the others")])
    assert stream.captions is not None
    assert sorted(keys(stream)) == sorted(f"meine Bäume+++{c}" for c in ("Größe", "猫", "a+++b", "red_fox"))
    assert {stream.captions.dataset(label) for task in stream.tasks for label in task.classes} == {"meine Bäume"}
    assert stream.captions.primer(stream.captions.concepts.index("meine Bäume+++red_fox")) == "a photo of a red fox"
    assert roles_of(stream) == {"meine Bäume": "adaptation", "the others": "held-out"}


def test_a_single_set_and_a_set_of_one_class(fomo: Build, folder: Folder) -> None:
    alone = fomo(folder("thing", ("thing",)))
    assert [len(task.classes) for task in alone.tasks] == [1] and roles_of(alone) == {"thing": "adaptation"}
    beside = fomo(folder("thing", ("thing",)), folder("trees"), held_out=[folder("one", ("one",))], tasks=2)
    assert [len(task.classes) for task in beside.tasks] == [2, 2]
    assert {s.name: len(s.classes) for s in beside.eval_sets if s.role} == {"thing": 1, "trees": 3, "one": 1}


def test_folders_without_splits_and_with_a_single_test_image(fomo: Build, folder: Folder) -> None:
    stream = fomo(folder("plain", splits={".": 4}), folder("few", splits={"train": 1, "test": 1}), held_out=[])
    sizes = {s.name: len(s.data) for s in stream.eval_sets if s.role}
    assert sizes == {"plain": 3, "few": 3} and sum(len(task.train) for task in stream.tasks) == 9 + 3
    test = {i for s in stream.eval_sets for i in s.data.index.tolist()}
    assert not test & {i for task in stream.tasks for i in task.train.index.tolist()}


def test_a_held_out_set_needs_no_training_images(fomo: Build, folder: Folder) -> None:
    only_tests = folder("sketches", splits={"test": 2}, captions={"test/ash/0.png": "an ash"})
    stream = fomo(folder("trees"), held_out=[only_tests])
    assert next(len(s.data) for s in stream.eval_sets if s.name == "sketches") == 6
    with pytest.raises(UserError, match="sketches: class 'ash' has no training images"):
        fomo(folder("trees"), held_out=[only_tests], pool_held_out=True)


def test_what_is_held_out_hangs_on_names_and_not_on_where_folders_lie() -> None:
    sets = ["pets", "signs", "trees", "goods"]
    held = [{text.split("/")[-1] for text, role in roles("s", at, None, []) if role == "held-out"} for at in (
        sets, [f"/here/{name}" for name in sets], [f"./there/my/{name}" for name in reversed(sets)]
    )]  # fmt: skip
    assert len(held[0]) == 2 and held[0] == held[1] == held[2]


def test_a_pool_is_carved_from_few_classes_too(fomo: Build, folder: Folder) -> None:
    """One at least of three classes and more; of two the other would always be right."""
    sets = [folder("two", ("x", "y")), folder("three"), folder("ten", tuple("abcdefghij"))]
    stream = fomo(*sets, held_out=[], mixture=[0.33, 0.34, 0.33])
    assert stream.pretraining is not None and stream.captions is not None
    pool = [stream.captions.dataset(label) for label in stream.pretraining.labels.unique().tolist()]
    assert sorted(pool) == ["ten", "ten", "three"]
    assert not {stream.captions.concepts[i] for i in stream.pretraining.labels.tolist()} & set(keys(stream))
    with pytest.raises(UserError, match="no set has 3 classes, of which one could go"):
        fomo(sets[0], mixture=[0.33, 0.34, 0.33])


def test_parts_of_one_set_come_as_one_set(fomo: Build, folder: Folder) -> None:
    place = folder("letters", tuple("abcdef"))
    stream = fomo(f"{place}@0/3", f"{place}@1/3", folder("trees"), held_out=[f"{place}@2/3"], ordering="dataset")
    assert sorted(len(task.classes) for task in stream.tasks) == [3, 4]
    assert roles_of(stream) == {"letters": "adaptation", "trees": "adaptation", "letters (held out)": "held-out"}


def test_sets_that_are_called_as_sources_of_batches(fomo: Build, folder: Folder) -> None:
    names = ["buffer", "pretraining", "current"]
    stream = fomo(*(folder(name) for name in names), name="mtil", held_out=[])
    assert [task.name for task in stream.tasks] == names


def test_tasks_of_parts_of_a_set_have_names_of_their_own(fomo: Build, folder: Folder) -> None:
    stream = fomo(folder("pets", ("cat", "dog", "elk", "fox")), folder("trees"), name="mtil", tasks=4)
    assert [task.name for task in stream.tasks] == ["pets (1)", "pets (2)", "trees (1)", "trees (2)"]


@pytest.mark.parametrize("years", [{"year": 1999}, {"year": "1999"}])
def test_years_are_numbers_or_text(fomo: Build, folder: Folder, years: dict[str, Any]) -> None:
    stream = fomo(folder("late", info={"year": 2010}), folder("early", info=years), held_out=[], ordering="time_chunk")
    assert [key.split("+++")[0] for key in keys(stream)] == ["early"] * 3 + ["late"] * 3


def test_images_without_captions_have_those_of_their_class(fomo: Build, folder: Folder) -> None:
    said = {"train/ash/0.png": "a tall ash", "train/ash/1.png": ["", "  "], "train/ash/2.png": None}
    stream = fomo(folder("trees", captions=said))
    assert stream.captions is not None
    assert list(stream.captions.of_row.values()) == [("a tall ash",)]


def test_what_parts_of_a_stream_have_in_common_is_reported(fomo: Build, folder: Folder) -> None:
    import shutil

    first, second = folder("first", ("red_fox", "Ash", "elk")), folder("second", ("red fox", "ash", "owl"))
    shutil.copy(Path(first, "train/Ash/0.png"), Path(second, "test/owl/9.png"))
    stream = fomo(first, held_out=[second], pretraining=[folder("third", ("owl", "yak"))], mixture=[0.3, 0.4, 0.3])
    assert shared_names(stream) == {("pool", "tasks"): 0, ("pool", "held-out sets"): 1, ("tasks", "held-out sets"): 2}
    assert shown_in_training(stream) == (1, 6 + 7)


# -- mistakes ----------------------------------------------------------------------------------------------------------


def refused(fomo: Build, *sets: str, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        fomo(*sets, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_names_that_cannot_be_told_apart(fomo: Build, folder: Folder) -> None:
    pets, others = folder("pets"), folder("elsewhere/pets", ("cat", "dog"))
    assert "two sets are called pets" in refused(fomo, pets, others, held_out=[])
    assert "two sets are called pets" in refused(fomo, f"{pets}@0/2", held_out=[f"{others}@1/2"])
    assert "a concept twice: pets+++ash" in refused(fomo, pets, pets)
    assert "task3 is what the evaluation of a task is called" in refused(fomo, folder("task3"))
    assert "+++ parts a set's name from a class's" in refused(fomo, folder("a+++b"))


def test_the_same_images_in_two_roles(fomo: Build, folder: Folder, tmp_path: Path) -> None:
    import shutil

    pets = folder("pets")
    shutil.copytree(pets, tmp_path / "copies")
    for role in ("held_out", "pretraining"):
        assert "hold the same images" in refused(fomo, pets, **{"held_out": [], role: [str(tmp_path / "copies")]})


def test_files_beside_the_images(fomo: Build, folder: Folder, tmp_path: Path) -> None:
    unmatched = folder("pets", captions={"./train/ash/0.png": "an ash"})
    assert "names none of the set's images: they are to be called as 'train/ash/0.png'" in refused(fomo, unmatched)
    template = folder("trees", info={"caption_template": "a photo of {name}"})
    assert "has no {} for the class" in refused(fomo, template)
    (tmp_path / "counts.json").write_text('{"ash": 1, "birch": NaN, "cedar": 2}')
    counted = {"ordering": "frequency", "counts": str(tmp_path / "counts.json")}
    assert "nan is no count of birch" in refused(fomo, folder("goods"), **counted)


def test_a_class_folder_whose_name_is_no_text(fomo: Build, folder: Folder) -> None:
    place = folder("pets")
    for split in ("train", "test"):
        Path(place, split, "ash").rename(Path(place, split, os.fsdecode(b"ash\xff")))
    assert "is not UTF-8; rename its folder" in refused(fomo, place)
