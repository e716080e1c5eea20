"""Numbers as people write and read them: amounts with units, large ones with a prefix, lists of seeds."""

from __future__ import annotations

import re

from clbench.errors import UserError

UNITS = {
    "": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15,
    "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
SECONDS = {"": 1, "s": 1, "min": 60, "m": 60, "h": 3600}
MOST_SEEDS = 1000
PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def amount(text: str, units: dict[str, float] | dict[str, int]) -> float:
    """`10MB`, `1e12`, `15 min`: the number in the unit that counts 1. Raises ValueError."""
    match = re.fullmatch(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].lower() not in units:
        raise ValueError(f"not an amount: {text!r}")
    return float(match[1]) * units[match[2].lower()]


def with_prefix(value: float, unit: str = "") -> str:
    """Three digits with a metric prefix: `1.6 GB`."""
    step = 0
    while abs(value) >= 999.5 and step < len(PREFIXES) - 1:
        value, step = value / 1000, step + 1
    return f"{value:.3g} {PREFIXES[step]}{unit}".rstrip()


def parse_seeds(text: str, owner: str = "--seeds") -> list[int]:
    """`0-4` or `0,3,7`: each once, in the order given. Raises UserError naming `owner`."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None or int(match[2] or match[1]) < int(match[1]) or int(match[2] or match[1]) >= 2**32:
            raise UserError(f"{owner} {text!r}: write 0-4 or 0,3,7")
        if int(match[2] or match[1]) - int(match[1]) >= MOST_SEEDS:
            raise UserError(f"{owner} {text!r}: more than {MOST_SEEDS} runs")
        seeds.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
    return list(dict.fromkeys(seeds))
