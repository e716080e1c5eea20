"""What is known of strategies and streams without importing them: `clbench list`, `show`, and checks before a run.

Everything is read from source text (see `source_reader`), so a listing never waits for torch. Only a member of a
family (`PREFIX:NAME`) is imported when it is asked for: it exists nowhere before its family makes it.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clbench.errors import UserError, did_you_mean
from clbench.registry import STRATEGIES, STREAMS, families, family_of, load_recipe, load_strategy, targets
from clbench.source_reader import (
    ClassRef,
    Module,
    Unknown,
    assigned,
    evaluate,
    find_class,
    lineage,
    member_class,
    members,
    module_file,
    read_module,
)

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

Kind = Literal["strategy", "stream"]
GROUPS: dict[Kind, str] = {"strategy": STRATEGIES, "stream": STREAMS}
PLURALS: dict[Kind, str] = {"strategy": "strategies", "stream": "streams"}
BASES: dict[Kind, tuple[str, str]] = {
    "strategy": ("clbench.strategy", "Strategy"),
    "stream": ("clbench.stream", "Recipe"),
}
LIMITS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length")


@dataclass(frozen=True)
class Setting:
    """One field of a `Config`. `default` is its value, or source text where `default_known` is False."""

    name: str
    type: str
    default: Any
    default_known: bool
    required: bool
    description: str
    source: str
    limits: dict[str, Any]

    @property
    def range(self) -> str:
        """The limits in mathematical notation: ">= 0, < 1"."""
        signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
        return ", ".join(f"{signs.get(key, key)} {value}" for key, value in self.limits.items())

    def as_dict(self) -> dict[str, Any]:
        """For JSON. A default that is no JSON value is given as text."""
        default = self.default if isinstance(self.default, _JSON) else str(self.default)
        return {
            "name": self.name,
            "type": self.type,
            "default": default,
            "required": self.required,
            "range": self.range,
            "description": self.description,
            "source": self.source,
        }


_JSON = (bool, int, float, str, list, dict, type(None))


@dataclass
class Entry:
    """A strategy or a stream. `target` is `module:Class` or `file.py:Class`; `ref` its class in the source."""

    kind: Kind
    name: str
    target: str
    ref: ClassRef

    @property
    def doc(self) -> str:
        """The class's docstring, or the nearest one of its bases'."""
        return next((ref.doc for ref in lineage(self.ref)[0] if ref.doc), "")

    @property
    def summary(self) -> str:
        """The docstring's first line."""
        return self.doc.split("\n")[0]

    @property
    def file(self) -> Path:
        return self.ref.module.path

    @cached_property
    def needs(self) -> dict[str, Any]:
        """What a strategy declares; the defaults of `clbench.strategy.Needs` where it says nothing."""
        found: dict[str, Any] = {}
        for owner, node in members(self.ref, "needs"):
            value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
            if not isinstance(value, ast.Call):
                break
            for word in value.keywords:
                if word.arg is not None:
                    found.setdefault(word.arg, _value(owner.module, word.value)[0])
            if not ast.unparse(value.func).endswith("replace"):
                break
        return _default_needs() | found

    @property
    def inputs(self) -> str:
        return str(self._constant("inputs", "raw"))

    @property
    def pretraining_overlap(self) -> str:
        """Of a stream: which pretraining data show its classes."""
        return str(self._constant("pretraining_overlap", ""))

    @property
    def paper(self) -> str:
        """Of a strategy: the publication it follows."""
        return str(self._constant("paper", ""))

    @property
    def version(self) -> Any:
        return self._constant("version", 1)

    @cached_property
    def settings(self) -> dict[str, Setting]:
        """Fields of the `Config`, inherited ones first."""
        config = member_class(self.ref, "Config")
        found: dict[str, Setting] = {}
        for owner in reversed(lineage(config)[0]) if config else ():
            found |= _fields(owner)
        return found

    @property
    def complete(self) -> bool:
        """Whether every base class could be read; where not, there may be more settings."""
        config = member_class(self.ref, "Config")
        return lineage(self.ref)[1] and config is not None and lineage(config)[1]

    def as_dict(self, whole: bool = False) -> dict[str, Any]:
        """For JSON; `whole`: with documentation and settings."""
        shown: dict[str, Any] = {"name": self.name, "summary": self.summary, "target": self.target}
        shown["version"] = self.version
        if self.kind == "strategy":
            shown |= {"paper": self.paper, "inputs": self.inputs, "needs": self.needs}
        else:
            shown["pretraining_overlap"] = self.pretraining_overlap
        if whole:
            shown |= {"kind": self.kind, "doc": self.doc, "file": str(self.file)}
            shown["settings"] = [setting.as_dict() for setting in self.settings.values()]
        return shown

    def _constant(self, name: str, default: Any) -> Any:
        for owner, node in members(self.ref, name):
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                return _value(owner.module, node.value)[0]
        return default


@dataclass
class MemberEntry(Entry):
    """A member of a family, described by its class; `ref` is the family's."""

    member: type

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.member) or ""

    @cached_property
    def needs(self) -> dict[str, Any]:
        declared: dict[str, Any] = self.member.needs.as_dict()  # type: ignore[attr-defined]
        return declared

    @cached_property
    def settings(self) -> dict[str, Setting]:
        fields = self.member.Config.model_fields  # type: ignore[attr-defined]
        return {name: _setting_of_field(name, field) for name, field in fields.items()}

    @property
    def complete(self) -> bool:
        return True

    def _constant(self, name: str, default: Any) -> Any:
        return getattr(self.member, name, default)


def entries(kind: Kind) -> list[Entry | UserError]:
    """Every installed strategy or stream, by name; an error in the place of one whose source cannot be read."""
    found: list[Entry | UserError] = []
    for name in sorted((*targets(GROUPS[kind]), *families(GROUPS[kind]))):
        try:
            found.append(find(kind, name))
        except UserError as error:
            found.append(error)
    return found


def find(kind: Kind, name: str) -> Entry:
    """A strategy or stream by name or `file.py[:Class]`. Raises UserError naming the nearest ones."""
    path, _, attribute = name.partition(":")
    if path.endswith(".py"):
        return _in_file(kind, name, Path(path), attribute)
    known = targets(GROUPS[kind]) | families(GROUPS[kind])
    if name not in known:
        family = family_of(name, GROUPS[kind])
        if family is not None:
            return _member(kind, name, find(kind, family[0]))
        raise UserError(f"unknown {kind} {name!r}{did_you_mean(name, known)} (`clbench list {PLURALS[kind]}`)")
    module_name, _, attribute = known[name].partition(":")
    attribute = attribute.split("[")[0].strip()
    source = module_file(module_name.strip())
    if source is None:
        raise UserError(f"{kind} {name}: there is no module {module_name} ({known[name]})")
    ref = find_class(read_module(source, module_name.strip()), attribute)
    if ref is None:
        raise UserError(f"{kind} {name}: there is no class {attribute} in {source}")
    return Entry(kind, name, known[name], ref)


def _member(kind: Kind, name: str, family: Entry) -> Entry:
    load: Callable[[str], type] = load_strategy if kind == "strategy" else load_recipe
    return MemberEntry(kind, name, family.target, family.ref, load(name))


def _setting_of_field(name: str, field: FieldInfo) -> Setting:
    """A pydantic field as a setting: what `_setting` reads from source text."""
    limits = {key: getattr(each, key) for each in field.metadata for key in LIMITS if hasattr(each, key)}
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    required = field.is_required()
    default = None if required else field.get_default(call_default_factory=True)
    kind = field.annotation.__name__ if isinstance(field.annotation, type) else str(field.annotation)
    kind = kind.replace("typing.", "")
    return Setting(
        name, kind, default, not required, required, field.description or "", str(extra.get("source", "")), limits
    )


def _in_file(kind: Kind, name: str, path: Path, attribute: str) -> Entry:
    if not path.is_file():
        raise UserError(f"no such {kind} file: {path}")
    module = read_module(path, path.stem)
    refs = {key: ClassRef(module, node) for key, node in module.classes.items()}
    fitting = {key: ref for key, ref in refs.items() if _may_be(ref, kind)}
    if attribute:
        if attribute not in fitting:
            raise UserError(f"{path} has no {kind} class {attribute!r}{did_you_mean(attribute, fitting)}")
        return Entry(kind, name, name, fitting[attribute])
    sure = {key: ref for key, ref in fitting.items() if lineage(ref)[1]} or fitting
    if len(sure) != 1:
        names = f" ({', '.join(sure)})" if sure else ""
        raise UserError(f"{path} holds {len(sure)} {kind} classes{names}; name one: {path}:Class")
    return Entry(kind, name, f"{path}:{next(iter(sure))}", next(iter(sure.values())))


def _may_be(ref: ClassRef, kind: Kind) -> bool:
    bases, whole = lineage(ref)
    return any(base.key == BASES[kind] for base in bases) or not whole


def _fields(config: ClassRef) -> dict[str, Setting]:
    found = {}
    for node in config.node.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            annotation = ast.unparse(node.annotation)
            if not annotation.startswith("ClassVar") and not node.target.id.startswith("_"):
                found[node.target.id] = _setting(config.module, node.target.id, node)
    return found


def _setting(module: Module, name: str, node: ast.AnnAssign) -> Setting:
    value, description, source, limits = node.value, "", "", {}
    if isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[-1] in ("setting", "Field"):
        call = value
        words = {word.arg: word.value for word in call.keywords if word.arg}
        default = call.args[0] if call.args else words.get("default") or words.get("default_factory")
        text = call.args[1] if len(call.args) > 1 else words.get("description")
        description = str(_value(module, text)[0]) if text is not None else ""
        source = str(_value(module, words["source"])[0]) if "source" in words else ""
        limits = {key: _value(module, words[key])[0] for key in LIMITS if key in words}
        value = default
    required = value is None or (isinstance(value, ast.Constant) and value.value is ...)
    known_value, known = (None, False) if value is None or required else _value(module, value)
    kind = ast.unparse(_Spelled(module).visit(ast.parse(ast.unparse(node.annotation), mode="eval").body))
    return Setting(name, kind, known_value, known, required, description, source, limits)


def _value(module: Module, expression: ast.expr) -> tuple[Any, bool]:
    """(value, True), or (source text, False) where it is computed."""
    try:
        return evaluate(module, expression), True
    except Unknown:
        return ast.unparse(expression), False


class _Spelled(ast.NodeTransformer):
    """Replaces names of types by what they stand for: `Mode` by `Literal['train', 'eval']`."""

    def __init__(self, module: Module) -> None:
        self.module = module

    def visit_Name(self, node: ast.Name) -> ast.AST:
        found = assigned(self.module, node.id)[1]
        if isinstance(found, ast.Subscript) and ast.unparse(found.value).split(".")[-1] in ("Literal", "Optional"):
            return found
        return node


def _default_needs() -> dict[str, Any]:
    path = module_file("clbench.strategy")
    assert path is not None
    module = read_module(path, "clbench.strategy")
    return {
        node.target.id: _value(module, node.value)[0]
        for node in module.classes["Needs"].body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None
    }
