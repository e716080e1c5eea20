"""What sets there are, and whether every row of one is sound."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clbench.data.decode import decode
from clbench.data.info import read_info
from clbench.data.official import open_set, published
from clbench.data.parquet import parquet_files
from clbench.data.progress import progress
from clbench.data.root import Kind, canonical, data_root, find_set, kind_paths, set_paths
from clbench.data.source import SPLIT_NAMES, ImageSource, ordered_splits
from clbench.data.text import Document, load_documents, text_splits
from clbench.errors import UserError

SHOWN = 20  # faulty rows listed by name


@dataclass
class SplitReport:
    """Counts of one split. `sizes`: "WxH" -> images; classes count from `smallest_class` to `largest_class` rows."""

    rows: int = 0
    unreadable: int = 0
    repeated: int = 0
    smallest_class: int | None = None
    largest_class: int | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    bytes: int = 0


@dataclass
class Report:
    """`problems` make the set unusable; `remarks` are worth knowing. `shared`: rows of `train` also elsewhere."""

    name: str
    kind: Kind
    path: str
    classes: int | None = None
    splits: dict[str, SplitReport] = field(default_factory=dict)
    shared: int = 0
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(frozen=True)
class SetEntry:
    """A set as info.json describes it: `splits` maps a split to its rows, None where that is not written down."""

    name: str
    kind: Kind
    path: str
    classes: int | None
    splits: dict[str, int | None]
    title: str


def list_sets(root: str | Path | None = None) -> list[SetEntry]:
    """Every set below the root, images first. Nothing but info.json and folder listings is read."""
    place, entries = data_root(root), []
    kinds: tuple[Kind, Kind] = ("images", "text")
    for kind in kinds:
        entries += [_entry(name, path, kind) for name, path in kind_paths(place, kind)]
    for name, path in set_paths(place, "images"):
        if path.parent == place and ((path / "info.json").is_file() or parquet_files(path)):
            entries.append(_entry(name, path, "text" if _looks_like_text(path) else "images"))
    return entries


def check(name: str, root: str | Path | None = None) -> Report:
    """Read the whole set: rows that do not decode, labels, class counts, repeated rows, rows in two splits.

    Everything found is in the report. Raises `UserError` only where there is no such set.
    """
    place = data_root(root)
    text = any(canonical(found) == canonical(name) for found, _ in kind_paths(place, "text"))
    images = any(canonical(found) == canonical(name) for found, _ in kind_paths(place, "images"))
    if text and not images:
        return _check_text(find_set(name, place, "text"))
    if published(name):
        return _check_images(name, place)
    path = find_set(name, place, "images")
    return _check_text(path) if _looks_like_text(path) else _check_images(str(path), place)


def _looks_like_text(path: Path) -> bool:
    if path.is_file():
        return True
    if read_info(path).get("kind") == "text":
        return True
    return not parquet_files(path) and (any(path.glob("*.jsonl")) or any(path.rglob("*.txt")))


def _entry(name: str, path: Path, kind: Kind) -> SetEntry:
    try:
        info = read_info(path)
    except UserError:
        info = {"name": "info.json is damaged"}
    stated: dict[str, Any] = info["splits"] if isinstance(info.get("splits"), dict) else {}
    files = [split for split in parquet_files(path) if path.is_dir()]
    found = files or [split for split in SPLIT_NAMES if (path / split).is_dir()]
    splits = {split: _rows(stated.get(split)) for split in ordered_splits(set(found))}
    names = info.get("class_names")
    return SetEntry(name, kind, str(path), len(names) if names else None, splits, str(info.get("name", name)))


def _rows(stated: Any) -> int | None:
    if not isinstance(stated, dict):
        return None
    return stated.get("total", stated.get("documents"))


def _check_images(name: str, root: Path) -> Report:
    source = open_set(name, root)
    report = Report(source.name, "images", str(source.path))
    contents: dict[str, Counter[bytes]] = {}
    try:
        for split in source.splits:
            report.splits[split] = SplitReport()
            _check_labels(source, split, report)
            contents[split] = _check_rows(source, split, report)
        report.classes = len(source.class_names)
    except UserError as error:
        _add_problem(report, error)
    _compare(contents, report)
    return report


def _add_problem(report: Report, error: UserError) -> None:
    if str(error) not in report.problems:
        report.problems.append(str(error))


def _check_labels(source: ImageSource, split: str, report: Report) -> None:
    try:
        labels = source.checked_labels(split)
    except UserError as error:
        _add_problem(report, error)
        return
    counts = np.bincount(labels, minlength=len(source.class_names))
    report.splits[split].smallest_class = int(counts.min())
    report.splits[split].largest_class = int(counts.max())


def _check_rows(source: ImageSource, split: str, report: Report) -> Counter[bytes]:
    """Decode every row at its own size; returns how often each picture occurs."""
    counts, seen, sizes = report.splits[split], Counter[bytes](), Counter[str]()
    try:
        with progress(f"{source.path.name} {split}", source.count(split)) as advance:
            for data, where in source.rows(split):
                counts.rows += 1
                counts.bytes += len(data)
                advance(1)
                image = _try_to_decode(data, f"{source.path}, split {split}, {where}", counts, report)
                if image is not None:
                    sizes[f"{image.shape[2]}x{image.shape[1]}"] += 1
                    frame = repr(image.shape).encode()
                    seen[hashlib.blake2b(frame + image.tobytes(), digest_size=16).digest()] += 1
    except UserError as error:
        _add_problem(report, error)
    if counts.unreadable > SHOWN:
        report.problems.append(f"{source.path}, split {split}: {counts.unreadable - SHOWN} more unusable images")
    counts.sizes = dict(sizes.most_common())
    return seen


def _try_to_decode(data: bytes, where: str, counts: SplitReport, report: Report) -> np.ndarray | None:
    try:
        return decode(data)
    except ValueError as error:
        counts.unreadable += 1
        if counts.unreadable <= SHOWN:
            report.problems.append(f"{where}: unusable image ({error})")
        return None


def _check_text(path: Path) -> Report:
    report = Report(path.name, "text", str(path))
    contents: dict[str, Counter[bytes]] = {}
    try:
        splits = text_splits(path)
    except UserError as error:
        splits = []
        _add_problem(report, error)
    for split in splits:
        try:
            documents = load_documents(path, split)
        except UserError as error:
            report.splits[split] = SplitReport()
            _add_problem(report, error)
            continue
        report.splits[split] = SplitReport(len(documents), bytes=sum(len(d.text.encode()) for d in documents))
        contents[split] = Counter(map(_text_digest, documents))
        blank = sum(not document.text.strip() for document in documents)
        if blank:
            report.remarks.append(f"{split}: {blank} documents are blank")
    _compare(contents, report)
    return report


def _text_digest(document: Document) -> bytes:
    return hashlib.blake2b(document.text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _compare(contents: dict[str, Counter[bytes]], report: Report) -> None:
    """Rows that occur twice in a split, and rows of `train` that occur in another split as well."""
    for split, seen in contents.items():
        repeated = sum(seen.values()) - len(seen)
        report.splits[split].repeated = repeated
        if repeated:
            report.remarks.append(f"{split}: {repeated} rows repeat another one")
    train = contents.get("train", Counter())
    for split, seen in contents.items():
        shared = len(train.keys() & seen.keys()) if split != "train" else 0
        report.shared += shared
        if shared:
            report.remarks.append(f"{shared} rows of {split} are also in train: scores on it are too high")
