"""Reading Parquet files of a set: which there are, and their columns, with one-line errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from clbench.data.cache import file_sha256
from clbench.data.source import ImageSource, ordered_splits
from clbench.errors import UserError

BATCH = 1024


def parquet_files(folder: Path) -> dict[str, list[Path]]:
    """Split -> files: SPLIT.parquet or shards SPLIT-00000-of-00004.parquet, in the folder or its `data/`."""
    found: dict[str, list[Path]] = {}
    for place in (folder, folder / "data"):
        for path in sorted(place.glob("*.parquet")) if place.is_dir() else []:
            name = re.fullmatch(r"(\w+?)(?:-\d+-of-\d+)?(?:-[0-9a-f]{16})?", path.stem)
            if name and not path.name.startswith("."):
                found.setdefault(name[1], []).append(path)
        if found:
            break
    return found


def open_parquet(path: Path) -> Any:
    """A `pyarrow.parquet.ParquetFile`. Raises `UserError` where the file is damaged or unreadable."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def read_batches(path: Path, columns: list[str]) -> Iterator[Any]:
    """Record batches of these columns. Raises `UserError` for a damaged file or a missing column."""
    import pyarrow as pa

    file = open_parquet(path)
    present = file.schema_arrow.names
    for column in columns:
        if column not in present:
            raise UserError(f"{path} has no column {column!r} (it has {', '.join(present)}); rename or add it")
    try:
        yield from file.iter_batches(batch_size=BATCH, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:120]
    return UserError(f"{path} is not a readable Parquet file ({reason}); fetch or write it again")


class ParquetSource(ImageSource):
    """Columns `image` (struct with `bytes` and `path`, or plain bytes) and `label` (an integer)."""

    @cached_property
    def files(self) -> dict[str, list[Path]]:
        return parquet_files(self.path)

    @property
    def splits(self) -> list[str]:
        return ordered_splits(set(self.files))

    def rows(self, split: str) -> Iterator[tuple[bytes, str]]:
        row = 0
        for path in self.files[split]:
            for batch in read_batches(path, ["image"]):
                images, names = _image_column(batch.column(0), path)
                for data, name in zip(images, names, strict=True):
                    yield data or b"", f"row {row} ({name})" if name else f"row {row}"
                    row += 1

    def labels(self, split: str) -> np.ndarray:
        import pyarrow as pa

        parts = [np.empty(0, np.int64)]
        for path in self.files[split]:
            for batch in read_batches(path, ["label"]):
                column = batch.column(0)
                if not pa.types.is_integer(column.type):
                    raise UserError(f"{path}: label holds {column.type}, not integers; number the classes from 0")
                if column.null_count:
                    row = sum(map(len, parts)) + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
                    raise UserError(f"{path}, row {row}: the label is missing; give it one or drop the row")
                parts.append(column.to_numpy(zero_copy_only=False).astype(np.int64))
        return np.concatenate(parts)

    def count(self, split: str) -> int:
        return sum(open_parquet(path).metadata.num_rows for path in self.files[split])

    def digest(self, split: str) -> str:
        return "+".join(file_sha256(path) for path in self.files[split])

    def _names(self) -> list[str] | None:
        """The `ClassLabel` names that the `datasets` library keeps in the schema."""
        metadata = open_parquet(self.files[self.reference][0]).schema_arrow.metadata or {}
        try:
            names = json.loads(metadata[b"huggingface"])["info"]["features"]["label"]["names"]
            return [str(name) for name in names] or None
        except (KeyError, TypeError, ValueError):
            return None


def _image_column(column: Any, path: Path) -> tuple[list[bytes | None], list[str | None]]:
    import pyarrow as pa

    if pa.types.is_struct(column.type):
        fields = {column.type.field(i).name for i in range(column.type.num_fields)}
        if "bytes" in fields:
            names = column.field("path").to_pylist() if "path" in fields else [None] * len(column)
            return column.field("bytes").to_pylist(), names
    elif pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return column.to_pylist(), [None] * len(column)
    raise UserError(
        f"{path}: image holds {column.type}, not encoded bytes or a struct with a field `bytes`; rewrite it"
    )
