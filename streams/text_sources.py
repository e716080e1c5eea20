"""How a domain of text is written: sets and files, slices of them, mixtures, and names of one's own."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from clbench.errors import UserError

from .generated import DOMAINS

if TYPE_CHECKING:
    from clbench.data.text import Document

TEXT_FILES = (".txt", ".md", ".jsonl", ".ndjson", ".json", ".parquet", ".gz")
SLICE_KEYS = ("year", "lang", "doc", "imports")
FORMS = "[1990-1999] (years), [lang=de], [doc=PATTERN] or [imports=LIBRARY]"


@dataclass(frozen=True)
class Slice:
    """Part of a set: documents of some years (both included, None: open), or whose language, name or most imported
    library (Python) fits a pattern with `*` and `?`."""

    text: str
    key: str
    first: int | None = None
    last: int | None = None

    def holds(self, document: Document) -> bool:
        if self.key == "year":
            year = document.year
            return year is not None and (self.first or year) <= year <= (self.last or year)
        if self.key == "imports":
            return most_imported(document.text) == self.pattern
        value = document.lang if self.key == "lang" else document.doc
        return value is not None and fnmatchcase(value, self.pattern)

    @property
    def pattern(self) -> str:
        return self.text.partition("=")[2]

    @property
    def name(self) -> str:
        """`1990-1999`, or the pattern in letters, digits, `-` and `.`."""
        text = self.text.partition("=")[2] or self.text
        return re.sub(r"[^\w.-]+", "_", text).strip("_")


@dataclass(frozen=True)
class Source:
    """One set, file or generator, or a slice of it. `place` is what it is found by, `weight` its part of a mixture."""

    place: str
    slice: Slice | None = None
    weight: float = 1.0

    @property
    def name(self) -> str:
        return place_name(self.place) + (f".{self.slice.name}" if self.slice else "")

    @property
    def text(self) -> str:
        return self.place + (f"[{self.slice.text}]" if self.slice else "")


@dataclass(frozen=True)
class Domain:
    """What a phase trains on: one source, or several in fixed shares. Equal sources make equal domains."""

    sources: tuple[Source, ...]
    name: str = field(compare=False)

    @property
    def shares(self) -> list[float]:
        total = sum(source.weight for source in self.sources)
        return [source.weight / total for source in self.sources]


def split_list(text: str) -> list[str]:
    """The items of `a,b[c,d],e`: commas inside brackets do not count."""
    items = re.split(r",(?![^\[\]]*\])", text)
    return [item.strip() for item in items if item.strip()]


def parse_domain(text: str) -> Domain:
    """`SOURCE`, `NAME=SOURCE`, or `3*SOURCE+SOURCE` (weights; 1 where there is none). Raises ValueError.

    A SOURCE is a generated domain, a set's name, a path, or `hf:OWNER/NAME[:CONFIG[:COLUMN]]`; `[...]` after it takes a
    part of it.
    """
    name, text = _own_name(text.strip())
    parts = [text] if Path(text).expanduser().exists() else re.split(r"\+(?![^\[\]]*\])", text)
    sources = tuple(_source(part.strip(), weighted=len(parts) > 1) for part in parts)
    bare = [(source.place, source.slice) for source in sources]
    if len(set(bare)) < len(bare):
        raise ValueError(f"{text!r} mixes a source with itself")
    return Domain(sources, name or "+".join(source.name for source in sources))


def place_name(place: str) -> str:
    """What a place is called in results: a generated domain's or a set's name, or the last part of a path.

    `English-Novels` and `/data/text/english_novels` are both `english_novels`, `hf:owner/name:config` is `name.config`.
    """
    if place in DOMAINS:
        return place
    config = ""
    if place.startswith("hf:"):
        place, *rest = place.removeprefix("hf:").split(":")
        place = place.split("@")[0].rstrip("/")
        config = "".join(f".{part}" for part in rest if part)
        return (place.rsplit("/", 1)[-1] + config).lower().replace("-", "_")
    path = Path(place).expanduser()
    if _is_path(place):
        path = path.resolve()
        path = Path(path.stem) if path.suffix == ".gz" else path
        return path.stem if path.suffix in TEXT_FILES else path.name
    return place.lower().replace("-", "_")


def most_imported(text: str) -> str | None:
    """The top-level package that most lines of a Python file import, the standard library and relative imports left
    out; the alphabetically first of several, None where there is none."""
    import sys

    counts: dict[str, int] = {}
    for library in re.findall(r"^[ \t]*(?:from|import)[ \t]+([A-Za-z_]\w*)", text, re.MULTILINE):
        if library not in sys.stdlib_module_names:
            counts[library] = counts.get(library, 0) + 1
    return min(counts, key=lambda library: (-counts[library], library)) if counts else None


def nothing_in(source: Source, documents: list[Document]) -> UserError:
    """The error for a slice without documents, with what the set has instead."""
    assert source.slice is not None
    key = source.slice.key
    years = sorted({d.year for d in documents if d.year is not None})
    has = f"its years are {years[0]} to {years[-1]}" if years else "its documents have no year"
    if key in ("lang", "doc"):
        values = sorted({value for d in documents if (value := d.lang if key == "lang" else d.doc) is not None})
        shown = ", ".join(values[:3]) + (", ..." if len(values) > 3 else "")
        has = f"its documents have {key} {shown}" if values else f"its documents have no {key}"
    elif key == "imports":
        libraries = sorted({name for d in documents if (name := most_imported(d.text))})
        has = f"they import most {', '.join(libraries[:6])}" if libraries else "none imports a library in Python"
    return UserError(f"text set {source.place} has no documents in [{source.slice.text}]; {has}")


def _own_name(text: str) -> tuple[str | None, str]:
    match = re.match(r"([\w.-]+)=(?=[^=])", text)
    return (match[1], text[match.end() :].strip()) if match else (None, text)


def _is_path(text: str) -> bool:
    if text.startswith("hf:") or "[" in text:
        return False
    path = Path(text).expanduser()
    return text.startswith((".", "~", "/")) or ("/" in text and path.exists()) or path.suffix in TEXT_FILES


def _source(text: str, weighted: bool) -> Source:
    weight = 1.0
    match = re.match(r"(\d*\.?\d+)\*", text) if weighted else None
    if match:
        weight, text = float(match[1]), text[match.end() :].strip()
        if weight <= 0:
            raise ValueError(f"weight {match[1]} of {text!r}: use a number above 0")
    match = re.fullmatch(r"(.*?)\[([^\[\]]*)\]", text)
    place, cut = (match[1].strip(), _slice(match[2].strip(), text)) if match else (text, None)
    if not place or "[" in place or "]" in place:
        raise ValueError(f"{text!r} is no domain; write NAME, PATH, hf:OWNER/NAME or one of them with {FORMS}")
    if place.startswith("hf:") and not place.removeprefix("hf:").split(":")[0]:
        raise ValueError(f"{text!r}: write hf:OWNER/NAME, hf:OWNER/NAME:CONFIG or hf:OWNER/NAME:CONFIG:COLUMN")
    return Source(place, cut, weight)


def _slice(text: str, whole: str) -> Slice:
    years = re.fullmatch(r"(?:year=)?(?:(\d{1,4})|(\d{1,4})?\s*-\s*(\d{1,4})?)", text)
    if years and any(years.groups()):
        first, last = (years[1], years[1]) if years[1] else (years[2], years[3])
        if first and last and int(first) > int(last):
            raise ValueError(f"{whole!r}: {first} comes after {last}")
        return Slice(f"{first or ''}-{last or ''}" if first != last else str(first), "year", _int(first), _int(last))
    key, equals, pattern = text.partition("=")
    if not equals or key not in SLICE_KEYS or key == "year" or not pattern:
        raise ValueError(f"{whole!r}: unknown slice [{text}]; write {FORMS}")
    return Slice(text, key)


def _int(text: str | None) -> int | None:
    return int(text) if text else None
