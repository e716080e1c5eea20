"""Text sets: documents with their dates and languages, from Parquet, JSONL or plain text files."""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clbench.data.info import read_info
from clbench.data.parquet import parquet_files, read_batches
from clbench.data.root import data_root, find_set
from clbench.data.source import SPLIT_NAMES, ordered_splits, rank_split
from clbench.errors import UserError

VAL_SHARE = 0.1  # of the documents, where a set has no splits of its own
LINES = (".jsonl", ".ndjson", ".json")  # an object on every line
TABLES = (".parquet", ".jsonl", ".ndjson")  # files of many documents, by which a folder is known as a text set
PART_CHARACTERS = 4_000  # a single text file is cut into documents of about this length
EVALUATION_SPLITS = ("val", "validation", "valid", "test")  # stand in for one another

Reader = Callable[[], list["Document"]]


@dataclass(frozen=True)
class Document:
    """`doc` names its source, `year` and `timestamp` (ISO date) its time, `lang` its language."""

    text: str
    doc: str
    year: int | None = None
    timestamp: str | None = None
    lang: str | None = None


def load_documents(name_or_path: str | Path, split: str, root: str | Path | None = None) -> list[Document]:
    """The documents of a split, in their order on disk; `split="all"` gives every split, `train` first.

    `val` and `test` stand in for each other. A set without splits of its own is split by the hash of each
    document's name: a tenth (at least one) is `val`. Raises `UserError` for anything wrong with the set.
    """
    path = find_set(name_or_path, data_root(root), "text")
    if path.is_dir():
        read_info(path)
    readers = _readers(path)
    names = ordered_splits(set(readers)) if split == "all" else [_resolve(split, readers, path)]
    documents = [document for name in names for document in readers[name]()]
    if not documents:
        raise UserError(f"{path}, split {split}: no documents; a split needs at least one")
    return documents


def text_splits(path: Path) -> list[str]:
    """Names of the splits of the set at this path, `train` first."""
    return ordered_splits(set(_readers(path)))


def _resolve(split: str, readers: dict[str, Reader], path: Path) -> str:
    for name in (split, *(EVALUATION_SPLITS if split in EVALUATION_SPLITS else ())):
        if name in readers:
            return name
    present = ", ".join(ordered_splits(set(readers)))
    raise UserError(f"{path} has no split {split!r} (it has {present}); add {split}.parquet, .jsonl or .txt")


def _readers(path: Path) -> dict[str, Reader]:
    """Split -> how to read it, for every form a set can take."""
    if path.is_file():
        return _split_by_hash(path, lambda: _file(path, _title(path)))
    if not path.is_dir():
        raise UserError(f"{path} is neither a file nor a folder; name a text set, a folder or a text file")
    parquet = parquet_files(path)
    if set(parquet) & set(SPLIT_NAMES):
        return {split: _reader(files, split) for split, files in parquet.items()}
    for kind in (".jsonl", ".ndjson", ".txt"):
        named = [path / f"{split}{kind}{packed}" for packed in (".gz", "") for split in SPLIT_NAMES]
        whole = {_title(file): _reader([file], _title(file)) for file in named if file.is_file()}
        if whole:
            return whole
    folders = [path / split for split in SPLIT_NAMES if (path / split).is_dir()]
    if folders:
        return {folder.name: _folder_reader(folder) for folder in folders}
    loose = _files(path, TABLES)
    if loose:
        return _split_by_hash(path, lambda: [d for file in loose for d in _file(file, _title(file))])
    if _plain_files(path):
        return _split_by_hash(path, _folder_reader(path))
    raise UserError(
        f"{path} is no text set: it needs train.parquet, train.jsonl, train.txt, train/*.txt, "
        "or other files *.parquet, *.jsonl, *.txt or *.md"
    )


def _files(folder: Path, kinds: tuple[str, ...]) -> list[Path]:
    """All files of these kinds below a folder, hidden ones left out."""
    return sorted(file for file in folder.rglob("*") if _kind(file) in kinds and file.name[0] != "." and file.is_file())


def _plain_files(folder: Path) -> list[Path]:
    """The files of text below a folder: *.txt, or where there is none *.md."""
    return _files(folder, (".txt",)) or _files(folder, (".md",))


def _kind(path: Path) -> str:
    """A file's suffix, the one before `.gz` where it is compressed."""
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def _title(path: Path) -> str:
    """A file's name without its suffixes."""
    return Path(path.stem).stem if path.suffix == ".gz" else path.stem


def _reader(files: list[Path], split: str) -> Reader:
    return lambda: [document for file in files for document in _file(file, split)]


def _folder_reader(folder: Path) -> Reader:
    def read() -> list[Document]:
        return [Document(_plain(file), file.relative_to(folder).as_posix()) for file in _plain_files(folder)]

    return read


def _split_by_hash(path: Path, read: Reader) -> dict[str, Reader]:
    def side(validation: bool) -> list[Document]:
        documents = read()
        names = [document.doc for document in documents]
        chosen = rank_split(names, VAL_SHARE)
        if len(set(names)) == 1:
            raise UserError(
                f"{path}: all its text is one document, which cannot be divided into training and evaluation; give it "
                "more documents, or files train and val"
            )
        return [document for document in documents if (document.doc in chosen) == validation]

    return {"train": lambda: side(False), "val": lambda: side(True)}


def _file(path: Path, name: str) -> list[Document]:
    if path.suffix == ".parquet":
        return list(_parquet_documents(path))
    if _kind(path) in LINES:
        return list(_json_documents(path))
    return [Document(part, f"{name}#{number}") for number, part in enumerate(_parts(_plain(path)), 1)]


def _parquet_documents(path: Path) -> Iterator[Document]:
    row = 0
    optional = [name for name in ("doc", "year", "timestamp", "lang") if name in _columns(path)]
    for batch in read_batches(path, ["text", *optional]):
        try:
            columns = {name: column.to_pylist() for name, column in zip(batch.schema.names, batch.columns, strict=True)}
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, rows from {row}: text is not UTF-8 ({error.reason}); encode it anew") from None
        for values in zip(*columns.values(), strict=True):
            yield _document(dict(zip(columns, values, strict=True)), path, f"row {row}", row)
            row += 1
    if not row:
        raise UserError(f"{path} is empty: it has no rows; a split needs at least one document")


def _columns(path: Path) -> list[str]:
    from clbench.data.parquet import open_parquet

    return list(open_parquet(path).schema_arrow.names)


def _json_documents(path: Path) -> Iterator[Document]:
    for number, line in enumerate(_plain(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not valid JSON ({error}); repair or drop the line") from None
        if not isinstance(record, dict) or "text" not in record:
            has = f" (it has {', '.join(map(str, record))})" if isinstance(record, dict) and record else ""
            raise UserError(
                f'{path}, line {number}: no "text"{has}; each line must be an object with a text '
                "(hf:FOLDER::COLUMN reads another column)"
            )
        yield _document(record, path, f"line {number}", number - 1)


def _document(record: dict[str, Any], path: Path, where: str, row: int) -> Document:
    text, year, stamp, lang = (record.get(name) for name in ("text", "year", "timestamp", "lang"))
    if not isinstance(text, str):
        raise UserError(f"{path}, {where}: text is {type(text).__name__}, not a string; correct or drop it")
    if isinstance(year, float):  # a column in which some rows have none
        year = None if math.isnan(year) else int(year) if year.is_integer() else year
    if year is not None and not isinstance(year, int):
        raise UserError(f"{path}, {where}: year is {year!r}, not a whole number; correct it or leave it out")
    doc = f"{_title(path)}#{row}" if record.get("doc") is None else str(record["doc"])
    if not _is_unicode(text) or not _is_unicode(doc):
        raise UserError(f"{path}, {where}: half of a surrogate pair, which is no character; correct or drop it")
    return Document(
        text,
        doc,
        year,
        None if stamp is None else str(stamp),
        None if lang is None else str(lang),
    )


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold it; JSON can also write halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(path: Path) -> str:
    """A file's text, unpacked if it is compressed, its line ends as they are, without a byte-order mark."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be unpacked ({error}); fetch or write it again") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (at byte {error.start}); convert it, e.g. with iconv") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions") from None
    if not text.strip():
        raise UserError(f"{path} is empty; give it text or remove it")
    return text


def _parts(text: str) -> list[str]:
    """Cut after line ends, so that the parts joined give the text; a part closes once it is long enough. Longer lines
    are cut after white space, or where there is none anywhere."""
    parts: list[str] = []
    lines: list[str] = []
    length = 0
    for line in _short_lines(text):
        lines.append(line)
        length += len(line)
        if length >= PART_CHARACTERS:
            parts.append("".join(lines))
            lines, length = [], 0
    return parts + (["".join(lines)] if lines else [])


def _short_lines(text: str) -> Iterator[str]:
    for line in text.splitlines(keepends=True):
        if len(line) <= PART_CHARACTERS:
            yield line
        else:
            yield from _STRETCHES.findall(line)


_STRETCHES = re.compile(rf"(?s).{{1,{PART_CHARACTERS}}}(?:(?<=\s)|\Z)|.{{1,{PART_CHARACTERS}}}")
