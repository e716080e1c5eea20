"""Where a domain's documents come from: a generator, or a text set on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from clbench.errors import UserError, did_you_mean

from .document_split import DocumentSplit, Side
from .generated import DOMAINS, documents

TEXT_FILES = (".txt", ".jsonl", ".ndjson", ".parquet")


def domain_name(source: str) -> str:
    """What a domain is called in results: a generated domain's or a set's name, or the last part of a path.

    `English-Novels` and `/data/text/english_novels` are both `english_novels`.
    """
    if source in DOMAINS:
        return source
    path = Path(source).expanduser()
    if "/" in source or source.startswith((".", "~")) or path.suffix in TEXT_FILES:
        path = path.resolve()
        return path.stem if path.suffix in TEXT_FILES else path.name
    return source.lower().replace("-", "_")


def read_domain(
    source: str, kappa: float, validation: float, enough: Mapping[Side, int], root: Path | None
) -> DocumentSplit:
    """The documents of a domain on their sides.

    Generated documents are split by their text; `enough` says how many characters a side needs. A set keeps the split
    it comes with (its `val`, else its `test` part is for evaluation), or is split by its text if it has none.
    Raises `UserError` for a set that is missing or damaged.
    """
    from clbench.data.root import data_root, find_set
    from clbench.data.text import EVALUATION_SPLITS, load_documents, text_splits

    split = DocumentSplit(validation)
    if source in DOMAINS:
        return split.by_hash(documents(source, kappa=kappa), enough)
    try:
        path = find_set(source, data_root(root), "text")
    except UserError as error:
        hint = did_you_mean(source, DOMAINS)
        if "did you mean" not in hint:
            raise
        raise UserError(f"unknown text domain {source!r}{hint} (generated); otherwise: {error}") from None
    has_evaluation = set(text_splits(path)) & set(EVALUATION_SPLITS)
    train = [document.text for document in load_documents(source, "train", root)]
    if not has_evaluation:
        return split.by_hash(train)
    return split.as_given(train, [document.text for document in load_documents(source, "val", root)])
