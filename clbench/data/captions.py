"""Captions that a set has of its own: what is said of each image.

Parquet: a column `caption` or `captions`, text or a list of texts. Folders: `captions.json`, an object from a file's
path relative to the set to text or a list of texts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clbench.data.image_folder import FolderSource
from clbench.data.parquet import ParquetSource, open_parquet, read_batches
from clbench.data.source import ImageSource
from clbench.errors import UserError

COLUMNS = ("caption", "captions")
FILE = "captions.json"


def read_captions(source: ImageSource, split: str) -> list[tuple[str, ...]] | None:
    """The captions of every row of a split, () where a row has none; None where the set has none at all."""
    if isinstance(source, ParquetSource):
        return _of_parquet(source, split)
    if isinstance(source, FolderSource) and (source.path / FILE).is_file():
        return _of_folder(source, split)
    return None


def _of_parquet(source: ParquetSource, split: str) -> list[tuple[str, ...]] | None:
    found: list[tuple[str, ...]] = []
    for path in source.files[split]:
        names = open_parquet(path).schema_arrow.names
        column = next((name for name in COLUMNS if name in names), None)
        if column is None:
            return None
        for batch in read_batches(path, [column]):
            found += [_texts(value, f"{path}, row {len(found) + i}") for i, value in enumerate(batch[0].to_pylist())]
    return found


def _of_folder(source: FolderSource, split: str) -> list[tuple[str, ...]]:
    path = source.path / FILE
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no readable JSON ({error}); repair it or remove it") from None
    if not isinstance(said, dict):
        raise UserError(f"{path} holds a {type(said).__name__}, not an object from file names to captions")
    known = [_name(source, file) for each in source.splits for file in source.files(each)]
    if said and known and said.keys().isdisjoint(known):
        raise UserError(f"{path} names none of the set's images: they are to be called as {known[0]!r}")
    names = [_name(source, file) for file in source.files(split)]
    return [_texts(said.get(name), f"{path}, {name}") for name in names]


def _name(source: FolderSource, file: Path) -> str:
    return file.relative_to(source.path).as_posix()


def _texts(value: Any, where: str) -> tuple[str, ...]:
    texts = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: a caption is text or a list of texts")
    return tuple(text.strip() for text in texts if text.strip())
