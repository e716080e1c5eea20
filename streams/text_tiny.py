"""Small text streams that need no download: generated domains, for the default model of about 0.13 M parameters."""

from __future__ import annotations

from clbench.config import setting

from .text import TextShift
from .text_config import Budgets, Names, TextConfig, Tokens


class TinyConfig(TextConfig):
    """What the generated presets have in common: twice as much upstream text as text of a later domain."""

    upstream_tokens: Tokens | None = setting(
        300_000, "target tokens of the first domain; `tokens` are those of each later one", source="clbench"
    )


class TinyWeak(TextShift):
    """Generated prose, then prose with half of its words replaced: a weak shift; no download."""

    class Config(TinyConfig):
        domains: Names = setting(
            ["prose", "prose2"], "domains in order (see text-shift)", source="clbench", min_length=1
        )


class TinyStrong(TextShift):
    """Generated prose, then the same language enciphered: a shift of the size `kappa`; no download."""

    class Config(TinyConfig):
        domains: Names = setting(
            ["prose", "cipher"], "domains in order (see text-shift)", source="clbench", min_length=1
        )


class TinyThree(TextShift):
    """Generated prose, then code, then enciphered prose: two switches; no download."""

    class Config(TinyConfig):
        domains: Names = setting(
            ["prose", "code", "cipher"], "domains in order (see text-shift)", source="clbench", min_length=1
        )


class TinySplit3(TextShift):
    """Generated prose in three equal parts without a shift: the control; no download."""

    class Config(TextConfig):
        domains: Names = setting(
            ["prose", "prose", "prose"], "domains in order (see text-shift)", source="clbench", min_length=1
        )


class TinyMonths(TextShift):
    """Generated prose in six slices of time; from one to the next the share `drift` of its facts changes; no download.

    Half of the sentences tell one of 200 facts; all else stays, so the slices differ in known places alone.
    """

    class Config(TextConfig):
        domains: Names = setting(
            ["month1", "month2", "month3", "month4", "month5", "month6"],
            "domains in order (see text-shift)",
            source="clbench",
            min_length=1,
        )
        tokens: Budgets = setting(
            300_000, "target tokens of each month, or a list, one number a month (8M, 500k)", source="clbench"
        )
