"""Pieces of learning-rate schedules: pure functions, one shape each, in whatever unit their values are given.

x is the place in the piece, from 0 at its first step to 1 at the first step after it; s counts its steps from 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def warmup(x: float, to: float, frm: float = 0.0) -> float:
    """A straight line from `frm` at x = 0 to `to` at x = 1. A schedule asks for it at x = (s + 1) / length."""
    return frm + (to - frm) * x


def hold(value: float) -> float:
    """The same value throughout."""
    return value


def cosine(x: float, frm: float, to: float) -> float:
    """Half a cosine: slow at both ends."""
    return to + (frm - to) * (1 + math.cos(math.pi * x)) / 2


def linear(x: float, frm: float, to: float) -> float:
    """A straight line."""
    return to + (frm - to) * (1 - x)


def inv_sqrt(x: float, frm: float, to: float, alpha: float = 10.0) -> float:
    """From `frm` to `to` as h(x) / h(1), where h(x) = 1 / sqrt(1 + alpha x) - 1 (arXiv 2503.02844): fast at first."""
    return frm + (to - frm) * (_fall(alpha * x) / _fall(alpha))


def _fall(z: float) -> float:
    return 1 / math.sqrt(1 + z) - 1


def expo(x: float, frm: float, to: float) -> float:
    """frm (to / frm)^x: the same ratio from step to step. Both values must be above 0."""
    return frm * (to / frm) ** x


def one_minus_sqrt(x: float, frm: float, to: float) -> float:
    """to + (frm - to) (1 - sqrt x) (Hägele et al. 2024, arXiv 2405.18392): steep at first."""
    return to + (frm - to) * (1 - math.sqrt(x))


def half_life(s: float, frm: float, T: float) -> float:
    """frm / 2^(s / T): halved every T steps (Hu et al. 2024, arXiv 2404.06395, MiniCPM)."""
    return frm * 0.5 ** (s / T)


def power(n: float, batch: float, a: float = 4.0, b: float = -0.51, max: float = 0.02) -> float:
    """min(max, batch a n^b): n tokens seen (at least 1), `batch` sequences a step (arXiv 2408.13359)."""
    return min(max, batch * a * (n if n > 1 else 1.0) ** b)


def rsqrt(s: float, base: float, floor: float, W: float) -> float:
    """floor + (base - floor) sqrt(W / s) at step s >= W of the run: `base` at s = W (TiC-LM, arXiv 2504.02107)."""
    return (base - floor) * math.sqrt(W / s) + floor


def cooled_rsqrt(s: float, steps: float, base: float, floor: float, W: float, C: float, before: float = 0.0) -> float:
    """rsqrt at step s >= W of a phase, and a straight line times that over its last C steps, to 0 (FoMo-in-Flux,
    arXiv 2408.14471). before: steps that the decay has behind it from earlier phases."""
    left = min(1.0, (steps - s) / C) if C else 1.0
    return rsqrt(s + before, base, floor, W) * left


def long_cosine(s: float, steps: float, frm: float, to: float, W: float, rounds: int) -> float:
    """Step s >= W of the last of `rounds` phases, on half a cosine over all of them that begins W steps into the
    first."""
    return cosine(((rounds - 1) * steps + s - W) / (rounds * steps - W), frm, to)


def stairs(s: int, n: int, frm: float, to: float, count: int) -> float:
    """Half a cosine in `count` stairs of equal length, as torch's CosineAnnealingLR stepped once an epoch."""
    return cosine(s * count // n / count, frm, to)


def drops(s: int, starts: Sequence[int], by: float = 0.1) -> float:
    """1, times `by` from each of these steps on."""
    return float(by ** sum(s >= start for start in starts))


def restarts(x: float, floor: float, cycles: int = 8, first: float = 0.1) -> float:
    """Cosine cycles from 1 to `floor`, each twice as long as the one before; ahead of them `first` for 1 / 2^cycles.

    With 8 cycles over 256 passes this is GDumb's: one pass at a tenth, then SGDR (Loshchilov & Hutter 2017) with
    T_0 = 1 pass and T_mult = 2.
    """
    passes = 2**cycles * x
    if passes < 1:
        return first
    start = 2 ** min(cycles - 1, math.floor(math.log2(passes)))
    return cosine((passes - start) / start, 1.0, floor)


def autoregressive_peak(i: int, peak: float, end: float) -> float:
    """Peak of round i = 0, 1, ... of equally long rounds: end + (peak - end) sin^2(pi / (2 (i + 1))) (TiC-LM)."""
    return end + (peak - end) * math.sin(math.pi / (2 * (i + 1))) ** 2
