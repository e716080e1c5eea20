"""Text from records, made fit for a page: nothing in it can act, hide or reorder what stands beside it."""

from __future__ import annotations

import json
import re
from typing import Any

from clbench.quantities import with_prefix

DASH = "\u2013"
MINUS = "\u2212"
LONGEST = 4000  # characters of one text
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def clean(value: Any, longest: int = LONGEST) -> str:
    """The text with control characters, bidirectional overrides and lone surrogates written out (`\\u202e`), and what
    is beyond `longest` characters left out."""
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) > longest:
        text = f"{text[:longest]}… ({len(text) - longest:,} more characters)"
    return UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def embed(value: Any) -> str:
    """JSON for a script element: ASCII only, and without a character that HTML could take for markup."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&]", lambda found: ESCAPES[found[0]], text)


def number(value: float | None, digits: int = 3) -> str:
    """Fixed digits with a true minus sign; fewer for large values, more for tiny ones; a dash where there is none."""
    if value is None:
        return DASH
    size = abs(value)
    if size >= 1e6 or 0 < size < 10.0 ** -(digits + 1):
        text = f"{value:.2e}"
    elif size >= 100:
        text = f"{value:,.1f}"
    else:
        text = f"{value:.{digits}f}"
    return text.replace("-", MINUS) if float(text.replace(",", "")) else text.replace("-", "")


def short(value: float | None, unit: str = "") -> str:
    """Three digits with a metric prefix; a dash where there is none."""
    return DASH if value is None else with_prefix(value, unit)


def seconds(value: float | None) -> str:
    """Short times in seconds, long ones in minutes or hours."""
    if value is None:
        return DASH
    if value < 120:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"
