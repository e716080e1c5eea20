"""Learning-rate schedules: pure functions of the place in a run, as multiples of the peak rate.

Convention: `Schedule.lr(s, phase, steps, context)` is the rate of update s + 1 of a phase, s = 0, 1, ... A warm-up over
W steps gives (s + 1) / W for s < W, so that the first update is not wasted and steps W - 1 and W both have the peak
rate. A decay over S steps reaches its floor at s = S, one step beyond the last update. Lengths are steps (int) or
shares (float), rounded half up, and at least one step.
"""

from clbench.schedules.composition import Schedule
from clbench.schedules.names import SCHEDULES, factor, find, portable
from clbench.schedules.presets import rewarm_cosine
from clbench.schedules.shapes import Context, Length, Piece, in_steps, share_of
from clbench.schedules.table import Parameter, Preset, describe

__all__ = [
    "SCHEDULES",
    "Context",
    "Length",
    "Parameter",
    "Piece",
    "Preset",
    "Schedule",
    "describe",
    "factor",
    "find",
    "half_cosine",
    "in_steps",
    "portable",
    "share_of",
    "warmup_cosine",
]


def half_cosine(x: float, floor: float) -> float:
    """From 1 at x = 0 to `floor` at x = 1."""
    from clbench.schedules.pieces import cosine

    return cosine(x, 1.0, floor)


def warmup_cosine(step: int, steps: int, warmup: int, floor: float = 0.1) -> float:
    """A warm-up of `warmup` steps, then a half cosine to `floor`; a phase shorter than it is all warm-up."""
    return rewarm_cosine(floor=floor, warmup=warmup).lr(step, 0, steps)
