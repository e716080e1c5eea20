"""The scripts of results/, as modules."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A script by its name; it and those it imports are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(RESULTS))
    for path in RESULTS.glob("*.py"):
        monkeypatch.delitem(sys.modules, path.stem, raising=False)

    def load(name: str) -> ModuleType:
        return import_module(name)

    return load


@pytest.fixture
def claims(script: Callable[[str], ModuleType]) -> ModuleType:
    """results/claims.py."""
    return script("claims")
