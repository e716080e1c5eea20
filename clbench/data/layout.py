"""Writing sets in the layout that docs/data.md describes: SPLIT.parquet beside info.json."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from clbench.data.info import read_info
from clbench.data.text import Document
from clbench.errors import UserError

ROW_GROUP = 5_000


def write_image_set(
    folder: str | Path,
    split: str,
    images: Iterable[np.ndarray | bytes],
    labels: Sequence[int] | np.ndarray,
    class_names: Sequence[str],
    info: dict[str, Any] | None = None,
) -> Path:
    """Write one split and enter it in info.json; returns the Parquet file.

    An image is uint8 [H, W], [1, H, W] or [3, H, W] (stored as PNG), or bytes already encoded (stored as
    they are). Other splits' entries in info.json are kept; the class names must agree with them.
    Labels are not checked here, so that a faulty set can be written too: `clbench data check` finds it.
    """
    import pyarrow as pa

    folder = Path(folder)
    known = read_info(folder).get("class_names")
    if known is not None and list(known) != list(class_names):
        raise UserError(f"{folder / 'info.json'} has other class names than the split {split!r} to be written")
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": list(class_names)},
    }
    schema = pa.schema(
        [("image", image_type), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    labels = np.asarray(labels, np.int64)
    encoded = ({"bytes": image if isinstance(image, bytes) else _png(image), "path": None} for image in images)
    written = _write_parquet(
        folder / f"{split}.parquet",
        schema,
        ({"image": image, "label": int(label)} for image, label in zip(encoded, labels, strict=True)),
    )
    counts = np.bincount(labels[labels >= 0], minlength=len(class_names))
    entry = {"total": written, "min_per_class": int(counts.min()), "max_per_class": int(counts.max())}
    names = {
        "kind": "image classification",
        "num_classes": len(class_names),
        "class_names": list(class_names),
    }
    _update_info(folder, {**names, **(info or {})}, split, entry)
    return folder / f"{split}.parquet"


def write_text_set(
    folder: str | Path, split: str, documents: Iterable[Document], info: dict[str, Any] | None = None
) -> Path:
    """Write one split of a text set and enter it in info.json; returns the Parquet file."""
    import pyarrow as pa

    folder, size = Path(folder), 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal size
        for document in documents:
            size += len(document.text.encode())
            yield asdict(document)

    texts = [("text", pa.string()), ("doc", pa.string())]
    schema = pa.schema([*texts, ("year", pa.int32()), ("timestamp", pa.string()), ("lang", pa.string())])
    written = _write_parquet(folder / f"{split}.parquet", schema, rows())
    entry = {"documents": written, "bytes": size}
    _update_info(folder, {"kind": "text", **(info or {})}, split, entry)
    return folder / f"{split}.parquet"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it at the end, removed on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, renamed to it at the end: a set is there whole or not at all."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise UserError(f"{folder.parent} cannot be written ({error.strerror}); name another place") from None
    try:
        yield temporary
        temporary.chmod(0o755)
        try:
            temporary.rename(folder)
        except OSError:
            raise UserError(f"{folder} is in the way; it is not a complete set: remove it and try again") from None
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); make room or name another place") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_parquet(path: Path, schema: Any, rows: Iterable[dict[str, Any]]) -> int:
    """Write the rows in groups of ROW_GROUP; returns how many there were."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    total, group = 0, []
    with atomic(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for row in rows:
            group.append(row)
            if len(group) == ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema))
                total, group = total + len(group), []
        writer.write_table(pa.Table.from_pylist(group, schema))
    return total + len(group)


def _update_info(folder: Path, info: dict[str, Any], split: str, entry: dict[str, int]) -> None:
    merged = {"name": folder.name, **read_info(folder), **info}
    merged["splits"] = {**merged.get("splits", {}), split: entry}
    with atomic(folder / "info.json") as temporary:
        temporary.write_text(json.dumps(merged, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and len(pixels) not in (1, 3)):
        raise ValueError(f"an image is uint8 [H, W], [1, H, W] or [3, H, W], not {pixels.dtype} {pixels.shape}")
    if pixels.ndim == 3:
        pixels = pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
