"""What is read from source text equals what importing gives; and nothing is imported for it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clbench import catalogue
from clbench.errors import UserError
from clbench.registry import STRATEGIES, STREAMS, load_recipe, load_strategy, targets

NAMES = [("strategy", name) for name in targets(STRATEGIES)] + [("stream", name) for name in targets(STREAMS)]


@pytest.mark.parametrize("kind, name", NAMES)
def test_the_source_tells_what_the_class_has(kind: catalogue.Kind, name: str) -> None:
    entry = catalogue.find(kind, name)
    loaded: Any = load_strategy(name) if kind == "strategy" else load_recipe(name)
    assert entry.complete
    assert entry.summary == (loaded.__doc__ or "").strip().split("\n")[0]
    assert entry.version == loaded.version
    assert list(entry.settings) == list(loaded.Config.model_fields)
    for key, field in loaded.Config.model_fields.items():
        found = entry.settings[key]
        assert found.required == field.is_required()
        assert not found.default_known or found.default == field.default
        assert found.description == (field.description or "")
        assert found.source == (field.json_schema_extra or {}).get("source", "")
        limits = {k: getattr(m, k) for m in field.metadata for k in catalogue.LIMITS if hasattr(m, k)}
        assert found.limits == limits
    if kind == "strategy":
        assert entry.needs == loaded.needs.as_dict() and entry.inputs == loaded.inputs


BASE = '''
from __future__ import annotations
import package_that_does_not_exist
from clbench.config import setting
from clbench.strategy import Needs, Strategy

LOW = 1 / 4
WORDS = "shared"

class Base(Strategy):
    """The base.

    More.
    """

    class Config(Strategy.Config):
        share: float = setting(LOW, "a " "share", source=WORDS, gt=0, le=2 * 0.5)

    needs = Needs(stores_samples=True)
    version = 3
'''
CHILD = '''
from dataclasses import replace
from typing import Literal
import third_party.base as base
from .base import *
from .base import Base as Renamed

Kind = Literal["a", "b"]

class Child(Renamed):
    class Config(Renamed.Config):
        kind: Kind = "a"
        share: float = 0.5
        computed: int = len("abc")

    needs = replace(base.Base.needs, gradient_free=True)

class Grandchild(base.Base):
    """Reached through a module's name."""
'''


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Somebody's installed package with entry points; importing it would fail."""
    package = tmp_path / "third_party"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "base.py").write_text(BASE)
    (package / "child.py").write_text(CHILD)
    info = tmp_path / "third_party-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[clbench.strategies]\nchild = third_party.child:Child\ngrandchild = third_party.child:Grandchild\n"
        "gone = third_party.gone:X\nclassless = third_party.child:Nobody\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    targets.cache_clear()
    yield package
    targets.cache_clear()


def test_a_third_party_entry_point(third_party: Path) -> None:
    entry = catalogue.find("strategy", "child")
    assert entry.summary == "The base." and entry.version == 3 and entry.complete
    assert entry.needs["gradient_free"] is True
    kind, share, computed = (entry.settings[key] for key in ("kind", "share", "computed"))
    assert kind.type == "Literal['a', 'b']" and share.default == 0.5
    assert (computed.default, computed.default_known) == ("len('abc')", False)
    base = catalogue.find("strategy", "grandchild")
    assert base.summary == "Reached through a module's name." and base.needs["stores_samples"] is True
    inherited = base.settings["share"]
    assert (inherited.default, inherited.range, inherited.description, inherited.source) == (
        0.25, "> 0, <= 1.0", "a share", "shared",
    )  # fmt: skip
    assert "third_party" not in sys.modules


def test_broken_entries_are_errors_in_their_place(third_party: Path) -> None:
    errors = [str(entry) for entry in catalogue.entries("strategy") if isinstance(entry, UserError)]
    assert len(errors) == 2
    assert any("there is no module third_party.gone" in text for text in errors)
    assert any("there is no class Nobody" in text for text in errors)


def test_a_base_that_cannot_be_read_makes_it_incomplete(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text('from nowhere_at_all import Thing\nclass Mine(Thing):\n    """Mine."""\n')
    entry = catalogue.find("strategy", f"{path}:Mine")
    assert entry.summary == "Mine." and not entry.complete
    assert catalogue.find("strategy", str(path)).target == f"{path}:Mine", "the only one that may be"
    with pytest.raises(UserError, match="no stream class 'Min'; did you mean Mine"):
        catalogue.find("stream", f"{path}:Min")


def test_a_file_with_one_class_needs_no_name(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text(
        "import clbench.strategy\nclass Helper:\n    pass\n"
        'class Mine(clbench.strategy.Strategy):\n    """Mine."""\n    Config = clbench.strategy.Strategy.Config\n'
    )
    entry = catalogue.find("strategy", str(path))
    assert entry.target.endswith(":Mine") and entry.complete and "lr" in entry.settings


@pytest.mark.parametrize("text", ["A = A", "from m import A", "A = B\nB = A", "from m import *"])
def test_circles_of_names_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "m.py").write_text(text + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="has no strategy class"):
        catalogue.find("strategy", f"{tmp_path / 'm.py'}:A")


@pytest.mark.parametrize("text", ["class A(A): pass", "class A(B): pass\nB = A"])
def test_circles_of_bases_end(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.py").write_text(text + "\n")
    assert not catalogue.find("strategy", f"{tmp_path / 'm.py'}:A").complete


@pytest.mark.parametrize("name", ["ema-merge", "ewc"])
def test_a_file_of_clbench_is_the_strategy_of_that_name(name: str) -> None:
    """Also one that imports from its neighbours."""
    kind = load_strategy(name)
    file = f"{inspect.getsourcefile(kind)}:{kind.__name__}"
    assert load_strategy(file) is kind
    read = [catalogue.find("strategy", each) for each in (file, name)]
    assert read[0].settings.keys() == read[1].settings.keys() or not read[0].complete
