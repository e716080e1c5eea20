from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clbench.data.fingerprint import text_fingerprint
from clbench.data.layout import write_text_set
from clbench.data.text import Document, load_documents
from clbench.errors import UserError

DOCUMENTS = [
    Document("Ein Satz.\r\nNoch einer.", "a", 1901, "1901-02-03", "de"),
    Document("第二", "b", None, None, "zh"),
    Document("third", "c"),
]


def refused(path: Path, split: str = "train") -> str:
    with pytest.raises(UserError) as caught:
        load_documents(path, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_round_trip(root: Path) -> None:
    folder = root / "text" / "prose"
    write_text_set(folder, "train", DOCUMENTS, {"licence": "none"})
    write_text_set(folder, "val", DOCUMENTS[:1])
    assert load_documents("prose", "train", root) == DOCUMENTS
    assert load_documents("prose", "test", root) == load_documents("prose", "val", root) == DOCUMENTS[:1]
    assert load_documents("prose", "all", root) == DOCUMENTS + DOCUMENTS[:1]
    info = json.loads((folder / "info.json").read_text())
    assert info["splits"]["train"]["documents"] == 3 and info["licence"] == "none"


def test_fingerprint_ignores_order_and_names() -> None:
    renamed = [Document(d.text, d.doc * 2, d.year, d.timestamp, d.lang) for d in DOCUMENTS]
    assert text_fingerprint(DOCUMENTS) == text_fingerprint(renamed[::-1])
    assert text_fingerprint(DOCUMENTS) != text_fingerprint(DOCUMENTS[:2])
    assert text_fingerprint([Document("x", "", 1)]) != text_fingerprint([Document("x", "", 2)])


def test_jsonl(tmp_path: Path) -> None:
    lines = [
        json.dumps({"text": "one\u2028still one", "year": 3}),
        "",
        json.dumps({"text": "two", "doc": "d", "more": 1}),
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert load_documents(tmp_path, "train") == [
        Document("one\u2028still one", "train#0", 3),
        Document("two", "d"),
    ]


def test_folder_of_text_files(tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / f"{i}.txt").write_bytes(b"\xef\xbb\xbftext %d\r\n" % i)
    train, val = load_documents(tmp_path, "train"), load_documents(tmp_path, "val")
    assert len(train) == 18 and len(val) == 2
    assert {d.text for d in train + val} == {f"text {i}\r\n" for i in range(20)}
    assert load_documents(tmp_path, "val") == val


def test_folders_of_splits(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "deep").mkdir(parents=True)
        (tmp_path / split / "deep" / "a.txt").write_text(split)
    assert load_documents(tmp_path, "val") == [Document("val", "deep/a.txt")]


def test_single_text_file_is_cut_without_loss(root: Path) -> None:
    (root / "text").mkdir(parents=True)
    text = "".join(f"line {i} of a long text\n" for i in range(3000))
    (root / "text" / "book.txt").write_text(text)
    train, val = load_documents("book", "train", root), load_documents("book", "val", root)
    parts = sorted(train + val, key=lambda d: int(d.doc.split("#")[1]))
    assert "".join(part.text for part in parts) == text
    assert train and val and len(val) < len(train)


def test_whole_files_as_splits(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a")
    (tmp_path / "test.txt").write_text("b")
    assert [d.text for d in load_documents(tmp_path, "val")] == ["b"]


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "parquet"])
def test_a_folder_of_files_without_split_names(tmp_path: Path, suffix: str) -> None:
    texts = [f"text {i}" for i in range(40)]
    (tmp_path / "deep").mkdir()
    for name, part in (("a", texts[:25]), ("deep/b", texts[25:])):
        file = tmp_path / f"{name}.{suffix}"
        if suffix == "parquet":
            pq.write_table(pa.table({"text": part}), file)
        else:
            file.write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    train, val = (load_documents(tmp_path, split) for split in ("train", "val"))
    assert len(val) == 4 and sorted(d.text for d in train + val) == sorted(texts)


def test_markdown_where_there_are_no_text_files(tmp_path: Path) -> None:
    for i in range(10):
        (tmp_path / f"{i}.md").write_text(f"# note {i}")
    assert len(load_documents(tmp_path, "all")) == 10
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    assert [d.text for d in load_documents(tmp_path, "train")] in (["a"], ["b"])


def test_compressed_files(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": f"täxt {i}", "year": i}) + "\n" for i in range(20))
    places = [tmp_path / name for name in ("a/train.jsonl", "b/part-0.jsonl", "c.json", "d/e.jsonl")]
    for place in places:
        place.parent.mkdir(exist_ok=True)
        place.with_name(f"{place.name}.gz").write_bytes(gzip.compress(lines.encode()))
    train = load_documents(tmp_path / "a", "train")
    assert train[3] == Document("täxt 3", "train#3", 3) and len(train) == 20
    for place in (tmp_path / "b", tmp_path / "c.json.gz", tmp_path / "d"):
        assert sorted(d.year or 0 for d in load_documents(place, "all")) == list(range(20))
    (tmp_path / "book.txt.gz").write_bytes(gzip.compress(b"line\n" * 3000))
    assert "".join(d.text for d in load_documents(tmp_path / "book.txt.gz", "all")) == "line\n" * 3000
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(lines.encode())[:-9])
    assert "cannot be unpacked" in refused(tmp_path / "c.json.gz")
    (tmp_path / "c.json.gz").write_bytes(b"no gzip")
    assert "cannot be unpacked" in refused(tmp_path / "c.json.gz")


def test_long_lines_are_cut_at_white_space(tmp_path: Path) -> None:
    for name, text in (("a", "words and words " * 5000), ("b", "第" * 9000 + "\nend")):
        (tmp_path / f"{name}.txt").write_text(text)
        parts = sorted(load_documents(tmp_path / f"{name}.txt", "all"), key=lambda d: int(d.doc.split("#")[1]))
        assert "".join(d.text for d in parts) == text and len(parts) > 2
        assert name == "b" or all(d.text.endswith(" ") for d in parts)


def test_one_document_cannot_be_divided(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("short")
    assert "is one document" in refused(tmp_path / "one.txt")
    (tmp_path / "same.jsonl").write_text('{"text": "a", "doc": "d"}\n{"text": "b", "doc": "d"}')
    assert "is one document" in refused(tmp_path / "same.jsonl", "val")


def test_years_of_a_column_with_gaps(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"], "year": [1999.0, float("nan")]}), tmp_path / "train.parquet")
    assert [d.year for d in load_documents(tmp_path, "train")] == [1999, None]
    pq.write_table(pa.table({"text": ["a"], "year": [1999.5]}), tmp_path / "train.parquet")
    assert "year is 1999.5" in refused(tmp_path)


def test_empty_and_misencoded_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("fine")
    (tmp_path / "b.txt").write_text(" \n")
    assert "b.txt is empty" in refused(tmp_path)
    (tmp_path / "b.txt").write_bytes("caf\u00e9".encode("latin-1"))
    assert "b.txt is not UTF-8 (at byte 3)" in refused(tmp_path)


def test_faulty_parquet(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"content": ["a"]}), path)
    assert "no column 'text' (it has content)" in refused(tmp_path)
    pq.write_table(pa.table({"text": ["a", None]}), path)
    assert "row 1: text is NoneType" in refused(tmp_path)
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert "is empty" in refused(tmp_path)
    invalid = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff\xfe"]).buffers())
    pq.write_table(pa.table({"text": invalid}), path)
    assert "not UTF-8" in refused(tmp_path)
    path.write_bytes(b"PAR1 nonsense")
    assert "not a readable Parquet file" in refused(tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1: not valid JSON"),
        ('{"t": 1}', 'no "text"'),
        ("[]", 'no "text"'),
        ('{"text": 3}', "text is int"),
        ('{"body": "a", "id": 3}', 'no "text" (it has body, id)'),
        (r'{"text": "\ud800"}', "half of a surrogate pair"),
        (r'{"text": "a", "doc": "\udfff"}', "half of a surrogate pair"),
    ],
)
def test_faulty_jsonl(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "train.jsonl").write_text(line)
    assert said in refused(tmp_path)


def test_missing_split_and_set(root: Path, tmp_path: Path) -> None:
    write_text_set(root / "text" / "prose", "train", DOCUMENTS)
    assert "no split 'val' (it has train)" in refused(root / "text" / "prose", "val")
    with pytest.raises(UserError, match="did you mean prose"):
        load_documents("prosa", "train", root)
    (tmp_path / "empty").mkdir()
    assert "is no text set" in refused(tmp_path / "empty")


@pytest.mark.skipif(not os.environ.get("CLBENCH_DATA"), reason="CLBENCH_DATA names no folder of real sets")
def test_real_texts() -> None:
    train = load_documents("law-scotus", "train")
    assert len(train) == 566 and all(d.year and 1955 <= d.year <= 2025 for d in train)
    assert len(load_documents("chinese_poetry", "val")) == 1665
