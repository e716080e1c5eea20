"""The table of presets: what each is called, its parameters, and where their defaults come from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clbench.schedules import presets
from clbench.schedules.composition import Schedule
from clbench.schedules.presets import ANNEALINGS, COOLDOWNS, DECAYS, FLOOR, LOW
from clbench.schedules.recovery import COSINES, ROOTS

GUPTA = "Gupta et al. 2023 (arXiv 2308.04014)"
IBRAHIM = "Ibrahim et al. 2024 (arXiv 2403.08763)"
INFINITE = "Beyond Cosine Decay (arXiv 2503.02844)"
WSD = "MiniCPM (Hu et al. 2024, arXiv 2404.06395); Hägele et al. 2024 (arXiv 2405.18392)"
POWER = "Power scheduler (Shen et al. 2024, arXiv 2408.13359)"
FOMO = "FoMo-in-Flux (Roth et al. 2024, arXiv 2408.14471)"
TIC = "TiC-LM (Li et al. 2025, arXiv 2504.02107)"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a preset: what may stand after its name, what it means, where its default is from.

    kind: "length" (steps, or a share), "number", "count", "flag", or the words it may be.
    """

    name: str
    kind: str | tuple[str, ...]
    meaning: str
    source: str


@dataclass(frozen=True)
class Preset:
    """A named schedule: `build` makes it from its parameters, whose defaults are those of `build`.

    listed: the parameter whose values may stand after the colon alone, as in multistep:0.6,0.85.
    """

    name: str
    summary: str
    build: Callable[..., Schedule]
    parameters: tuple[Parameter, ...] = ()
    source: str = "the field's custom"
    listed: str = ""


_floor_of = Parameter("floor", "number", "lowest rate, as a multiple of the peak", f"{IBRAHIM}: 3e-5 of 3e-4")
_warmup_of = Parameter("warmup", "length", "length of the warm-up", f"{IBRAHIM}: 1 %; {GUPTA} tries 0 to 2 %")
_cosine_parts = (_floor_of, _warmup_of)

PRESETS = (
    Preset("constant", "the peak rate throughout", presets.constant),
    Preset("linear", "a straight line from the peak rate to 0", presets.linear),
    Preset(
        "cosine", "half a cosine from the peak rate to a tenth", presets.cosine,
        (_floor_of,), "Loshchilov & Hutter 2017 (arXiv 1608.03983)",
    ),
    Preset(
        "warmup-cosine", "1 % linear warm-up, then half a cosine to a tenth", presets.rewarm_cosine,
        _cosine_parts, GUPTA,
    ),
    Preset(
        "rewarm-cosine", "warmup-cosine in every phase; later_peak: how high later phases rise", presets.rewarm_cosine,
        (
            *_cosine_parts,
            Parameter("later_peak", "number", "peak of later phases; unset: that of the first", f"{GUPTA}: 0.5, 1, 2"),
        ),
        f"{GUPTA}; {IBRAHIM}",
    ),
    Preset(
        "constant-min", "warmup-cosine in phase 0, then constant at the floor", presets.constant_min,
        _cosine_parts, GUPTA,
    ),
    Preset(
        "constant-max", "warmup-cosine in phase 0, then constant at the peak rate", presets.constant_max,
        _cosine_parts, GUPTA,
    ),
    Preset(
        "one-cosine", "one warmup-cosine over the whole run, whose length it must know", presets.one_cosine,
        (_floor_of, Parameter("warmup", "length", "length of the warm-up; shares are of the run", f"{IBRAHIM}: 1 %")),
        "clbench: a reference that knows the horizon",
    ),
    Preset(
        "infinite", "warm-up, cool-down to a constant rate, which later phases keep; branches anneal", presets.infinite,
        (
            Parameter("cooldown", COOLDOWNS, "shape of the cool-down", f"{INFINITE}: the first of three"),
            Parameter("constant", "number", "the constant rate", f"{INFINITE}: 1.65e-4 of 3e-4"),
            _floor_of,
            _warmup_of,
            Parameter("cooldown_share", "length", "length of the cool-down", f"{IBRAHIM}: 60 %"),
            Parameter("anneal", "length", "an anneal at the end of every phase, in place", "clbench: branches anneal"),
            Parameter("shape", ANNEALINGS, "of the anneal, in place or on a branch", INFINITE),
        ),
        INFINITE,
    ),
    Preset(
        "wsd", "1 % warm-up, constant, 1 - sqrt decay to a tenth over the last 10 %", presets.wsd,
        (
            Parameter("decay", "length", "length of the decay, at a phase's end", "MiniCPM: about 10 % of the tokens"),
            Parameter("shape", DECAYS, "of the decay", "Hägele et al. 2024: 1 - sqrt; MiniCPM: half_life"),
            Parameter("floor", "number", "lowest rate, as a multiple of the peak", "Llama-3-SynE's code: 0.1"),
            Parameter("warmup", "length", "length of the warm-up", "clbench"),
            Parameter("half_life", "length", "of that shape; a share is of the decay", "MATES' code: 200 of 800 steps"),
            Parameter("rewarm", "flag", "whether later phases begin with a warm-up as well", "clbench"),
        ),
        WSD,
    ),
    Preset(
        "power", "min(peak, batch a n^b) at n tokens of the run, whatever its length", presets.power,
        (
            Parameter("a", "number", "factor of the law", f"{POWER}, with muP"),
            Parameter("b", "signed", "exponent of the law", POWER),
            Parameter("knee", "count", "tokens at which the rate begins to fall, instead of a", "clbench"),
            Parameter("warmup", "length", "length of the warm-up", "clbench; the paper: 1e9 tokens"),
            Parameter("floor", "number", "where a branch anneals to", "clbench; the paper's 0 cannot be reached"),
        ),
        POWER,
    ),
    Preset(
        "rsqrt", "warm-up over W steps, then falling as sqrt(W / s) over the whole run", presets.rsqrt,
        (
            Parameter("floor", "number", "what it falls towards, as a multiple of the peak", f"{TIC}: 3e-5 of 1e-3"),
            Parameter("warmup", "length", "W; shares are of the run", f"{TIC}: 50 steps"),
        ),
        TIC,
    ),
    Preset(
        "ar-cosine", "half a cosine in every phase, from peaks that decline", presets.ar_cosine,
        (
            Parameter("floor", "number", "lowest rate, as a multiple of the peak", f"{TIC}: 3e-5 of 3e-4"),
            Parameter("warmup", "length", "length of the warm-up", "clbench; TiC-LM's runs have 50 steps"),
        ),
        TIC,
    ),
    Preset(
        "cosine-recovery", "10 % warm-up and half a cosine in every phase, from peaks that decline",
        presets.cosine_recovery,
        (
            Parameter("recovery", COSINES, "later phases: a cosine of their own, or that of one long run", FOMO),
            Parameter("floor", "number", "lowest rate, as a multiple of the peak", f"{FOMO}, code: 1e-3"),
            Parameter("warmup", "length", "length of the warm-up", f"{FOMO}, code: 10 %"),
        ),
        FOMO,
    ),
    Preset(
        "rsqrt-recovery", "10 % warm-up, sqrt(W / s), 10 % cool-down to 0 in every phase, from peaks that decline",
        presets.rsqrt_recovery,
        (
            Parameter(
                "recovery", ("none", *ROOTS), "how peaks decline (`clbench.schedules.recovery`)", f"{FOMO}, its default"
            ),
            Parameter("floor", "number", "what it falls towards, as a multiple of the peak", f"{FOMO}, code: 1e-3"),
            Parameter("warmup", "length", "W", f"{FOMO}, code: 10 %"),
            Parameter("cooldown", "length", "length of the cool-down", f"{FOMO}, code: 10 %"),
        ),
        FOMO,
    ),
    Preset(
        "annealing", "half a cosine from the peak rate to 0; annealing:5 in five stairs", presets.annealing,
        (Parameter("epochs", "count", "how many stairs; unset: none", "torch's CosineAnnealingLR"),), listed="epochs",
    ),
    Preset(
        "multistep", "a tenth of the rate over the last tenth; multistep:0.6,0.85 drops at these shares",
        presets.multistep,
        (Parameter("places", "shares", "where it drops, as shares of the phase", "torch's MultiStepLR"),),
        listed="places",
    ),
    Preset(
        "warm-restarts", "cosine cycles of doubling length, each from the peak rate to 1 %", presets.warm_restarts,
        source="GDumb (Prabhu et al. 2020); Loshchilov & Hutter 2017 (arXiv 1608.03983)",
    ),
)  # fmt: skip


def describe(preset: Preset) -> list[dict[str, Any]]:
    """The preset's parameters, each with its default, for a listing."""
    defaults = inspect.signature(preset.build).parameters
    return [
        {
            "name": parameter.name,
            "type": " | ".join(parameter.kind) if isinstance(parameter.kind, tuple) else parameter.kind,
            "default": _UNSET.get((preset.name, parameter.name), defaults[parameter.name].default),
            "description": parameter.meaning,
            "source": parameter.source,
        }
        for parameter in preset.parameters
    ]


_UNSET = {
    **{(preset.name, "floor"): FLOOR for preset in PRESETS},
    ("power", "floor"): 0.01,
    ("rsqrt", "floor"): 0.03,
    ("cosine-recovery", "floor"): LOW,
    ("rsqrt-recovery", "floor"): LOW,
    ("infinite", "constant"): 0.55,
}
