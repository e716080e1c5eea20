"""Learning-rate schedules: pure functions of the step, as multiples of the peak rate.

Convention: `factor(name, s, steps)` scales the rate of update s + 1, s = 0, 1, ... A warm-up over W steps gives
(s + 1) / W for s < W, so that the first update is not wasted and steps W - 1 and W both have the peak rate. A decay
over S steps reaches its floor at s = S, one step beyond the last update. Lengths given as shares of the phase are
rounded half up, and are at least one step.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from clbench.errors import UserError, did_you_mean

FLOOR = 0.1
WARMUP = 0.01
DECAY = 0.1
RESTART_CYCLES = 8
RESTART_FLOOR = 0.01
MULTISTEP = 0.1


@dataclass(frozen=True)
class Schedule:
    """A named schedule. `curve(step, steps)` is the multiple of the peak rate, for 0 <= step <= steps."""

    name: str
    summary: str
    curve: Callable[[int, int], float]


def share_of(share: float, steps: int) -> int:
    """A share of a phase in whole steps: rounded half up, at least 1 where the share is positive."""
    return max(1, math.floor(share * steps + 0.5)) if share > 0 else 0


def half_cosine(x: float, floor: float) -> float:
    """From 1 at x = 0 to `floor` at x = 1."""
    return floor + (1 - floor) * (1 + math.cos(math.pi * x)) / 2


def warmup_cosine(step: int, steps: int, warmup: int, floor: float = FLOOR) -> float:
    """A warm-up of `warmup` steps, then a half cosine to `floor`; a phase shorter than it is all warm-up."""
    if step < warmup:
        return (step + 1) / warmup
    return half_cosine((step - warmup) / (steps - warmup), floor) if steps > warmup else 1.0


def warmup_stable_decay(step: int, steps: int) -> float:
    """1 % warm-up, constant, then 1 - sqrt(x) over the last 10 % to a tenth (Hu et al. 2024, MiniCPM; the decay's
    shape: Hägele et al. 2024)."""
    warmup, decay = share_of(WARMUP, steps), share_of(DECAY, steps)
    if step < warmup:
        return (step + 1) / warmup
    x = (step - (steps - decay)) / decay
    return 1.0 if x <= 0 else FLOOR + (1 - FLOOR) * (1 - math.sqrt(x))


def warm_restarts(step: int, steps: int) -> float:
    """Eight cosine cycles, each twice as long as the one before, to 1 %; before them 1/256 of the phase at a tenth.

    Over 256 passes this is GDumb's: one pass at lr / 10, then SGDR (Loshchilov & Hutter 2017) with T_0 = 1 pass and
    T_mult = 2, whose cycles end with the phase.
    """
    passes = 2**RESTART_CYCLES * step / steps
    if passes < 1:
        return FLOOR
    start = 2 ** min(RESTART_CYCLES - 1, math.floor(math.log2(passes)))
    return half_cosine((passes - start) / start, RESTART_FLOOR)


def multistep(step: int, steps: int, places: Sequence[float] = (0.9,)) -> float:
    """A tenth of the rate from each of these shares of the phase on, as torch's MultiStepLR at whole epochs."""
    return MULTISTEP ** sum(step >= share_of(place, steps) for place in places)


def annealing(step: int, steps: int, epochs: int | None = None) -> float:
    """Half a cosine from 1 to 0; with `epochs`, constant within each, as torch's CosineAnnealingLR stepped by epoch."""
    return half_cosine(step / steps if epochs is None else step * epochs // steps / epochs, 0.0)


SCHEDULES: dict[str, Schedule] = {
    schedule.name: schedule
    for schedule in (
        Schedule("constant", "the peak rate throughout", lambda step, steps: 1.0),
        Schedule("linear", "a straight line from the peak rate to 0", lambda step, steps: 1 - step / steps),
        Schedule("cosine", "half a cosine from the peak rate to a tenth", lambda s, n: half_cosine(s / n, FLOOR)),
        Schedule(
            "warmup-cosine",
            "1 % linear warm-up, then half a cosine to a tenth",
            lambda step, steps: warmup_cosine(step, steps, share_of(WARMUP, steps)),
        ),
        Schedule("wsd", "1 % warm-up, constant, 1 - sqrt decay to a tenth over the last 10 %", warmup_stable_decay),
        Schedule("annealing", "half a cosine from the peak rate to 0; annealing:5 in five stairs", annealing),
        Schedule(
            "multistep", "a tenth of the rate over the last tenth; multistep:0.6,0.85 drops at these shares", multistep
        ),
        Schedule("warm-restarts", "cosine cycles of doubling length, each from the peak rate to 1 %", warm_restarts),
    )
}


def find(name: str) -> Schedule:
    """The schedule of that name; two take something after a colon. Raises UserError."""
    kind, colon, rest = name.partition(":")
    if kind not in SCHEDULES:
        raise UserError(f"unknown schedule {name!r}{did_you_mean(name, SCHEDULES)} (`clbench list schedules`)")
    if not colon:
        return SCHEDULES[kind]
    return Schedule(name, SCHEDULES[kind].summary, _with(kind, rest, name))


def _with(kind: str, rest: str, name: str) -> Callable[[int, int], float]:
    if kind == "multistep" and re.fullmatch(r"0?\.\d+(,0?\.\d+)*", rest):
        return partial(multistep, places=[float(place) for place in rest.split(",")])
    if kind == "annealing" and re.fullmatch(r"[1-9]\d*", rest):
        return partial(annealing, epochs=int(rest))
    raise UserError(f"schedule {name!r}: after a colon stand shares, as in multistep:0.6,0.85, or epochs: annealing:5")


def factor(name: str, step: int, steps: int) -> float:
    """The multiple of the peak rate at 0-based `step` of a phase of `steps` steps; beyond the end, the last value.

    Raises UserError for an unknown name, ValueError for a negative step or an empty phase.
    """
    curve = find(name).curve
    if step < 0 or steps < 1:
        raise ValueError(f"step {step} of a phase of {steps} steps")
    return curve(min(step, steps), steps)
