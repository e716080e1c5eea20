"""The errors a user can cause. Each is one line: what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class ClbenchError(Exception):
    """Base of all errors that end in one line instead of a traceback.

    exit_code: the process's. folder: the run it happened in, where there is one.
    """

    exit_code = 1
    folder: Path | None = None


class UserError(ClbenchError):
    """Wrong usage or bad input (exit code 2)."""

    exit_code = 2


class RunFailed(ClbenchError):
    """A run that started and could not finish (exit code 1): diverged, or a strategy raised."""


class Interrupted(ClbenchError):
    """The user stopped the run (exit code 130); the message says how to resume."""

    exit_code = 130


def did_you_mean(name: str, known: Iterable[str], limit: int = 3) -> str:
    """`"; did you mean a, b?"`, or `"; known: ..."` where nothing is near. Empty if nothing is known."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=limit, cutoff=0.5)
    near = near or [known_name for known_name in names if known_name.lower() == name.lower()]
    if near:
        return f"; did you mean {', '.join(near)}?"
    return f"; known: {', '.join(names)}" if names else ""
