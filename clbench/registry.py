"""Finding strategies and streams: by entry point (anyone's package) or by file. Listing imports none of them.

An entry point called `PREFIX:NAME` (with the word NAME) stands for a family: `PREFIX:anything` is what its class's
method `member("anything")` returns. So another library's methods have names here without being listed one by one.
"""

from __future__ import annotations

import inspect
import sys
from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from clbench.strategy import Strategy
    from clbench.stream import Recipe

STRATEGIES = "clbench.strategies"
STREAMS = "clbench.streams"
ANY_MEMBER = ":NAME"

_copies: dict[Path, Path] = {}


@cache
def targets(group: str) -> dict[str, str]:
    """Name -> `module:Class` of every installed entry point of a group but the families, sorted by name."""
    return {name: value for name, value in _points(group) if not name.endswith(ANY_MEMBER)}


@cache
def families(group: str) -> dict[str, str]:
    """`PREFIX:NAME` -> `module:Class` of every installed family of a group, sorted by name."""
    return {name: value for name, value in _points(group) if name.endswith(ANY_MEMBER)}


def _points(group: str) -> list[tuple[str, str]]:
    return sorted((point.name, point.value) for point in entry_points(group=group))


def family_of(name: str, group: str) -> tuple[str, str] | None:
    """The family that a name `PREFIX:member` belongs to, as it is registered, and the part after the colon."""
    prefix, colon, member = name.partition(":")
    entry = f"{prefix}{ANY_MEMBER}"
    return (entry, member) if colon and entry in families(group) else None


def load_strategy(name: str) -> type[Strategy]:
    """The class of a strategy, by name or `file.py[:Class]`. Raises UserError."""
    from clbench.strategy import Strategy

    return _load(name, STRATEGIES, Strategy, "strategy")


def load_recipe(name: str) -> type[Recipe]:
    """The recipe of a stream, by name or `file.py[:Class]`. Raises UserError."""
    from clbench.stream import Recipe

    return _load(name, STREAMS, Recipe, "stream")


def read_from(path: Path, copy: Path) -> None:
    """In this process, import the strategy or stream file `path` from a copy of it: it lies on another machine."""
    _copies[path.resolve()] = copy


def _load(name: str, group: str, base: type, what: str) -> Any:
    path, _, attribute = name.partition(":")
    if path.endswith(".py"):
        return _class_in(_import_file(Path(path), what), attribute, base, path, what)
    if family := family_of(name, group):
        entry, member = family
        return _import_class(entry, families(group)[entry], what).member(member)
    known = targets(group)
    if name not in known:
        plural = {"strategy": "strategies", "stream": "streams"}[what]
        raise UserError(f"unknown {what} {name!r}{did_you_mean(name, known)} (`clbench list {plural}`)")
    return _import_class(name, known[name], what)


def _import_class(name: str, target: str, what: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except SyntaxError as error:
        raise UserError(f"{what} {name}: {error.filename}:{error.lineno}: {error.msg}") from None
    except (ImportError, AttributeError) as error:
        raise UserError(f"{what} {name} ({target}) cannot be imported: {error}") from None


def _import_file(path: Path, what: str) -> Any:
    source = _copies.get(path.resolve(), path)
    if not source.is_file():
        raise UserError(f"no such {what} file: {path}")
    if (inside := _inside(path, what)) is not None:
        return import_module(inside)
    module_name = f"clbench_file_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = spec_from_file_location(module_name, source)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        del sys.modules[module_name]
        raise UserError(f"{what} file {path}:{error.lineno}: {error.msg}") from None
    except Exception as error:
        del sys.modules[module_name]
        raise UserError(f"{what} file {path} cannot be imported: {type(error).__name__}: {error}") from None
    return module


def _inside(path: Path, what: str) -> str | None:
    """The module's name, where the file is one of clbench's own: it may import from its neighbours."""
    package = {"strategy": "clbench.strategies", "stream": "clbench.streams"}[what]
    spec = find_spec(package)
    folders = [] if spec is None else spec.submodule_search_locations or []
    here = path.resolve().parent in [Path(folder).resolve() for folder in folders]
    return f"{package}.{path.stem}" if here else None


def _class_in(module: Any, attribute: str, base: type, path: str, what: str) -> Any:
    found = {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, base) and value.__module__ == module.__name__
    }
    if attribute:
        if attribute not in found:
            raise UserError(f"{path} has no {what} class {attribute!r}{did_you_mean(attribute, found)}")
        return found[attribute]
    if len(found) != 1:
        raise UserError(f"{path} holds {len(found)} {what} classes; name one: {path}:Class")
    return next(iter(found.values()))


def absolute_file(name: str) -> str:
    """`file.py[:Class]` with the absolute path, so that a run can be resumed from anywhere; names as they are."""
    path, colon, attribute = name.partition(":")
    return f"{Path(path).resolve()}{colon}{attribute}" if path.endswith(".py") else name


def source_hash(kind: type) -> str:
    """sha256 (hex) over the source files of a class and its bases, clbench's own base class left out."""
    digest = sha256()
    for base in kind.__mro__:
        if base.__module__ in ("builtins", "abc", "clbench.strategy", "clbench.stream"):
            continue
        file = inspect.getsourcefile(base)
        if file:
            digest.update(Path(file).read_bytes())
    return digest.hexdigest()
