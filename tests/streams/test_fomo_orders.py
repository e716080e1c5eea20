"""Orders of concepts, stream files, tasks cut from them, and what tasks are made of."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clbench.errors import UserError
from clbench.stream import Stream
from clbench.streams import fomo_file, fomo_report
from clbench.streams.cutting import cut, task_sizes
from clbench.streams.fomo_counts import counts_in_file, counts_in_pool
from clbench.streams.fomo_file import digest_of, read_stream_file, write_stream_file
from clbench.streams.fomo_orders import ORDERS, Known, kmeans, neighbour_cosine, ordered
from clbench.streams.fomo_report import jensen_shannon, task_reports
from clbench.streams.keyed import draw, shuffled

YEARS = {"a": 2001, "b": 1998, "c": 2001}


def known(n: int = 12, seed: int = 0) -> Known:
    """Concepts of three sets with random scores and embeddings."""
    random = np.random.default_rng(seed)
    keys = [f"{'abc'[i % 3]}+++{i}" for i in range(n)]
    vectors = random.normal(size=(n, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Known(
        keys=keys,
        set_of={key: key[0] for key in keys},
        years=dict(YEARS),
        counts=lambda: np.arange(n) % 5,
        scores=lambda which: np.round(np.sin(np.arange(n) + len(which)), 4),
        embeddings=lambda: vectors,
        clusters=3,
    )


def runs(names: list[str]) -> list[str]:
    return [name for i, name in enumerate(names) if i == 0 or name != names[i - 1]]


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(sorted(ORDERS)), st.integers(0, 50), st.integers(1, 40))
def test_an_order_is_a_permutation_and_reversal_is_exact(kind: str, seed: int, n: int) -> None:
    order = ordered(kind, known(n), seed)
    assert sorted(order) == sorted(known(n).keys)
    assert order == ordered(kind, known(n), seed)
    assert ordered(f"reverse:{kind}", known(n), seed) == order[::-1]
    assert ordered(f"reverse:reverse:{kind}", known(n), seed) == order


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(["random", "dataset", "time_mix", "time_chunk", "frequency", "easy_hard"]), st.integers(0, 99))
def test_another_set_leaves_the_order_of_the_others(kind: str, seed: int) -> None:
    everything = known(12)
    less = known(12)
    less.keys = [key for key in everything.keys if key[0] != "c"]
    places = [everything.keys.index(key) for key in less.keys]
    less.set_of = {key: key[0] for key in less.keys}
    less.counts = lambda: everything.counts()[places]
    less.scores = lambda which: everything.scores(which)[places]
    assert [key for key in ordered(kind, everything, seed) if key[0] != "c"] == ordered(kind, less, seed)


def test_sets_come_one_by_one() -> None:
    assert sorted(runs([key[0] for key in ordered("dataset", known(), 3)])) == ["a", "b", "c"]
    starts = {runs([key[0] for key in ordered("dataset", known(), seed)])[0] for seed in range(20)}
    assert starts == {"a", "b", "c"}
    assert ordered("listed", known(), 5) == known().keys


def test_time_goes_by_years_with_sets_apart_or_mixed() -> None:
    for kind in ("time_chunk", "time_mix"):
        years = [YEARS[key[0]] for key in ordered(kind, known(), 1)]
        assert years == sorted(years)
    assert len(runs([key[0] for key in ordered("time_chunk", known(), 1)])) == 3
    mixed = [len(runs([key[0] for key in ordered("time_mix", known(30), seed)])) for seed in range(5)]
    assert min(mixed) > 3
    nobody = known()
    nobody.years = {**YEARS, "b": None}
    with pytest.raises(UserError, match="that of b is not known"):
        ordered("time_chunk", nobody, 0)


def test_scores_and_counts_sort_and_ties_are_drawn() -> None:
    order = ordered("frequency", known(), 0)
    counts = [int(key[4:]) % 5 for key in order]
    assert counts == sorted(counts)
    assert ordered("frequency", known(), 1) != order
    scores = dict(zip(known().keys, known().scores("").tolist(), strict=True))
    easy = [scores[key] for key in ordered("easy_hard", known(), 0)]
    assert easy == sorted(easy, reverse=True)


def test_the_walk_goes_to_the_nearest_that_is_left() -> None:
    source = known(15, seed=4)
    vectors = dict(zip(source.keys, source.embeddings(), strict=True))
    order = ordered("similarity", source, 2)
    for place, key in enumerate(order[:-1]):
        left = order[place + 1 :]
        assert left[0] == max(left, key=lambda other: float(vectors[key] @ vectors[other]))


@pytest.mark.parametrize("seed", range(5))
def test_neighbours_are_nearer_than_in_a_random_order(seed: int) -> None:
    source = known(60, seed)
    place = {key: i for i, key in enumerate(source.keys)}

    def cosine(kind: str) -> float:
        return neighbour_cosine(source.embeddings()[[place[key] for key in ordered(kind, source, seed)]])

    assert cosine("similarity") > cosine("random") + 0.4
    assert cosine("similarity") > cosine("cluster") > cosine("random") + 0.1


def test_clusters_are_those_of_the_data() -> None:
    centres = np.eye(3)[[0, 1, 2, 0, 1, 2, 0, 1, 2]] * 5
    vectors = centres + np.random.default_rng(0).normal(size=(9, 3)) * 0.1
    group = kmeans(vectors, 3, [3, 1, 2, 9, 9, 9, 9, 9, 9])
    assert [group[i] == group[j] for i in range(9) for j in range(9)] == [
        i % 3 == j % 3 for i in range(9) for j in range(9)
    ]


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 400), st.data())
def test_the_first_tasks_have_one_concept_more(n: int, data: st.DataObject) -> None:
    tasks = data.draw(st.integers(1, n))
    sizes = task_sizes(n, tasks)
    assert sizes == [n // tasks + 1] * (n % tasks) + [n // tasks] * (tasks - n % tasks)
    assert [i for group in cut(range(n), sizes) for i in group] == list(range(n))


def test_the_published_streams_task_sizes() -> None:
    assert task_sizes(18_381, 20) == [920] + [919] * 19


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(min_size=1), unique=True), st.text(min_size=1), st.integers(0, 9))
def test_a_keyed_shuffle_hangs_on_each_name_alone(names: list[str], more: str, seed: int) -> None:
    assert [name for name in shuffled([*names, more], seed) if name != more] == [
        name for name in shuffled(names, seed) if name != more
    ]


def test_draws_are_spread_and_keyed() -> None:
    draws = np.array([draw(0, i) for i in range(4000)], np.float64) / 2**64
    assert abs(draws.mean() - 0.5) < 0.02
    assert draw(0, "a", "b") != draw(0, "ab") != draw(1, "ab")


# -- frequency ---------------------------------------------------------------------------------------------------------


def concept(said: str, images: int = 1, captions: list[tuple[str, ...]] | None = None) -> Any:
    source = SimpleNamespace(primer="a photo of a {}", captions={} if captions is None else {"train": captions})
    return SimpleNamespace(
        source=source, said=said, class_name=said, key=f"s+++{said}", train=np.arange(images), role="pretraining"
    )


def test_names_are_counted_as_phrases_of_whole_words() -> None:
    pool = [
        concept("cat", 5),
        concept("Cats!", 2),
        concept("tom cat", 3),
        concept("web", 3, [("A TOM-CAT, asleep",), ("category theory",), ("cats and cats",)]),
    ]
    wanted = [concept(name) for name in ("cat", "tom cat", "theory", "dog")]
    assert counts_in_pool(wanted, pool).tolist() == [5 + 2 + 3 + 2, 3 + 1, 1, 0]


def test_counts_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    path.write_text(json.dumps({"cat": 3, "s+++dog": 5, "dog": 1}))
    assert counts_in_file(path, [concept("dog"), concept("cat")]).tolist() == [5, 3]
    with pytest.raises(UserError, match="no count of s\\+\\+\\+elk"):
        counts_in_file(path, [concept("elk")])


# -- stream files ------------------------------------------------------------------------------------------------------


def test_a_stream_file_is_read_back(tmp_path: Path) -> None:
    keys = ["beta+++été", "alpha+++a b", "alpha+++c"]
    write_stream_file(tmp_path / "s.json", keys)
    assert json.loads((tmp_path / "s.json").read_text(encoding="utf-8")) == keys
    assert read_stream_file(tmp_path / "s.json", sorted(keys)) == keys
    assert digest_of(keys) != digest_of(keys[::-1])


def test_published_names_are_told_without_capitals(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps(["CIFAR100+++aquarium fish", "DTD+++banded"]))
    assert read_stream_file(path, ["cifar100+++aquarium_fish", "dtd+++banded", "dtd+++woven"]) == [
        "cifar100+++aquarium_fish",
        "dtd+++banded",
    ]


def test_a_name_that_may_mean_two_classes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    known = ["zoo+++red fox", "zoo+++red_fox", "zoo+++e\u0301te"]
    path.write_text(json.dumps(["Zoo+++red fox", "zoo+++\u00e9te", "zoo+++red_fox"]))
    assert read_stream_file(path, known) == [known[0], known[2], known[1]]
    path.write_text(json.dumps(["zoo+++Red-Fox"]))
    with pytest.raises(UserError, match="zoo has no class 'Red-Fox'"):
        read_stream_file(path, known)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not valid JSON"),
        ("{}", "holds no list"),
        ('["alpha"]', "holds no list"),
        ("[]", "lists no concept"),
        ('["alpha+++ant", "alpha+++ant"]', "a concept twice"),
        ('["alpha+++aunt"]', "alpha has no class 'aunt'.*ant"),
        ('["alhpa+++ant"]', "the set 'alhpa', which is none"),
    ],
)
def test_faulty_stream_files_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_stream_file(tmp_path / "s.json", ["alpha+++ant", "alpha+++bee"])
    assert "\n" not in str(error.value)


# -- whole streams -----------------------------------------------------------------------------------------------------


@pytest.fixture
def nano(build: Callable[..., Stream], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stream]:
    """`nano(order_seed=0, **settings)`: a small part of fomo-nano."""
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))

    def make(order_seed: int = 0, **settings: Any) -> Stream:
        small = {
            "sets": ["shapes:inverted", "digits:inverted"],
            "held_out": ["shapes:outline"],
            "pretraining": ["shapes:clean"],
            "train_per_concept": 4,
            "test_per_concept": 2,
            "pool_per_concept": 4,
        }
        return build("fomo-nano", order_seed, None, **{**small, **settings})

    return make


def keys_of(stream: Stream) -> list[str]:
    assert stream.captions is not None
    return [stream.captions.concepts[label] for task in stream.tasks for label in task.classes]


def test_a_streams_order_can_be_written_and_read(nano: Callable[..., Stream], tmp_path: Path) -> None:
    stream = nano(order_seed=3)
    write_stream_file(tmp_path / "order.json", keys_of(stream))
    again = nano(order_seed=8, stream_file=str(tmp_path / "order.json"))
    assert keys_of(again) == keys_of(stream) and again.order == stream.order
    assert digest_of(keys_of(stream)) in stream.notes and digest_of(keys_of(stream)) in again.notes
    write_stream_file(tmp_path / "few.json", keys_of(stream)[:7])
    few = nano(stream_file=str(tmp_path / "few.json"), tasks=3)
    assert keys_of(few) == keys_of(stream)[:7]
    assert [len(task.classes) for task in few.tasks] == [3, 2, 2]
    assert len(next(s for s in few.eval_sets if s.role == "adaptation").classes) < 7


def test_the_commands_write_a_file_and_print_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    given = [
        "sets=[shapes:inverted@0/2]",
        "held_out=[]",
        "pretraining=[shapes:clean]",
        "tasks=4",
        "train_per_concept=3",
    ]
    settings = [part for text in given for part in ("--set", text)]
    fomo_file.main(["fomo-nano", str(tmp_path / "order.json"), *settings, "--order-seed", "2"])
    listed = json.loads((tmp_path / "order.json").read_text(encoding="utf-8"))
    assert len(listed) == 6 and digest_of(listed) in capsys.readouterr().out
    fomo_report.main(["fomo-nano", *settings, "--order-seed", "2"])
    head, *_, last, common = capsys.readouterr().out.splitlines()
    assert digest_of(listed) in head and last.split() == ["task3", "1", "1", "3", "0.000"]
    assert "pool and tasks 6, pool and held-out sets 0" in common and "0 of 60 test images" in common


def test_tasks_of_one_set_are_as_far_from_the_whole_as_sets_are_unequal(nano: Callable[..., Stream]) -> None:
    stream = nano(ordering="dataset", tasks=None)
    assert [len(task.classes) for task in stream.tasks] in ([12, 10], [10, 12])
    for report in task_reports(stream):
        assert report.sets == 1 and report.images == 4 * report.concepts
        share = report.concepts / 22
        middle = (1 + share) / 2
        rest = (share * math.log2(share / middle) + (1 - share) * math.log2((1 - share) / ((1 - share) / 2))) / 2
        assert report.divergence == pytest.approx(rest - math.log2(middle) / 2)
    assert all(report.divergence < 0.1 for report in task_reports(nano(tasks=2)))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=5), st.lists(st.integers(0, 9), min_size=2, max_size=5))
def test_the_divergence_is_symmetric_and_at_most_one_bit(one: list[int], other: list[int]) -> None:
    n = min(len(one), len(other))
    p, q = np.array([*one[:n], 1], float), np.array([*other[:n], 1], float)
    assert jensen_shannon(p, q) == pytest.approx(jensen_shannon(q, p))
    assert 0 <= jensen_shannon(p, q) <= 1
    assert jensen_shannon(p, 3 * p) == pytest.approx(0, abs=1e-12)
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 2.0])) == pytest.approx(1)


def test_a_random_stream_and_its_reversal_hold_the_same(nano: Callable[..., Stream]) -> None:
    one, other = nano(ordering="random"), nano(ordering="reverse:random")
    assert keys_of(other) == keys_of(one)[::-1]
    assert sum(len(task.train) for task in one.tasks) == sum(len(task.train) for task in other.tasks)
