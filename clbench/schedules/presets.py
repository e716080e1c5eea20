"""Presets: the schedules of the literature, composed of pieces.

`peak` is 1: rates are multiples of the optimiser's. With another `peak` every rate is in its unit: absolute rates.
"""

from __future__ import annotations

from collections.abc import Sequence

from clbench.errors import UserError, did_you_mean
from clbench.schedules.composition import Schedule
from clbench.schedules.recovery import COSINES, ROOTS
from clbench.schedules.shapes import Length, Piece

FLOOR = 0.1
WARMUP = 0.01
DECAY = 0.1
LOW = 0.001
COOLDOWNS = ("cosine", "inv_sqrt", "linear")
DECAYS = ("one_minus_sqrt", "linear", "half_life")
ANNEALINGS = ("expo", "linear", "one_minus_sqrt", "cosine")


def constant(peak: float = 1.0) -> Schedule:
    """The peak rate throughout."""
    return Schedule("constant", (Piece("hold", None, {"value": peak}),), anneal=_annealing(FLOOR * peak))


def linear(peak: float = 1.0) -> Schedule:
    """A straight line to 0."""
    return Schedule("linear", (Piece("linear", None, {"frm": peak, "to": 0.0}),), anneal=_annealing(0.0))


def cosine(peak: float = 1.0, floor: float | None = None) -> Schedule:
    """Half a cosine to the floor."""
    floor = _floor(floor, peak)
    return Schedule("cosine", (Piece("cosine", None, {"frm": peak, "to": floor}),), anneal=_annealing(floor))


def annealing(epochs: int | None = None) -> Schedule:
    """Half a cosine to 0; with `epochs`, constant within each, as torch's CosineAnnealingLR stepped by epoch."""
    values = {"frm": 1.0, "to": 0.0}
    piece = Piece("cosine", None, values) if epochs is None else Piece("stairs", None, {**values, "count": epochs})
    return Schedule("annealing", (piece,), anneal=_annealing(0.0))


def multistep(places: Sequence[float] = (0.9,)) -> Schedule:
    """A tenth of the rate from each of these shares of the phase on, as torch's MultiStepLR at whole epochs."""
    if any(not 0 < place <= 1 for place in places):
        raise UserError("schedule multistep: drops are at shares of the phase, above 0 and at most 1")
    return Schedule("multistep", (Piece("drops", None, {"places": list(places)}),), anneal=_annealing(0.01))


def warm_restarts() -> Schedule:
    """Eight cosine cycles, each twice as long as the one before, to 1 %; before them 1/256 of the phase at a tenth."""
    return Schedule("warm-restarts", (Piece("restarts", None, {"floor": 0.01}),), anneal=_annealing(0.01))


def rewarm_cosine(
    peak: float = 1.0,
    floor: float | None = None,
    warmup: Length = WARMUP,
    later_peak: float | None = None,
) -> Schedule:
    """Warm-up and half a cosine in every phase; later phases rise to `later_peak` (None: to the same)."""
    floor = _floor(floor, peak)
    later = None if later_peak is None else _warm_cosine(later_peak, _floor(floor, later_peak), warmup)
    return Schedule("rewarm-cosine", _warm_cosine(peak, floor, warmup), later, anneal=_annealing(floor))


def constant_min(peak: float = 1.0, floor: float | None = None, warmup: Length = WARMUP) -> Schedule:
    """Warm-up and half a cosine in phase 0; later phases stay at the floor."""
    floor = _floor(floor, peak)
    later = (Piece("hold", None, {"value": floor}),)
    return Schedule("constant-min", _warm_cosine(peak, floor, warmup), later, anneal=_annealing(floor))


def constant_max(peak: float = 1.0, floor: float | None = None, warmup: Length = WARMUP) -> Schedule:
    """Warm-up and half a cosine in phase 0; later phases stay at the peak."""
    floor = _floor(floor, peak)
    later = (Piece("hold", None, {"value": peak}),)
    return Schedule("constant-max", _warm_cosine(peak, floor, warmup), later, anneal=_annealing(floor))


def one_cosine(peak: float = 1.0, floor: float | None = None, warmup: Length = WARMUP) -> Schedule:
    """One warm-up and one half cosine over the whole run: it must know the run's length from the start."""
    floor = _floor(floor, peak)
    return Schedule("one-cosine", _warm_cosine(peak, floor, warmup), clock="run", anneal=_annealing(floor))


def infinite(
    cooldown: str = "cosine",
    peak: float = 1.0,
    constant: float | None = None,
    floor: float | None = None,
    warmup: Length = WARMUP,
    cooldown_share: Length = 0.6,
    anneal: Length = 0.0,
    shape: str = "expo",
) -> Schedule:
    """Warm-up, cool-down to a constant, hold; later phases hold. `anneal`: within each phase, at its end.

    Without `anneal` the rate stays constant; a branch anneals with the same shape.
    """
    _one_of("cooldown", cooldown, COOLDOWNS)
    _one_of("shape", shape, ANNEALINGS)
    floor = _floor(floor, peak)
    constant = 0.55 * peak if constant is None else constant
    if not floor <= constant <= peak:
        raise UserError(f"schedule infinite: constant={constant:g} does not lie between floor={floor:g} and {peak:g}")
    ending = (Piece(shape, anneal, {"frm": constant, "to": floor}),) if anneal else ()
    hold = Piece("hold", None, {"value": constant})
    rising = (Piece("warmup", warmup, {"to": peak}), Piece(cooldown, cooldown_share, {"frm": peak, "to": constant}))
    return Schedule("infinite", (*rising, hold, *ending), (hold, *ending), anneal=_annealing(floor, shape))


def wsd(
    decay: Length = DECAY,
    shape: str = "one_minus_sqrt",
    peak: float = 1.0,
    floor: float | None = None,
    warmup: Length = WARMUP,
    half_life: Length = 0.25,
    rewarm: bool = False,
) -> Schedule:
    """Warm-up, hold, decay. Later phases: hold and decay; with `rewarm` all of it again.

    half_life: for that shape, in steps or as a share of the decay; the rate then ends where that leads it.
    """
    _one_of("shape", shape, DECAYS)
    floor = _floor(floor, peak)
    ending = Piece("half_life", decay, {"T": half_life}) if shape == "half_life" else Piece(shape, decay, {"to": floor})
    held = (Piece("hold", None, {"value": peak}), _from(ending, peak))
    later = None if rewarm else held
    return Schedule("wsd", (Piece("warmup", warmup, {"to": peak}), *held), later, anneal=_of_any_length(ending))


def power(
    a: float = 4.0, b: float = -0.51, knee: int | None = None, warmup: Length = WARMUP, floor: float = 0.01
) -> Schedule:
    """min(peak, batch a n^b) at n tokens of the whole run: an absolute rate, whose maximum is the peak rate.

    knee: tokens at which the rate begins to fall, instead of `a`. The warm-up goes to where the law then stands.
    """
    if b > 0:
        raise UserError(f"schedule power: b={b:g} makes the rate rise; it must be 0 or below")
    law = {"b": b, "knee": knee, "a": a} if knee is not None else {"a": a, "b": b}
    falling = Piece("power", None, law)
    return Schedule("power", (Piece("warmup", warmup), falling), (falling,), anneal=_annealing(floor, "expo"))


def rsqrt(peak: float = 1.0, floor: float | None = None, warmup: Length = 50) -> Schedule:
    """Warm-up over W steps of the run, then floor + (peak - floor) sqrt(W / s)."""
    floor = _floor(floor, peak, 0.03)
    falling = Piece("rsqrt", None, {"base": peak, "floor": floor})
    rising = Piece("warmup", warmup, {"to": peak})
    return Schedule("rsqrt", (rising, falling), clock="run", anneal=_annealing(floor, "linear"))


def ar_cosine(peak: float = 1.0, floor: float | None = None, warmup: Length = 0) -> Schedule:
    """Half a cosine in every phase, from peaks that decline: 1, .5, .25, .146, ... of the way from floor to peak."""
    floor = _floor(floor, peak)
    pieces = _warm_cosine(peak, floor, warmup)
    return Schedule("ar-cosine", pieces, anneal=_annealing(floor), declining=(peak, floor))


def cosine_recovery(
    recovery: str = "autoregressive", peak: float = 1.0, floor: float | None = None, warmup: Length = DECAY
) -> Schedule:
    """Warm-up and half a cosine in every phase, later ones by a rule of `recovery`."""
    _one_of("recovery", recovery, COSINES)
    floor = _floor(floor, peak, LOW)
    pieces = _warm_cosine(peak, floor, warmup)
    return Schedule("cosine-recovery", pieces, anneal=_annealing(floor), recovery=recovery)


def rsqrt_recovery(
    recovery: str = "autoregressive",
    peak: float = 1.0,
    floor: float | None = None,
    warmup: Length = DECAY,
    cooldown: Length = DECAY,
) -> Schedule:
    """Warm-up, floor + (peak - floor) sqrt(W / s), and a straight line times that to 0 over the cool-down, in every
    phase; later ones by a rule of `recovery`, or (`none`) the same again."""
    _one_of("recovery", recovery, ("none", *ROOTS))
    floor = _floor(floor, peak, LOW)
    falling = Piece("cooled_rsqrt", None, {"base": peak, "floor": floor, "cooldown": cooldown})
    pieces = Piece("warmup", warmup, {"to": peak}), falling
    rule = None if recovery == "none" else recovery
    return Schedule("rsqrt-recovery", pieces, anneal=_annealing(0.0, "linear"), recovery=rule)


def _warm_cosine(peak: float, floor: float, warmup: Length) -> tuple[Piece, ...]:
    return Piece("warmup", warmup, {"to": peak}), Piece("cosine", None, {"frm": peak, "to": floor})


def _annealing(to: float, shape: str = "one_minus_sqrt") -> Piece:
    if shape == "expo" and to <= 0:
        raise UserError("schedule: an exponential anneal needs a floor above 0; set floor, or shape=linear")
    return Piece(shape, None, {"to": to})


def _from(piece: Piece, frm: float) -> Piece:
    return Piece(piece.kind, piece.length, {"frm": frm, **piece.values})


def _of_any_length(piece: Piece) -> Piece:
    return Piece(piece.kind, None, piece.values)


def _floor(floor: float | None, peak: float, share: float = FLOOR) -> float:
    floor = share * peak if floor is None else floor
    if not 0 <= floor <= peak:
        raise UserError(f"schedule: floor={floor:g} does not lie between 0 and the peak, {peak:g}")
    return floor


def _one_of(name: str, word: str, words: Sequence[str]) -> None:
    if word not in words:
        raise UserError(f"schedule: {name}={word!r}{did_you_mean(word, words)} (use {', '.join(words)})")
