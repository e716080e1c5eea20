"""JSON from strangers: no duplicate keys, no NaN, no huge numbers, no deep nesting, no control characters."""

from __future__ import annotations

import json
import math
import unicodedata
from typing import Any, NoReturn

DEEPEST = 40
LONGEST_TEXT = 20_000
MOST_DIGITS = 25
BIDI = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
ALLOWED = "\n\t"


def strict_json(content: bytes) -> Any:
    """The value. Raises ValueError with a short reason for everything that a record or a manifest never holds."""
    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_int,
            parse_float=_float,
        )
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error.msg}, line {error.lineno})") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    _check(value, 0)
    return value


def unsafe_text(text: str) -> bool:
    """Whether a text could change how a terminal or a page shows what stands around it, or is too long."""
    return len(text) > LONGEST_TEXT or any(
        (unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in ALLOWED) or c in BIDI for c in text
    )


def shown(text: object, longest: int = 80) -> str:
    """A stranger's text in a message: one line, printable, cut."""
    plain = "".join(c if c.isprintable() and c not in BIDI else "?" for c in str(text)[: longest + 1])
    return plain if len(plain) <= longest else f"{plain[:longest]}..."


def _check(value: Any, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError("is nested too deeply")
    if isinstance(value, str) and unsafe_text(value):
        raise ValueError(f"holds a text with control characters, or too long a one: {shown(value, 30)}")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check(key, depth)
            _check(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, depth + 1)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("has a key twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"holds {text}, which is no number")


def _int(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError("holds a number with too many digits")
    return int(text)


def _float(text: str) -> float:
    number = float(text) if len(text) <= 2 * MOST_DIGITS else math.inf
    if not math.isfinite(number):
        raise ValueError("holds a number that is too large or too long")
    return number
