"""Phases of a text stream: budgets, an upstream, further text of one domain, the control, mixtures, slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clbench.config import parse_config
from clbench.data.layout import write_text_set
from clbench.data.text import Document
from clbench.errors import UserError
from clbench.registry import load_recipe
from clbench.samples import Samples
from clbench.stream import Stream
from clbench.streams.text_overlap import overlap_note, overlaps

SMALL = {"tokens": 3_200, "eval_blocks": 12, "context": 32}


def build(name: str = "text-shift", order_seed: int = 0, root: Path | None = None, **settings: Any) -> Stream:
    recipe = load_recipe(name)
    config = parse_config(recipe.Config, {**SMALL, **settings}, f"stream {name}")
    return recipe(name, config, order_seed=order_seed, data_root=root).build()


def error_of(**settings: Any) -> str:
    with pytest.raises(UserError) as error:
        build(**settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def rows(samples: Samples) -> np.ndarray:
    return samples.raw(torch.arange(len(samples))).numpy()


def names(stream: Stream) -> list[str]:
    return [task.name for task in stream.tasks]


def about(topic: str, count: int, **fields: Any) -> list[Document]:
    return [
        Document(f"{topic} {i}: " + " ".join(f"{topic}{(i * 7 + j) % 97}" for j in range(30)), f"{topic}/{i}", **fields)
        for i in range(count)
    ]


def write(root: Path, name: str, train: list[Document], val: list[Document]) -> None:
    write_text_set(root / "text" / name, "train", train)
    write_text_set(root / "text" / name, "val", val)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of documents of 2001 (in German) to 2004 (in English)."""
    root = tmp_path_factory.mktemp("root")
    for split, count in (("train", 60), ("val", 20)):
        documents = [
            document
            for year in range(2001, 2005)
            for document in about(f"{split[0]}y{year}w", count, year=year, lang="de" if year == 2001 else "en")
        ]
        write_text_set(root / "text" / "dated", split, documents)
    return root


def test_budgets_by_phase() -> None:
    def lengths(stream: Stream) -> list[int]:
        return [len(task.train) for task in stream.tasks]

    assert lengths(build(tokens="6400,3.2k,1600")) == [200, 100, 50]
    assert lengths(build(upstream_tokens="6.4k")) == [200, 100, 100]
    assert lengths(build(upstream_tokens=6400, tokens=[1600, 3200])) == [200, 50, 100]
    assert build(tokens=[3200] * 3).content == build().content
    assert "2 numbers for 3 domains" in error_of(tokens="3200,3200")
    assert "3 numbers for 2 domains after the first" in error_of(tokens="64,64,64", upstream_tokens=64)
    assert "-5" in error_of(tokens=-5)
    assert "tokens" in error_of(tokens="many")


def test_what_is_not_used_is_no_part_of_the_specification() -> None:
    def written(name: str, **settings: Any) -> set[str]:
        return set(load_recipe(name).Config(**settings).model_dump(mode="json"))

    later = {"drift", "upstream_tokens", "no_shift"}
    assert not written("text-shift") & later
    assert written("text-shift", upstream_tokens="1k") & later == {"upstream_tokens"}
    assert written("tiny-weak", upstream_tokens=None) & later == {"upstream_tokens"}


def test_the_upstream_stays_first_whatever_the_order() -> None:
    streams = [build(order_seed=seed, upstream_tokens=6400, tokens="1600,3200") for seed in range(6)]
    assert {tuple(names(stream)) for stream in streams} == {("prose", "code", "cipher"), ("prose", "cipher", "code")}
    assert len({stream.content for stream in streams}) == 1
    assert all(len(task.train) == {"prose": 200, "code": 50, "cipher": 100}[task.name] for task in streams[1].tasks)


def test_a_domain_named_again_goes_on_with_further_text() -> None:
    stream = build(domains="prose,code,prose", tokens="3200,3200,1600")
    assert names(stream) == ["prose", "code", "prose.2"]
    first, further = rows(stream.tasks[0].train), rows(stream.tasks[2].train)
    assert np.array_equal(first, rows(build(domains="prose").tasks[0].train)) and len(further) == 50
    assert further[0, 0] == first[-1, -1]  # the next target
    assert not {row.tobytes() for row in further} & {row.tobytes() for row in first}
    assert [(s.name, s.belongs_to) for s in stream.eval_sets] == [("prose", 0), ("code", 1), ("prose.2", 2)]
    assert np.array_equal(rows(stream.eval_sets[0].data), rows(stream.eval_sets[2].data))
    assert set(stream.tasks[2].train.labels.tolist()) == {2}
    assert "several phases" in error_of(domains="prose,prose", tokens=0)


def test_the_control_has_no_shift_and_the_same_evaluation_sets() -> None:
    stream, control = build(upstream_tokens=6400), build(upstream_tokens=6400, no_shift=True)
    assert names(control) == ["prose", "prose.2", "prose.3"]
    assert [len(task.train) for task in control.tasks] == [len(task.train) for task in stream.tasks]
    sets = {s.name: s for s in control.eval_sets}
    assert {name: s.belongs_to for name, s in sets.items()} == {
        "prose": 0, "prose.2": 1, "prose.3": 2, "code": None, "cipher": None,
    }  # fmt: skip
    for eval_set in stream.eval_sets:
        assert np.array_equal(rows(eval_set.data), rows(sets[eval_set.name].data))
    assert np.array_equal(rows(stream.tasks[0].train), rows(control.tasks[0].train))
    assert control.content != stream.content
    indices = torch.cat([task.train.index for task in control.tasks])
    assert len(indices.unique()) == len(indices)


def test_a_control_larger_than_its_domain_is_told(mixed: Path) -> None:
    message = error_of(root=mixed, domains="dated[2001],dated[2002]", tokens=12_800, no_shift=True)
    assert "25600 are asked of it in 2 phases" in message


def test_a_mixture_has_its_shares_of_every_side(mixed: Path) -> None:
    stream = build(root=mixed, domains="3*dated[2001]+dated[2004],dated[2002]", validation=0.1)
    assert names(stream) == ["dated.2001+dated.2004", "dated.2002"]
    blocks, held_out = rows(stream.tasks[0].train), rows(stream.eval_sets[0].data)

    def of(year: int, blocks: np.ndarray) -> int:
        return sum(str(year).encode() in bytes(np.where(row > 255, 0, row).astype(np.uint8)) for row in blocks)

    assert len(blocks) == 100 and of(2001, blocks) >= 74 and of(2004, blocks) >= 24
    assert len(held_out) == 12 and of(2001, held_out) >= 8 and of(2004, held_out) == 3
    assert of(2002, blocks) == 0


def test_slices_are_domains_with_evaluation_sets_of_their_own(mixed: Path) -> None:
    stream = build(root=mixed, domains="dated[lang=de],late=dated[2003-]")
    assert names(stream) == ["dated.de", "late"]
    for samples, years in ((stream.tasks[0].train, (b"ty2001",)), (stream.eval_sets[1].data, (b"vy2003", b"vy2004"))):
        text = b"".join(bytes(np.where(row > 255, 0, row).astype(np.uint8)) for row in rows(samples))
        assert all(year in text for year in years)
        assert not any(b"y%d" % year in text for year in range(2001, 2005) if not any(b"%d" % year in y for y in years))


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ("dated[1990-1999]", "its years are 2001 to 2004"),
        ("dated[lang=fr]", "lang de, en"),
        ("dated[doc=zz*]", "doc "),
        ("dated[imports=torch]", "none imports a library"),
        ("prose[2001]", "no slices"),
    ],
)
def test_a_slice_that_holds_nothing_is_told(mixed: Path, domain: str, message: str) -> None:
    assert message in error_of(root=mixed, domains=domain)


def test_two_domains_of_one_name_need_names(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    assert "would be called a" in error_of(domains=f"{tmp_path}/a.txt,a")


def test_slices_of_years(mixed: Path) -> None:
    stream = build("text-years", root=mixed, source="dated", slices=2)
    assert names(stream) == ["dated.2001-2002", "dated.2003-2004"]
    assert [s.belongs_to for s in stream.eval_sets] == [0, 1]
    assert stream.default_model == "byte-gpt?ctx=32,d=128,layers=4,heads=4"
    with pytest.raises(UserError, match="4 years; set slices=4"):
        build("text-years", root=mixed, source="dated", slices=5)


def test_a_set_without_years_has_no_slices_of_years(tmp_path: Path) -> None:
    write(tmp_path, "undated", about("alpha", 40), about("held", 20))
    with pytest.raises(UserError, match="has no years"):
        build("text-years", root=tmp_path, source="undated")
    assert "no year" in error_of(root=tmp_path, domains="undated[2001]")


@pytest.mark.parametrize(
    ("name", "tasks"),
    [
        ("tiny-weak", ["prose", "prose2"]),
        ("tiny-strong", ["prose", "cipher"]),
        ("tiny-three", ["prose", "code", "cipher"]),
        ("tiny-split3", ["prose", "prose.2", "prose.3"]),
        ("tiny-months", [f"month{i}" for i in range(1, 7)]),
    ],
)
def test_generated_presets(name: str, tasks: list[str]) -> None:
    assert names(build(name)) == tasks


def test_the_presets_on_real_text_fit_their_sets_and_so_do_their_controls(real_data: Path) -> None:
    presets = ("text-weak", "text-strong", "text-three", "text-split3", "text-languages", "text-code-apis")
    for name in presets:
        recipe = load_recipe(name)
        config = recipe.Config()
        first = config.tokens if config.upstream_tokens is None else config.upstream_tokens
        asked = first + (len(config.domains) - 1) * config.tokens
        from clbench.streams.text_domains import Library
        from clbench.streams.text_sources import parse_domain

        library = Library(1.0, 0.25, 0.0, real_data)
        split = library.split(parse_domain(config.domains[0]).sources[0], {})
        assert sum(len(text.encode()) for text in split.texts("train")) >= asked, name


def test_overlaps_are_measured_in_shingles() -> None:
    shared = [f"common sentence number {i} of the licence text, repeated everywhere. " * 2 for i in range(20)]
    fresh = [
        f"wholly {i} different {i * 7} words {i * 31} of this one document only {i * i} and more of it"
        for i in range(20)
    ]
    found = overlaps({"a": shared + fresh, "b": fresh}, {"held": shared, "b": ["nothing of this kind " * 9]})
    in_shared = sum(map(len, shared)) / sum(map(len, shared + fresh))
    assert found["a", "held"] == pytest.approx(in_shared, abs=0.06)
    assert found["b", "held"] == found["a", "b"] == 0.0
    note = overlap_note({("a", "held"): 0.25, ("a", "a"): 0.5, ("b", "held"): 0.0005})
    assert note == "50-byte pieces of a that stand in evaluation documents: held 25.0 %, its own 50.0 %"


def test_what_overlaps_stands_in_the_notes(tmp_path: Path) -> None:
    licence = "Permission is granted to everyone, free of charge, to copy this text and to sell copies of it. "
    spread = [Document(licence + document.text, document.doc) for document in about("alpha", 40)]
    held = [Document(document.text + licence, document.doc) for document in about("held", 20)]
    write(tmp_path, "alpha", spread, about("other", 20))
    write(tmp_path, "beta", about("beta", 40), held)
    stream = build(root=tmp_path, domains="alpha,beta")
    assert "pieces of alpha that stand in evaluation documents: beta" in stream.notes
    assert "pieces of beta" not in stream.notes


def test_packed_blocks_are_kept_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("clbench.data.block_cache.WORTHWHILE", 1_000)
    write(tmp_path, "alpha", about("alpha", 40), about("held", 20))
    first = build(root=tmp_path, domains="alpha,prose", validation=0.2)
    monkeypatch.setattr("clbench.streams.text_packing.Packing.stream", lambda self: pytest.fail("packed again"))
    again = build(root=tmp_path, domains="alpha,prose", validation=0.2)
    assert (again.content, again.order, again.notes) == (first.content, first.order, first.notes)
    assert torch.equal(again.tasks[0].train.pool.inputs, first.tasks[0].train.pool.inputs)
    assert [s.bytes_per_target for s in again.eval_sets] == [s.bytes_per_target for s in first.eval_sets]
    other = build(root=tmp_path, order_seed=1, domains="alpha,prose", validation=0.2)
    assert other.content == first.content
    again.tasks[0].train.pool.inputs[0] = 0  # of this process alone
    assert build(root=tmp_path, domains="alpha,prose", validation=0.2).tasks[0].train.pool.inputs[0].any()
    with pytest.raises(pytest.fail.Exception, match="packed again"):
        build(root=tmp_path, domains="alpha,prose", validation=0.2, context=16)
    write(tmp_path, "alpha", about("gamma", 40), about("held", 20))
    with pytest.raises(pytest.fail.Exception, match="packed again"):
        build(root=tmp_path, domains="alpha,prose", validation=0.2)


def test_an_error_says_how_much_of_a_domain_repeats_its_evaluation_set(tmp_path: Path) -> None:
    write(tmp_path, "twice", about("a", 9), about("a", 9))
    message = error_of(root=tmp_path, domains=["twice"])
    assert "0 train blocks of 32 tokens without the 9 documents that stand in an evaluation set" in message
