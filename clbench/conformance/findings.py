"""What a probe found: one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "warn", "fail", "skip"]


@dataclass(frozen=True)
class Finding:
    """The answer of a probe on a stream. `evidence` is one line; only `fail` makes a check fail."""

    probe: str
    stream: str
    status: Status
    evidence: str
