"""Streams of concepts: roles, what is evaluated, captions, and that nothing draws for anything else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clbench.captions import SEPARATOR
from clbench.data.layout import write_image_set
from clbench.errors import UserError
from clbench.stream import Stream

Build = Callable[..., Stream]
WriteSet = Callable[..., Path]
SETS = ["alpha", "beta", "gamma"]
ANIMALS = ("ant", "bee", "cat", "dog", "elk")
TREES = ("ash", "birch", "cedar")


@pytest.fixture
def sets(write_set: WriteSet) -> Callable[..., Path]:
    """Three sets to adapt to, one held out, one for the pool."""

    def write(**changes: Any) -> Path:
        write_set("alpha", ANIMALS, seed=1, **changes)
        write_set("beta", TREES, seed=2, **changes)
        write_set("gamma", ("cat", "oak"), seed=3, **changes)
        write_set("delta", ("cat", "pine"), seed=4, **changes)
        return write_set("web", ("cat", "birches", "car"), seed=5, **changes)

    return write


@pytest.fixture
def made(build: Build, sets: Callable[..., Path]) -> Build:
    """`made(order_seed=0, **settings)`: the stream of these sets, 6 pixels wide, in three tasks."""
    root = sets()

    def make(order_seed: int = 0, **settings: Any) -> Stream:
        roles = {"sets": SETS, "held_out": ["delta"], "pretraining": ["web"], "size": 6, "tasks": 3}
        return build("fomo", order_seed, root, **{**roles, **settings})

    return make


def concepts(stream: Stream) -> list[str]:
    """The keys of the stream's concepts as they come."""
    assert stream.captions is not None
    return [stream.captions.concepts[label] for task in stream.tasks for label in task.classes]


def shown(stream: Stream, samples: Any) -> Counter[tuple[str, bytes]]:
    """What the samples are: concept and pixels."""
    assert stream.captions is not None
    labels, images = samples.labels.tolist(), samples.pool.inputs[samples.index].numpy()
    return Counter(
        (stream.captions.concepts[label], image.tobytes()) for label, image in zip(labels, images, strict=True)
    )


def test_every_concept_comes_once_and_labels_count_as_they_come(made: Build) -> None:
    stream = made()
    assert stream.captions is not None and stream.objective == "contrastive"
    assert [label for task in stream.tasks for label in task.classes] == list(range(10))
    assert [len(task.classes) for task in stream.tasks] == [4, 3, 3]
    assert Counter(key.split(SEPARATOR)[0] for key in concepts(stream)) == {"alpha": 5, "beta": 3, "gamma": 2}
    kept = stream.captions.concepts
    assert sorted(kept[10:12]) == ["delta+++cat", "delta+++pine"]
    assert sorted(kept[12:]) == ["web+++birches", "web+++car", "web+++cat"]
    for task in stream.tasks:
        assert Counter(task.train.labels.tolist()) == dict.fromkeys(task.classes, 20)
    assert stream.input_shape == (3, 6, 6)


def test_sets_are_evaluated_whole_and_tasks_among_their_sets_classes(made: Build) -> None:
    stream = made()
    assert stream.captions is not None
    by_name = {s.name: s for s in stream.eval_sets}
    assert {name: s.role for name, s in by_name.items()} == {
        **dict.fromkeys(SETS, "adaptation"),
        "delta": "held-out",
        **{f"task{i}": "" for i in range(3)},
    }
    for name in [*SETS, "delta"]:
        mine = {i for i, key in enumerate(stream.captions.concepts) if key.startswith(f"{name}+++")}
        assert set(by_name[name].classes) == set(by_name[name].data.labels.tolist()) == mine
        assert by_name[name].belongs_to is None and len(by_name[name].data) == 6 * len(mine)
    for task in stream.tasks:
        scored = by_name[task.name]
        assert scored.belongs_to == task.index
        assert set(scored.data.labels.tolist()) == set(task.classes)
        touched = {stream.captions.dataset(label) for label in task.classes}
        assert set(scored.classes) == {c for name in touched for c in by_name[name].classes}


def test_train_test_and_pool_share_no_sample(made: Build) -> None:
    stream = made(validation=0.2)
    assert stream.pretraining is not None and stream.mixture is not None
    assert stream.mixture.pretraining is not None and stream.mixture.shares == (0.33, 0.34, 0.33)
    parts = [task.train for task in stream.tasks] + [task.validation for task in stream.tasks]
    parts += [s.data for s in stream.eval_sets if s.role] + [stream.pretraining]
    rows = [row for part in parts if part is not None for row in part.index.tolist()]
    assert len(rows) == len(set(rows)) == len(stream.pretraining.pool.labels)
    assert len(stream.pretraining) == 60
    assert all(task.validation is not None and len(task.validation) == 4 * len(task.classes) for task in stream.tasks)


def test_the_order_seed_orders_and_changes_nothing_else(made: Build) -> None:
    one, other = made(order_seed=1), made(order_seed=2)
    assert concepts(one) != concepts(other) and sorted(concepts(one)) == sorted(concepts(other))
    assert one.content == other.content and one.order != other.order
    for name in (*SETS, "delta"):
        mine, yours = (next(s.data for s in stream.eval_sets if s.name == name) for stream in (one, other))
        assert shown(one, mine) == shown(other, yours)
    assert concepts(made(order_seed=1)) == concepts(one) and made(order_seed=1).order == one.order


def test_the_order_of_rows_on_disk_does_not_matter(build: Build, write_set: WriteSet, tmp_path: Path) -> None:
    streams = []
    for shuffle in (1, 2):
        root = tmp_path / str(shuffle)
        for seed, name in enumerate(SETS):
            write_set(name, seed=seed, shuffle=shuffle, root=root)
        limits = {"train_per_concept": 5, "test_per_concept": 2, "max_concepts": 3}
        streams.append(build("fomo", 0, root, sets=SETS, size=6, tasks=2, **limits))
    one, other = streams
    assert (one.content, one.order) == (other.content, other.order)
    assert shown(one, one.tasks[0].train) == shown(other, other.tasks[0].train)


def test_another_set_changes_nothing_of_the_others(made: Build) -> None:
    limits = {"max_concepts": 2, "train_per_concept": 7, "test_per_concept": 3, "carve": 0.3, "tasks": 1}
    few, many = made(sets=["alpha", "beta"], **limits), made(**limits)
    assert [key for key in concepts(many) if not key.startswith("gamma")] == concepts(few)
    drawn = shown(many, many.tasks[0].train)
    assert all(drawn[each] == n for each, n in shown(few, few.tasks[0].train).items())


def test_limits_keep_part_of_what_larger_ones_keep(made: Build) -> None:
    small, large = made(train_per_concept=3, tasks=1), made(train_per_concept=9, tasks=1)
    few, many = shown(small, small.tasks[0].train), shown(large, large.tasks[0].train)
    assert sum(few.values()) == 30 and sum(many.values()) == 90
    assert few <= many


def test_carved_classes_are_the_pool_and_not_the_stream(made: Build) -> None:
    stream = made(pretraining=[], carve=0.4)
    assert stream.captions is not None and stream.pretraining is not None
    pool = {stream.captions.concepts[label] for label in set(stream.pretraining.labels.tolist())}
    assert Counter(key.split(SEPARATOR)[0] for key in pool) == {"alpha": 2, "beta": 1}
    assert not pool & set(concepts(stream)) and len(concepts(stream)) == 7
    assert made(pretraining=[]).pretraining is not None  # 0.2 of the classes where nothing else makes a pool
    assert len(concepts(made(pretraining=[]))) == 8
    assert len(concepts(made(pretraining=[], mixture=[0.0, 0.5, 0.5]))) == 10


def test_a_part_of_a_set_and_its_rest_have_different_roles(made: Build) -> None:
    stream = made(sets=["alpha@0/2", "beta"], pretraining=["alpha@1/2"])
    assert stream.pretraining is not None and stream.captions is not None
    assert {key for key in concepts(stream) if key.startswith("alpha")} == {
        f"alpha+++{c}" for c in ("ant", "cat", "elk")
    }
    before = {stream.captions.concepts[label] for label in stream.pretraining.labels.tolist()}
    assert before == {"alpha+++bee", "alpha+++dog"}


def test_a_third_is_held_out_where_nothing_is_said(made: Build) -> None:
    stream = made(held_out=None, sets=[*SETS, "delta"], tasks=1)
    held = {s.name for s in stream.eval_sets if s.role == "held-out"}
    assert len(held) == 2
    again = made(held_out=None, sets=["delta", *reversed(SETS)], tasks=1)
    assert {s.name for s in again.eval_sets if s.role == "held-out"} == held
    assert [s.role for s in made(held_out=None, sets=["alpha"], tasks=1).eval_sets] == ["adaptation", ""]


def test_held_out_images_in_the_pool_are_training_images(made: Build) -> None:
    stream = made(pool_held_out=True, pretraining=[])
    assert stream.pretraining is not None and stream.captions is not None
    assert {stream.captions.dataset(label) for label in stream.pretraining.labels.tolist()} == {"delta"}
    test = next(s.data for s in stream.eval_sets if s.name == "delta")
    assert not shown(stream, test) & shown(stream, stream.pretraining)


# -- captions ----------------------------------------------------------------------------------------------------------


def test_captions_come_from_the_sets_templates(build: Build, write_set: WriteSet) -> None:
    root = write_set("alpha", ("ant_hill, mound", "owl"))
    info = root / "images" / "alpha" / "info.json"
    said = json.loads(info.read_text()) | {"caption_template": "a sketch of a {}", "year": 1999}
    info.write_text(json.dumps(said | {"class_descriptions": {"owl": "It hunts at night."}}))

    def texts(mode: str) -> dict[str, tuple[str, ...]]:
        stream = build("fomo", 0, root, sets=["alpha"], size=6, tasks=1, mixture=[0.0, 1.0, 0.0], captions=mode)
        assert stream.captions is not None and stream.mixture is None
        return dict(zip(stream.captions.concepts, stream.captions.texts, strict=True))

    assert texts("primer") == {
        "alpha+++ant_hill, mound": ("a sketch of an ant hill",),
        "alpha+++owl": ("a sketch of an owl",),
    }
    several = texts("templates")["alpha+++owl"]
    assert several[0] == "a sketch of an owl" and len(several) >= 6 and all("owl" in text for text in several)
    assert texts("rich")["alpha+++owl"] == ("a sketch of an owl", "a sketch of an owl. It hunts at night.")


def captioned(root: Path, split: str, captions: list[Any]) -> None:
    """The split's Parquet file again, with a column of captions."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = root / f"{split}.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("caption", pa.array(captions, pa.list_(pa.string()))), path)


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A set of four training and two test images with captions of their own; returns the data root."""
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "images" / "said"
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4), dtype=np.uint8)
    write_image_set(folder, "train", images[:4], [0, 1, 0, 1], ["cat", "dog"])
    write_image_set(folder, "test", images[4:], [0, 1], ["cat", "dog"])
    captioned(folder, "train", [["one Cat, asleep"], ["it barks", "a dog barks"], [], ["two dogs"]])
    captioned(folder, "test", [["a grey cat"], ["a wet dog", "a dog in the rain"]])
    return tmp_path


def own_captions(stream: Stream) -> dict[str, list[tuple[str, ...]]]:
    """By concept the captions of its rows."""
    assert stream.captions is not None
    found: dict[str, list[tuple[str, ...]]] = {}
    pool = stream.tasks[0].train.pool
    for row, texts in stream.captions.of_row.items():
        found.setdefault(stream.captions.concepts[int(pool.labels[row])], []).append(texts)
    return {key: sorted(texts) for key, texts in found.items()}


def test_captions_of_images_name_their_class(build: Build, said: Path) -> None:
    settings = {"sets": ["said"], "size": 4, "tasks": 1, "mixture": [0.0, 1.0, 0.0]}
    stream = build("fomo", 0, said, **settings)
    assert own_captions(stream) == {
        "said+++cat": [("one Cat, asleep",)],
        "said+++dog": [("a photo of a dog. it barks", "a dog barks"), ("two dogs",)],
    }
    assert build("fomo", 0, said, captions="templates", **settings).captions.of_row == {}  # type: ignore[union-attr]
    retrieved = build("fomo", 0, said, retrieval=["said"], captions="templates", **settings)
    assert own_captions(retrieved) == {
        "said+++cat": [("a grey cat",)],
        "said+++dog": [("a wet dog", "a dog in the rain")],
    }
    assert [(s.name, s.kind) for s in retrieved.eval_sets] == [("said", "retrieval")]


def test_a_pool_of_captions_needs_neither_class_names_nor_test_images(
    build: Build, said: Path, write_set: WriteSet
) -> None:
    folder = said / "images" / "said"
    (folder / "test.parquet").unlink()
    (folder / "info.json").unlink()
    write_set("alpha", ("ant", "owl"), side=4, root=said)
    stream = build("fomo", 0, said, sets=["alpha"], pretraining=["said"], size=4, tasks=1)
    assert stream.pretraining is not None and len(stream.pretraining) == 4
    assert sorted(t for texts in own_captions(stream).values() for own in texts for t in own) == [
        "a dog barks",
        "it barks",
        "one Cat, asleep",
        "two dogs",
    ]


def test_folders_have_their_captions_in_a_file(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    for split, n in (("train", 3), ("test", 1)):
        for number in range(n):
            path = tmp_path / "pets" / split / "cat" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (40 * number, 0, 0)).save(path)
    (tmp_path / "pets" / "captions.json").write_text(json.dumps({"train/cat/1.png": "a black cat"}))
    stream = build(
        "fomo", 0, tmp_path, sets=[str(tmp_path / "pets")], size=4, tasks=1, mixture=[0.0, 1.0, 0.0], held_out=[]
    )
    assert own_captions(stream) == {"pets+++cat": [("a black cat",)]}


def test_attributes_say_what_an_image_looks_like(made: Build) -> None:
    stream = made(captions="attr")
    assert stream.captions is not None
    trained = {row for task in stream.tasks for row in task.train.index.tolist()}
    assert trained <= set(stream.captions.of_row)
    task = stream.tasks[0]
    row, label = int(task.train.index[0]), int(task.train.labels[0])
    (text,) = stream.captions.of_row[row]
    assert text.startswith(f"{stream.captions.primer(label)}, ")
    assert any(word in text for word in ("dark", "medium", "bright"))


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sets": []}, "needs the sets"),
        ({"sets": ["alpha", "nowhere"]}, "no image set 'nowhere'"),
        ({"held_out": ["alpha"]}, "alpha is both adaptation and held-out"),
        ({"pretraining": ["delta"]}, "delta is both held-out and pretraining"),
        ({"sets": ["alpha", "alpha"]}, "a concept twice: alpha\\+\\+\\+ant"),
        ({"sets": ["alpha@5/3"]}, "every N-th class"),
        ({"pretraining": [], "carve": 0.0}, "draws from a pre-training pool, and there is none"),
        ({"ordering": "time_mix"}, "the year of every set, and that of alpha is not known"),
        ({"tasks": 11}, "more tasks than concepts, the sets have 10"),
        ({"ordering": "by_size"}, "there are the orderings"),
        ({"mixture": [0.5, 0.6, 0.1]}, "three shares"),
        ({"retrieval": ["beta"]}, "beta has no captions of its images"),
        ({"retrieval": ["epsilon"]}, "no evaluated set"),
        ({"ordering": "frequency", "pretraining": [], "carve": 0.0, "mixture": [0.0, 1.0, 0.0]}, "there is none: name"),
        ({"stream_file": "/nowhere.json"}, "cannot be read"),
        ({"sets": ["shapes:cubist"]}, "no style 'cubist'"),
    ],
)
def test_mistakes_are_one_line(made: Build, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        made(**settings)
    assert "\n" not in str(error.value)


def test_a_set_without_class_names_is_refused(made: Build, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    folder = tmp_path / "images" / "beta"
    (folder / "info.json").unlink()
    for split in ("train", "test"):
        table = pq.read_table(folder / f"{split}.parquet")
        pq.write_table(table.replace_schema_metadata(None), folder / f"{split}.parquet")
    with pytest.raises(UserError, match="beta has no class names"):
        made()
