"""What a run takes, and how its length compares with another's."""

from __future__ import annotations

from dataclasses import dataclass

from clbench.spec import RunSpec

LENGTHS = ("steps", "epochs")


@dataclass(frozen=True)
class Cost:
    """What a run takes. seconds: as `seconds_total` of a record (set-up and start of the process left out); memory:
    bytes at the peak. None where nothing is known. source: where the figures come from, in a few words."""

    seconds: float | None = None
    memory: int | None = None
    source: str = "unknown"


def length_ratio(spec: RunSpec, other: RunSpec) -> float | None:
    """How much longer a run trains than another one; None where their settings do not tell."""
    for key in LENGTHS:
        ours, theirs = spec.strategy_settings.get(key), other.strategy_settings.get(key)
        if ours and theirs:
            return float(ours) / float(theirs)
        if ours or theirs:
            return None
    return None
