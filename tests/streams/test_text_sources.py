"""How domains are written: slices, mixtures, names; and what is wrong with those that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clbench.data.text import Document
from clbench.streams.text_packing import quotas
from clbench.streams.text_sources import Slice, most_imported, parse_domain, split_list
from clbench.streams.text_years import equal_groups, year_slices


def dated(*years: int | None) -> list[Document]:
    return [Document("text", f"d{i}", year) for i, year in enumerate(years)]


def sliced(text: str) -> Slice:
    found = parse_domain(f"set[{text}]").sources[0].slice
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("English-Novels", "english_novels"),
        ("law_scotus[1990-1999]", "law_scotus.1990-1999"),
        ("law_scotus[year=-1959]", "law_scotus.-1959"),
        ("code[doc=networkx/*]", "code.networkx"),
        ("nx=code[doc=networkx/*]", "nx"),
        ("novels[lang=de]", "novels.de"),
        ("a+b", "a+b"),
        ("./folder/diary.txt", "diary"),
        ("notes.md", "notes"),
        ("./folder/part.v2.jsonl.gz", "part.v2"),
        ("hf:owner/Some-Name", "some_name"),
        ("hf:owner/name@main:german:body[2019]", "name.german.body.2019"),
    ],
)
def test_a_domain_has_a_short_name(text: str, names: str) -> None:
    assert parse_domain(text).name == names


def test_a_name_of_ones_own_makes_no_other_domain() -> None:
    assert parse_domain("mine=a[2019]") == parse_domain("a[year=2019-2019]") != parse_domain("a[2018]")


def test_shares_of_a_mixture() -> None:
    assert parse_domain("a+b").shares == [0.5, 0.5]
    mixed = parse_domain("3*a[lang=en] + 1*b")
    assert mixed.shares == [0.75, 0.25]
    assert [source.text for source in mixed.sources] == ["a[lang=en]", "b"]


def test_a_file_may_hold_a_plus_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(parse_domain("./a+b.txt").sources) == 2
    Path("a+b.txt").write_text("text")
    assert [source.place for source in parse_domain("./a+b.txt").sources] == ["./a+b.txt"]


def test_commas_inside_brackets_do_not_separate() -> None:
    assert split_list("a[doc=x,y], b,c") == ["a[doc=x,y]", "b", "c"]


@given(st.integers(1, 9), st.lists(st.none() | st.integers(1990, 2020), max_size=8))
def test_years_of_a_slice_are_both_included(width: int, years: list[int | None]) -> None:
    held = [d.year for d in dated(*years) if sliced(f"2000-{2000 + width}").holds(d)]
    assert held == [year for year in years if year is not None and 2000 <= year <= 2000 + width]
    opened = [d.year for d in dated(*years) if sliced("2000-").holds(d)]
    assert opened == [year for year in years if year is not None and year >= 2000]


def test_slices_by_pattern() -> None:
    document = Document("import numpy\n", "networkx/core.py", None, None, "python")
    assert sliced("doc=networkx/*").holds(document) and not sliced("doc=networkx").holds(document)
    assert sliced("lang=python").holds(document) and not sliced("lang=*").holds(Document("x", "y"))
    assert sliced("imports=numpy").holds(document)


def test_the_most_imported_library() -> None:
    text = "import os\nimport sys\nfrom torch.nn import Linear\nimport torch\n  import numpy as np\nfrom . import x\n"
    assert most_imported(text) == "torch"
    assert most_imported("from b import c\nfrom a import d\n") == "a"
    assert most_imported("import os\nimportant words\n") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("set[1999-1990]", "comes after"),
        ("set[colour=red]", "unknown slice"),
        ("set[]", "unknown slice"),
        ("[1990]", "no domain"),
        ("a+a", "with itself"),
        ("0*a+b", "above 0"),
        ("hf:", "hf:OWNER/NAME"),
        ("a+", "no domain"),
    ],
)
def test_what_cannot_be_read_is_told(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_domain(text)


@given(st.integers(0, 10_000), st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_quotas_are_whole_and_within_one_of_their_shares(n: int, weights: list[int]) -> None:
    shares = [weight / sum(weights) for weight in weights]
    counts = quotas(n, shares)
    assert sum(counts) == n
    assert all(abs(count - n * share) < 1 for count, share in zip(counts, shares, strict=True))


@given(st.lists(st.integers(1, 100), min_size=1, max_size=20), st.integers(1, 20))
def test_groups_cover_everything_once(sizes: list[int], groups: int) -> None:
    if groups > len(sizes):
        return
    cut = equal_groups(sizes, groups)
    assert len(cut) == groups and all(a < b for a, b in cut)
    assert [a for a, _ in cut] == [0, *(b for _, b in cut[:-1])] and cut[-1][1] == len(sizes)


def test_groups_of_equal_years_are_equal() -> None:
    assert equal_groups([10] * 12, 4) == [(0, 3), (3, 6), (6, 9), (9, 12)]
    assert equal_groups([90, 10, 10, 10], 2) == [(0, 1), (1, 4)]


def test_slices_of_years_are_consecutive() -> None:
    assert year_slices("set", dated(2003, 2001, None, 2001, 2002, 2005), 3) == [
        "set[2001]",
        "set[2002]",
        "set[2003-2005]",
    ]


def test_paths_in_mixtures() -> None:
    for text in ("./a.jsonl+/b/c", "2*/a.jsonl+./c.txt", "c/a.txt[2019]+b.md"):
        assert len(parse_domain(text).sources) == 2, text
    assert parse_domain("3*./x/a.jsonl.gz+b.txt").shares == [0.75, 0.25]
    assert parse_domain("3*./x/a.jsonl.gz+b.txt").name == "a+b"
