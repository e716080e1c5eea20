"""Where data sets and caches live, and how a set's name becomes a path."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from clbench.errors import UserError, did_you_mean

Kind = Literal["images", "text"]

TEXT_FILES = (".txt", ".jsonl", ".ndjson", ".parquet")


def data_root(explicit: str | Path | None = None) -> Path:
    """The folder of data sets: the argument, else `CLBENCH_DATA`, else the user's cache folder."""
    if explicit:
        return Path(explicit).expanduser()
    if os.environ.get("CLBENCH_DATA"):
        return Path(os.environ["CLBENCH_DATA"]).expanduser()
    return _user_cache() / "data"


def cache_dir() -> Path | None:
    """The folder of decoded arrays and features (`CLBENCH_CACHE`, else the user's cache), made if absent.

    None where it cannot be written: callers then work without a cache.
    """
    folder = cache_place()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def cache_place() -> Path:
    """Where the cache is, or would be: it may hold something even where it cannot be written."""
    return Path(os.environ["CLBENCH_CACHE"]) if os.environ.get("CLBENCH_CACHE") else _user_cache()


def _user_cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("clbench", appauthor=False)


def canonical(name: str) -> str:
    """What names are compared by: `Tiny-ImageNet` and `tiny_imagenet` name the same set."""
    return name.lower().replace("-", "").replace("_", "")


def find_set(name_or_path: str | Path, root: Path, kind: Kind) -> Path:
    """The folder (or, for text, the file) of a set: ROOT/KIND/NAME, ROOT/NAME, or a path given directly.

    Raises `UserError` naming the nearest sets and how to get the missing one.
    """
    given = str(name_or_path)
    if not given:
        raise UserError(f"the name of {_a(kind)} set is empty; `clbench data list` shows what there is")
    looks_like_path = any(mark in given for mark in (os.sep, "/", "~")) or given in (".", "..")
    if not looks_like_path:
        for name, path in set_paths(root, kind):
            if canonical(name) == canonical(given):
                return path
    direct = Path(given).expanduser()
    if direct.exists():
        return direct
    if looks_like_path:
        raise UserError(f"no {_noun(kind)} set at {direct}: there is no such file or folder")
    raise UserError(_missing(given, root, kind))


def set_paths(root: Path, kind: Kind) -> Iterator[tuple[str, Path]]:
    """(name, path) of everything in ROOT/KIND, then of the folders in ROOT that may be a set of this kind."""
    yield from kind_paths(root, kind)
    for path in _visible(root):
        if path.is_dir() and path.name not in ("images", "text", "downloads"):
            yield path.name, path


def kind_paths(root: Path, kind: Kind) -> Iterator[tuple[str, Path]]:
    """(name, path) of everything in ROOT/KIND: folders, and for text also single files."""
    for path in _visible(root / kind):
        if path.is_dir():
            yield path.name, path
        elif kind == "text" and path.suffix in TEXT_FILES:
            yield path.stem, path


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []


def _missing(name: str, root: Path, kind: Kind) -> str:
    other: Kind = "text" if kind == "images" else "images"
    if any(canonical(found) == canonical(name) for found, _ in kind_paths(root, other)):
        return f"{name} is {_a(other)} set (in {root / other}), but {_a(kind)} set is needed here"
    near = did_you_mean(name, {found for found, _ in set_paths(root, kind)})
    advice = f"run `clbench data get {name}`, or put the set in {root / kind / name}"
    if not root.is_dir():
        advice += " (this folder does not exist; CLBENCH_DATA or --data-root name another)"
    return f"no {_noun(kind)} set {name!r} in {root}{near}; {advice}".replace("?; ", "? ")


def _noun(kind: Kind) -> str:
    return "image" if kind == "images" else "text"


def _a(kind: Kind) -> str:
    return "an image" if kind == "images" else "a text"
