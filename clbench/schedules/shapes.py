"""Pieces as data: a shape by name, its length and its values, and the value it has at a step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from clbench.errors import UserError, did_you_mean
from clbench.schedules import pieces

Length = int | float
"""Of a piece: an int counts steps, a float is a share of what the schedule spans."""


def share_of(share: float, steps: int) -> int:
    """A share of a phase in whole steps: rounded half up, at least 1 where the share is positive."""
    return max(1, math.floor(share * steps + 0.5)) if share > 0 else 0


def in_steps(length: Length, steps: int) -> int:
    """A length in steps of a stretch of `steps` steps."""
    return length if isinstance(length, int) else share_of(length, steps)


@dataclass(frozen=True)
class Context:
    """Where in the run a step stands, besides its phase.

    run_step: updates before it in the whole run; run_steps: of the whole run, None where nobody can know.
    tokens_per_step: target tokens of an update (samples, where there are no tokens); batch_size: its sequences.
    peak: the rate that 1 stands for. anneal_start, anneal_length: in steps of the phase, of a branch that anneals; the
    phase's steps then count those of the branch as well.
    """

    run_step: int = 0
    run_steps: int | None = None
    tokens_per_step: int = 1
    batch_size: int = 1
    peak: float = 1.0
    anneal_start: int | None = None
    anneal_length: int = 0


@dataclass(frozen=True)
class Piece:
    """A shape of `pieces`, its length (None: what the others leave), and its values by name. Raises UserError."""

    kind: str
    length: Length | None = None
    values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in SHAPES:
            raise UserError(f"schedule: unknown piece {self.kind!r}{did_you_mean(self.kind, SHAPES)}")
        where = f"schedule: piece {self.kind}"
        if self.length is not None and (not is_number(self.length) or self.length < 0 or self._too_long()):
            raise UserError(f"{where}: length {self.length!r} is neither a number of steps nor a share in [0, 1]")
        try:
            inspect.signature(SHAPES[self.kind]).bind(None, **self.values)
        except TypeError as error:
            raise UserError(f"{where}: {error}") from None
        for name, value in self.values.items():
            numbers = value if name == "places" and isinstance(value, list) else [value]
            lowest = -math.inf if name == "b" else 0.0
            if not all(is_number(number) and lowest <= number < math.inf for number in numbers):
                raise UserError(f"{where}: {name}={value!r} is no number of 0 or more")
            if name in ("T", "count", "cycles", "knee", "rounds") and not value > 0:
                raise UserError(f"{where}: {name} must be above 0")
        if self.kind == "expo" and min(self.values.get("frm", 1.0), self.values["to"]) <= 0:
            raise UserError(f"{where}: an exponential needs values above 0; end at a small one, or use linear")

    def _too_long(self) -> bool:
        return isinstance(self.length, float) and not self.length <= 1

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"piece": self.kind, "length": self.length, **self.values}

    @staticmethod
    def of(values: Any) -> Piece:
        """What `as_dict` gave. Raises UserError."""
        if not isinstance(values, dict) or not isinstance(values.get("piece"), str):
            raise UserError('schedule: a piece is an object such as {"piece": "cosine", "frm": 1.0, "to": 0.1}')
        rest = {key: value for key, value in values.items() if key not in ("piece", "length")}
        return Piece(values["piece"], values.get("length"), rest)


@dataclass(frozen=True)
class Spot:
    """A step within a piece: s of n steps; the piece's place in the run, and the step's."""

    s: int
    n: int
    start: int
    context: Context

    @property
    def x(self) -> float:
        return self.s / self.n


def _warmup(at: Spot, to: float = 1.0, frm: float = 0.0) -> float:
    return pieces.warmup((min(at.s, at.n - 1) + 1) / at.n, to, frm)


def _half_life(at: Spot, T: Length, frm: float = 1.0) -> float:
    return pieces.half_life(at.s, frm, T if isinstance(T, int) else T * at.n)


def _drops(at: Spot, places: list[float], by: float = 0.1) -> float:
    return pieces.drops(at.s, [share_of(place, at.n) for place in places], by)


def _power(at: Spot, a: float, b: float, knee: int | None = None) -> float:
    context = at.context
    tokens = max(1, context.run_step * context.tokens_per_step)
    if knee is not None:
        return float(min(1.0, (tokens / knee) ** b))
    return pieces.power(tokens, context.batch_size, a, b, context.peak) / context.peak if context.peak > 0 else 1.0


def _cooled_rsqrt(at: Spot, floor: float, cooldown: Length, base: float = 1.0, before: int = 0) -> float:
    if not at.start:
        return base
    steps = at.start + at.n
    return pieces.cooled_rsqrt(at.start + at.s, steps, base, floor, at.start, in_steps(cooldown, steps), before)


def _long_cosine(at: Spot, to: float, rounds: int, frm: float = 1.0) -> float:
    return pieces.long_cosine(at.start + at.s, at.start + at.n, frm, to, at.start, rounds)


SHAPES: dict[str, Callable[..., float]] = {
    "warmup": _warmup,
    "hold": lambda at, value: value,
    "cosine": lambda at, to, frm=1.0: pieces.cosine(at.x, frm, to),
    "linear": lambda at, to, frm=1.0: pieces.linear(at.x, frm, to),
    "inv_sqrt": lambda at, to, frm=1.0, alpha=10.0: pieces.inv_sqrt(at.x, frm, to, alpha),
    "expo": lambda at, to, frm=1.0: pieces.expo(at.x, frm, to),
    "one_minus_sqrt": lambda at, to, frm=1.0: pieces.one_minus_sqrt(at.x, frm, to),
    "half_life": _half_life,
    "power": _power,
    "rsqrt": lambda at, floor, base=1.0: pieces.rsqrt(at.start + at.s, base, floor, at.start) if at.start else base,
    "cooled_rsqrt": _cooled_rsqrt,
    "long_cosine": _long_cosine,
    "stairs": lambda at, to, count, frm=1.0: pieces.stairs(at.s, at.n, frm, to, count),
    "drops": _drops,
    "restarts": lambda at, floor, cycles=8: pieces.restarts(at.x, floor, cycles),
}
"""The value of each kind of piece at a spot. A warm-up without `to` rises to where the next piece begins; `power`
counts the tokens of the run, whatever the phase; the W of `rsqrt`, `cooled_rsqrt` and `long_cosine` is the length of
all before it, and the last two go on to the end of the phase."""
ANNEALS = ("one_minus_sqrt", "linear", "cosine", "inv_sqrt", "expo", "half_life")
ENDLESS = ("hold", "power", "rsqrt")


def is_number(value: Any) -> bool:
    """An int or a float, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
