"""Text of the Hugging Face hub, read document by document with `datasets`: only as much as is needed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clbench.data.hub import ADDRESS, hub_documents, reach_hub
from clbench.data.text import EVALUATION_SPLITS, Document
from clbench.errors import UserError

PREFIX = "hf:"


def is_local(place: str) -> bool:
    """Whether `hf:...` names a folder on disk instead of the hub."""
    return Path(_parts(place)[0]).expanduser().is_dir()


class HubText:
    """`hf:OWNER/NAME[@REVISION][:CONFIG[:COLUMN]]`, or a local folder in place of OWNER/NAME: files that `datasets`
    reads, or what its `save_to_disk` wrote.

    column: of the texts, `text` where none is named. evaluation: the split to evaluate on, None where there is only
    `train`. Rows may have `year`, `timestamp` (or `date`), `lang` and `doc` (or `id`). No code of the hub is run.
    Raises `UserError` where it cannot be reached or read.
    """

    def __init__(self, place: str) -> None:
        self.name, self.config, self.column = _parts(place)
        self.place = place
        self._splits = self._load()
        if "train" not in self._splits:
            raise UserError(f"{place} has no split 'train' (it has {', '.join(self._splits)})")
        self.evaluation = next((split for split in EVALUATION_SPLITS if split in self._splits), None)

    def documents(self, split: str) -> Iterator[Document]:
        """The documents of a split in their order. Raises `UserError` for a missing column or an unreadable file."""
        rows = iter(self._splits[split])
        first = self._next(rows, split)
        if first is not None and not isinstance(first.get(self.column, 0), (str, type(None))):
            columns = ", ".join(key for key, value in first.items() if isinstance(value, str)) or "none"
            raise UserError(
                f"{self.place} has no text in a column {self.column!r} (columns of text: {columns}); "
                f"write {PREFIX}{self.name}:{self.config or ''}:COLUMN"
            )
        while first is not None:
            yield from hub_documents([first], self.name, self.column)
            first = self._next(rows, split)

    def _next(self, rows: Iterator[dict[str, Any]], split: str) -> dict[str, Any] | None:
        try:
            return next(rows, None)
        except Exception as error:  # its errors come from many libraries and have no common base
            raise UserError(f"{self.place}, split {split}: cannot be read ({_reason(error)})") from None

    def _load(self) -> dict[str, Any]:
        try:
            import datasets
        except ImportError:
            raise UserError(f"{self.place} needs the package datasets: pip install datasets") from None
        if not sys.stderr.isatty():
            datasets.disable_progress_bars()
        folder = Path(self.name).expanduser()
        name, _, revision = self.name.partition("@")
        try:
            if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
                found = datasets.load_from_disk(str(folder))
            elif folder.is_dir():
                found = datasets.load_dataset(str(folder), self.config, streaming=True)
            elif _online():
                found = datasets.load_dataset(name, self.config, revision=revision or None, streaming=True)
            else:
                found = datasets.load_dataset(name, self.config, revision=revision or None)  # what is in its cache
        except Exception as error:
            raise UserError(
                f"cannot read {self.place} ({_reason(error)}); check the name and the network, or fetch its files from "
                f"{ADDRESS}{name} elsewhere and name their folder: {PREFIX}FOLDER"
            ) from None
        return dict(found) if isinstance(found, dict) else {"train": found}


def _parts(place: str) -> tuple[str, str | None, str]:
    name, _, rest = place.removeprefix(PREFIX).partition(":")
    config, _, column = rest.partition(":")
    return name, config or None, column or "text"


def _online() -> bool:
    try:
        reach_hub()
    except OSError:
        return False
    import datasets

    return not datasets.config.HF_HUB_OFFLINE


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
