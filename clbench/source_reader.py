"""Classes read from source text, not imported: their bases, members and values that are written down as literals.

Names are followed through assignments, imports and base classes, into other modules' files. What cannot be followed
is `None`, never a guess.
"""

from __future__ import annotations

import ast
import operator
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clbench.errors import UserError

DEEPEST = 20
ROOTS = {("clbench.strategy", "Strategy"), ("clbench.stream", "Recipe"), ("clbench.config", "Config")}
WITHOUT_MEMBERS = {"ABC", "Generic", "Protocol", "object"}
ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}


class Unknown(Exception):
    """A value that is not written down as a literal."""


@dataclass(eq=False)
class Module:
    """A parsed file: its classes, its assigned names, and where imported names come from (module, name)."""

    name: str
    path: Path
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    values: dict[str, ast.expr] = field(default_factory=dict)
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ClassRef:
    """A class where it is defined; `outer` is the class it is nested in."""

    module: Module
    node: ast.ClassDef
    outer: ClassRef | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.module.name, self.node.name

    @property
    def doc(self) -> str:
        return ast.get_docstring(self.node) or ""


def module_file(name: str) -> Path | None:
    """The file of a module, found without importing it or, where its package lies on a path, its package."""
    top, *rest = name.split(".")
    loaded = sys.modules.get(top)
    try:
        spec = loaded.__spec__ if loaded is not None else find_spec(top)
    except (ImportError, ValueError):
        return None
    folders = [Path(f) for f in (getattr(loaded, "__path__", None) or (spec and spec.submodule_search_locations) or ())]
    if not rest:
        return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None
    for part in rest[:-1]:
        folders = [folder / part for folder in folders]
    for folder in folders:
        for path in (folder / f"{rest[-1]}.py", folder / rest[-1] / "__init__.py"):
            if path.is_file():
                return path
    if name.rpartition(".")[0] not in sys.modules:  # asking for it would import the package
        return None
    try:
        spec = find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def read_module(path: Path, name: str) -> Module:
    """Parse a file, once. Raises UserError where it cannot be read or is not Python."""
    return _parsed(path, name, path.absolute())


@cache
def _parsed(path: Path, name: str, place: Path) -> Module:
    """place: what a relative path stands for."""
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except SyntaxError as error:
        raise UserError(f"{path}:{error.lineno}: {error.msg}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    module = Module(name, path)
    _collect(tree.body, module)
    return module


def _collect(body: list[ast.stmt], module: Module) -> None:
    for node in body:
        if isinstance(node, ast.ClassDef):
            module.classes[node.name] = node
        elif isinstance(node, ast.Assign):
            module.values |= {t.id: node.value for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            module.values[node.target.id] = node.value
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(node, module)
            names = {alias.asname or alias.name: (source, alias.name) for alias in node.names}
            if names.pop("*", None):
                module.stars.append(source)
            module.imports |= names
        elif isinstance(node, ast.Import):
            for alias in node.names:
                target = alias.name if alias.asname else alias.name.split(".")[0]
                module.imports[alias.asname or target] = (target, None)
        elif isinstance(node, (ast.If, ast.Try)):
            _collect([*node.body, *node.orelse], module)


def _absolute(node: ast.ImportFrom, module: Module) -> str:
    if not node.level:
        return node.module or ""
    package = module.name.split(".") if module.path.name == "__init__.py" else module.name.split(".")[:-1]
    package = package[: len(package) - (node.level - 1)]
    return ".".join([*package, *([node.module] if node.module else [])])


def _stars(module: Module) -> Iterator[Module]:
    """Modules whose names are all imported."""
    for source in module.stars:
        path = module_file(source)
        if path is not None:
            yield read_module(path, source)


def find_class(module: Module, name: str, depth: int = 0) -> ClassRef | None:
    """The class a name of a module stands for, however it got there; dotted names reach nested classes."""
    first, *rest = name.split(".")
    found: ClassRef | None = None
    if depth > DEEPEST:
        return None
    if first in module.classes:
        found = ClassRef(module, module.classes[first])
    elif first in module.values:
        found = class_of(module, None, module.values[first], depth + 1)
    elif first in module.imports:
        source, attribute = module.imports[first]
        if attribute is None:
            return _in_package(source, rest, depth + 1)
        path = module_file(source)
        found = find_class(read_module(path, source), attribute, depth + 1) if path else None
    else:
        found = next(filter(None, (find_class(star, first, depth + 1) for star in _stars(module))), None)
    for part in rest:
        found = member_class(found, part, depth + 1) if found else None
    return found


def _in_package(package: str, parts: list[str], depth: int) -> ClassRef | None:
    """The class of a dotted name that begins in a package: `clbench` and [`strategy`, `Strategy`, `Config`]."""
    for length in range(len(parts)):
        path = module_file(".".join([package, *parts[:length]]))
        found = (
            find_class(read_module(path, ".".join([package, *parts[:length]])), parts[length], depth) if path else None
        )
        for part in parts[length + 1 :] if found else ():
            found = member_class(found, part, depth) if found else None
        if found:
            return found
    return None


def class_of(module: Module, scope: ClassRef | None, expression: ast.expr, depth: int = 0) -> ClassRef | None:
    """The class an expression (a name, or dotted) names, seen from a class body or from module level."""
    if isinstance(expression, ast.Subscript):
        expression = expression.value
    parts: list[str] = []
    while isinstance(expression, ast.Attribute):
        parts.insert(0, expression.attr)
        expression = expression.value
    if not isinstance(expression, ast.Name):
        return None
    if scope is not None:
        for node in scope.node.body:
            if isinstance(node, ast.ClassDef) and node.name == expression.id and not parts:
                return ClassRef(module, node, scope)
    return find_class(module, ".".join([expression.id, *parts]), depth)


def lineage(ref: ClassRef, depth: int = 0) -> tuple[list[ClassRef], bool]:
    """A class and its bases, nearest first, and whether all of them could be followed."""
    if ref.key in ROOTS or depth > DEEPEST:
        return [ref], depth <= DEEPEST
    found, whole = [ref], True
    for base in ref.node.bases:
        scope = ref.outer if not (isinstance(base, ast.Name) and base.id == ref.node.name) else None
        parent = class_of(ref.module, scope, base, depth + 1)
        if parent is None or parent.key == ref.key:
            whole &= ast.unparse(base).split("[")[0].split(".")[-1] in WITHOUT_MEMBERS
            continue
        above, above_whole = lineage(parent, depth + 1)
        found, whole = [r for r in found if r not in above] + above, whole and above_whole
    return found, whole


def members(ref: ClassRef, name: str) -> Iterator[tuple[ClassRef, ast.stmt]]:
    """Definitions of an attribute in a class and its bases, nearest first."""
    for owner in lineage(ref)[0]:
        for node in owner.node.body:
            targets: list[ast.expr] = []
            if isinstance(node, ast.Assign):
                targets = node.targets
            elif isinstance(node, ast.AnnAssign) and node.value is not None:
                targets = [node.target]
            named = isinstance(node, ast.ClassDef) and node.name == name
            if named or any(isinstance(t, ast.Name) and t.id == name for t in targets):
                yield owner, node


def member_class(ref: ClassRef, name: str, depth: int = 0) -> ClassRef | None:
    """The class nested in, assigned in, or inherited by a class under a name."""
    for owner, node in members(ref, name):
        if isinstance(node, ast.ClassDef):
            return ClassRef(owner.module, node, owner)
        assert isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None
        return class_of(owner.module, owner, node.value, depth + 1)
    return None


def evaluate(module: Module, expression: ast.expr, depth: int = 0) -> Any:
    """The value of a literal, of arithmetic on literals, of a name assigned one, or of a text with such values in it
    (`f"{CODE}, main.py"`). Raises Unknown for all else."""
    try:
        return ast.literal_eval(expression)
    except (ValueError, TypeError):
        pass
    if depth <= DEEPEST:
        if isinstance(expression, ast.BinOp) and type(expression.op) in ARITHMETIC:
            left, right = (evaluate(module, side, depth + 1) for side in (expression.left, expression.right))
            try:
                return ARITHMETIC[type(expression.op)](left, right)
            except (TypeError, ArithmeticError):
                raise Unknown from None
        if isinstance(expression, ast.Name):
            where, found = assigned(module, expression.id, depth + 1)
            if found is not None:
                return evaluate(where, found, depth + 1)
        if isinstance(expression, ast.JoinedStr):
            return "".join(str(evaluate(module, part, depth + 1)) for part in expression.values)
        if isinstance(expression, ast.FormattedValue) and expression.conversion == -1 and not expression.format_spec:
            return evaluate(module, expression.value, depth + 1)
    raise Unknown


def assigned(module: Module, name: str, depth: int = 0) -> tuple[Module, ast.expr | None]:
    """The expression assigned to a module's name, followed through imports, and the module it stands in."""
    if name in module.values:
        return module, module.values[name]
    for star in _stars(module) if depth <= DEEPEST and name not in module.imports else ():
        where, found = assigned(star, name, depth + 1)
        if found is not None:
            return where, found
    source, attribute = module.imports.get(name, ("", None))
    path = module_file(source) if attribute and depth <= DEEPEST else None
    if path is None or attribute is None:
        return module, None
    return assigned(read_module(path, source), attribute, depth + 1)
