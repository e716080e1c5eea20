"""The documents of a domain, on their sides: from a generator, a text set on disk, or the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench.errors import UserError, did_you_mean

from .document_split import DocumentSplit, Enough
from .generated import DOMAINS, VERSION, documents
from .text_sources import Source, nothing_in

if TYPE_CHECKING:
    from clbench.data.text import Document


class Library:
    """Reads the sources of one stream; a set of which several slices are used is read once.

    kappa, drift: of the generated domains. validation: share of the training documents kept apart. root: where sets
    lie.
    """

    def __init__(self, kappa: float, drift: float, validation: float, root: Path | None) -> None:
        self.kappa = kappa
        self.drift = drift
        self.validation = validation
        self.root = root
        self._read: dict[str, tuple[list[Document], list[Document] | None]] = {}

    def split(self, source: Source, enough: Enough) -> DocumentSplit:
        """The documents of a source on their sides.

        Generated documents are split by their text; `enough` says how many characters a side needs there, and of a
        set of the hub. A set keeps the split it comes with (its `val`,
        else its `test` part is for evaluation), or is split by its text if it has none. Raises `UserError` for a set
        that is missing or damaged, and for a slice that holds nothing.
        """
        split = DocumentSplit(self.validation)
        if source.place in DOMAINS:
            if source.slice is not None:
                raise UserError(f"the generated domain {source.place} has no slices; leave out [{source.slice.text}]")
            return split.by_hash(documents(source.place, kappa=self.kappa, drift=self.drift), enough)
        if source.place.startswith("hf:"):
            return self._from_hub(source, split, enough)
        train, evaluation = self.documents(source.place)
        kept = list(_part(source, train))
        if source.slice is not None and not kept:
            raise nothing_in(source, train)
        if evaluation is None:
            return split.by_hash(kept)
        return split.as_given(kept, _part(source, evaluation))

    def documents(self, place: str) -> tuple[list[Document], list[Document] | None]:
        """Training and evaluation documents of a set on disk; None where it comes without a split of its own."""
        if place not in self._read:
            from clbench.data.text import EVALUATION_SPLITS, load_documents, text_splits

            path = self.find(place)
            has_evaluation = set(text_splits(path)) & set(EVALUATION_SPLITS)
            train = load_documents(place, "train", self.root)
            self._read[place] = train, load_documents(place, "val", self.root) if has_evaluation else None
        return self._read[place]

    def find(self, place: str) -> Path:
        """Where a set lies. Raises `UserError` naming the nearest."""
        from clbench.data.root import data_root, find_set

        try:
            return find_set(place, data_root(self.root), "text")
        except UserError as error:
            hint = did_you_mean(place, DOMAINS)
            if "did you mean" not in hint:
                raise
            raise UserError(f"unknown text domain {place!r}{hint} (generated); otherwise: {error}") from None

    def identity(self, source: Source) -> Any:
        """What the documents of a source hang on: equal values, equal documents. None where that is not known."""
        if source.place in DOMAINS:
            shift = {"cipher": self.kappa}.get(source.place, self.drift if source.place.startswith("month") else 0)
            return [source.place, VERSION, shift]
        if source.place.startswith("hf:"):
            from clbench.data.hub_text import is_local

            return None if is_local(source.place) else source.text
        return [source.text, stamps(self.find(source.place))]

    def _from_hub(self, source: Source, split: DocumentSplit, enough: Enough) -> DocumentSplit:
        from clbench.data.hub_text import HubText

        hub = HubText(source.place)
        if hub.evaluation is None:
            found = split.by_hash(_part(source, hub.documents("train")), enough)
        else:
            found = split.as_given(
                _part(source, hub.documents("train")), _part(source, hub.documents(hub.evaluation)), enough
            )
        if source.slice is not None and not found.sides["train"]:
            raise nothing_in(source, list(islice(hub.documents("train"), 1000)))
        return found


def stamps(path: Path) -> list[list[Any]]:
    """Path, size and time of change of every file of a set: what a cache of it is found again by."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return [[str(file.resolve()), (state := file.stat()).st_size, state.st_mtime_ns] for file in files]


def _part(source: Source, all_of_it: Iterable[Document]) -> Iterator[str]:
    return (document.text for document in all_of_it if source.slice is None or source.slice.holds(document))
