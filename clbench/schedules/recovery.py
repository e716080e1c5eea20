"""Peaks that decline from phase to phase: what a phase rises to, and where its decay then stands.

Rules of FoMo-in-Flux (Roth et al. 2024, arXiv 2408.14471) for phases t = 0, 1, ... of S steps, W of them a warm-up and
C the cool-down of an inverse square root. Phase 0 is the same for all of them.

    autoregressive, of cosines   the warm-up rises to floor + (peak - floor) (1 + cos(pi t / (t + 1))) / 2, and a cosine
                                 falls from there; `Schedule.declining` is the same rule
    dynamic, of cosines          the same peak; the decay is that of one cosine over all t + 1 phases
    autoregressive               of inverse square roots: the peak is at sqrt((t + 1) W / (t S + W)), and the decay
                                 falls from there
    continued                    the peak is at sqrt(W / (t (S - C - W) + W)), and the decay falls from there
    recovered                    the decay goes on where those of the phases before would be without their cool-downs,
                                 sqrt(W / (s + t (S - C - W))); the warm-up rises to sqrt(W / (t (S - C - W)))

Peaks at a share are that share of the way from the floor to the peak of phase 0.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from clbench.schedules.pieces import autoregressive_peak
from clbench.schedules.shapes import Piece, in_steps

COSINES = ("autoregressive", "dynamic")
ROOTS = ("autoregressive", "continued", "recovered")


def recovering(program: tuple[Piece, ...], rule: str, phase: int, steps: int) -> tuple[Piece, ...]:
    """The pieces of a phase t >= 1 of `steps` steps, of those of phase 0: a warm-up and a decay."""
    rising, falling = program
    warm = in_steps(rising.length or 0, steps)
    change = _cosine(falling, rule, phase) if falling.kind == "cosine" else _root(falling, rule, phase, steps, warm)
    kind = "long_cosine" if "rounds" in change else falling.kind
    top = change.pop("top")
    return (
        replace(rising, values={**rising.values, "to": top}),
        replace(falling, kind=kind, values={**falling.values, **change}),
    )


def _cosine(falling: Piece, rule: str, phase: int) -> dict[str, Any]:
    peak, floor = falling.values["frm"], falling.values["to"]
    top = autoregressive_peak(phase, peak, floor)
    return {"top": top, "frm": top} if rule == "autoregressive" else {"top": top, "rounds": phase + 1}


def _root(falling: Piece, rule: str, phase: int, steps: int, warm: int) -> dict[str, Any]:
    peak, floor = falling.values["base"], falling.values["floor"]
    between = steps - warm - in_steps(falling.values["cooldown"], steps)  # what a decay has before its cool-down
    if warm < 1 or between < 1:
        return {"top": peak}

    def at(share: float) -> float:
        return float(floor + (peak - floor) * math.sqrt(share))

    if rule == "autoregressive":
        top = at((phase + 1) * warm / (phase * steps + warm))
        return {"top": top, "base": top}
    if rule == "continued":
        top = at(warm / (phase * between + warm))
        return {"top": top, "base": top}
    return {"top": at(min(1.0, warm / (phase * between))), "before": phase * between}
