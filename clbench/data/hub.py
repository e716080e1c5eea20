"""Sets of the Hugging Face hub, read with `datasets` and written in the layout. No code from the hub is run."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from clbench.data.layout import staging, write_image_set, write_text_set
from clbench.data.text import Document
from clbench.errors import UserError

ADDRESS = "https://huggingface.co/datasets/"


def get_from_hub(spec: str, root: Path) -> Path:
    """`OWNER/NAME[:CONFIG]`, or a local folder that `datasets` can load, into ROOT/images or ROOT/text.

    Needs an image column and a class label (`ClassLabel` or integers), or a column `text`.
    """
    name, _, config = spec.partition(":")
    short = re.sub(r"\W+", "_", name.rstrip("/").rsplit("/", 1)[-1]).lower()
    for kind in ("images", "text"):
        if (root / kind / short / "info.json").is_file():
            return root / kind / short
    working = root / "downloads" / short
    splits = _load(name, config or None, root, working)
    target = _convert(name, short, splits, root)
    shutil.rmtree(working, ignore_errors=True)
    return target


def _convert(name: str, short: str, splits: dict[str, Any], root: Path) -> Path:
    info = {"name": name, "source": f"{ADDRESS}{name}"}
    features = next(iter(splits.values())).features
    columns = _image_columns(features)
    if columns is not None:
        _write_images(root / "images" / short, splits, *columns, info)
        return root / "images" / short
    if "text" in features:
        with staging(root / "text" / short) as folder:
            for split, rows in splits.items():
                write_text_set(folder, split, hub_documents(rows, short), info)
        return root / "text" / short
    present = ", ".join(features)
    raise UserError(f"{name} has neither an image with a class label nor a column `text` (it has {present})")


def _load(name: str, config: str | None, root: Path, working: Path) -> dict[str, Any]:
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        if not Path(name).is_dir():
            reach_hub()
        loaded = datasets.load_dataset(name, config, cache_dir=str(working))
    except Exception as error:  # its errors come from many libraries and have no common base
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"cannot fetch {name} ({reason}); check the name and the network, or fetch its Parquet files from "
            f"{ADDRESS}{name} elsewhere and put them in {root}/images/NAME or {root}/text/NAME"
        ) from None
    return dict(loaded)


def reach_hub() -> None:
    """Fail at once where there is no network: `datasets` would try for half a minute."""
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("0", "", "false"):
        address = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
        request = Request(f"{address.scheme}://{address.netloc}/", method="HEAD")
        with suppress(HTTPError):  # any answer will do
            urlopen(request, timeout=10).close()


def _image_columns(features: Any) -> tuple[str, str] | None:
    """Names of the image and the label column; ClassLabel before plain integers, `label` before other names."""
    import datasets

    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    named = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    plain = [
        name for name in ("label", "labels", "fine_label") if "int" in str(getattr(features.get(name), "dtype", ""))
    ]
    labels = sorted(named, key=lambda name: (name != "label", name != "fine_label")) + plain
    return (images[0], labels[0]) if images and labels else None


def _write_images(target: Path, splits: dict[str, Any], image: str, label: str, info: dict[str, Any]) -> None:
    import datasets

    first = next(iter(splits.values()))
    names = getattr(first.features[label], "names", None)
    labels = {split: rows.with_format("numpy")[label][:] for split, rows in splits.items()}
    labelled = {split: values for split, values in labels.items() if len(values) and values.min() >= 0}
    if not labelled:
        raise UserError(f"{info['name']} has no labelled rows in column {label!r}; choose another set or configuration")
    if names is None:
        names = [str(value) for value in range(int(max(values.max() for values in labelled.values())) + 1)]
    with staging(target) as folder:
        for split, values in labelled.items():
            column = splits[split].cast_column(image, datasets.Image(decode=False)).select_columns([image])
            encoded = (row[image].get("bytes") or Path(row[image]["path"]).read_bytes() for row in column)
            write_image_set(folder, split, encoded, values, names, info)


def hub_documents(rows: Any, name: str, column: str = "text") -> Iterator[Document]:
    """Rows as documents, numbered where they have no name. A row without text is an empty document."""
    for number, row in enumerate(rows):
        year, stamp, language = row.get("year"), row.get("timestamp") or row.get("date"), row.get("lang")
        yield Document(
            row[column] or "",
            str(row.get("doc") or row.get("id") or f"{name}#{number}"),
            year if isinstance(year, int) else None,
            None if stamp is None else str(stamp),
            None if language is None else str(language),
        )
