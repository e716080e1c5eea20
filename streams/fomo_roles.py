"""Which set adapts the model, which one measures what it knew, which one stands for its pre-training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from clbench.data.root import canonical
from clbench.errors import UserError

from .fomo_source import Role, set_name
from .keyed import draw


def roles(
    stream: str, sets: Sequence[str], held_out: Sequence[str] | None, pretraining: Sequence[str]
) -> list[tuple[str, Role]]:
    """(set, role) of all sets: those adapted to, held out, and of the pre-training. Raises UserError.

    Where nothing says what is held out, the third of the sets with the smallest draws is, rounded up, at least one:
    it hangs on their names alone, of folders not on where they lie. A single set is adapted to.
    """
    if not sets:
        raise UserError(f"{stream} needs the sets: sets=[NAME,NAME,...]")
    kept = list(sets)
    if held_out is None:
        drawn = _drawn(kept) if len(set(kept)) > 1 else []
        held_out = [name for name in kept if name in drawn]
        kept = [name for name in kept if name not in drawn]
    found: list[tuple[str, Role]] = [(name, "adaptation") for name in kept]
    found += [(name, "held-out") for name in held_out]
    return found + [(name, "pretraining") for name in pretraining]


def _drawn(sets: Sequence[str]) -> list[str]:
    names = sorted(set(sets))
    return sorted(names, key=lambda name: draw(0, "held-out", canonical(_called(name))))[: -(-len(names) // 3)]


def _called(text: str) -> str:
    """A set's name, of a path the folder's."""
    name = set_name(text)
    path = os.sep in name or "/" in name or name in (".", "..")
    return Path(name).expanduser().resolve().name if path else name
