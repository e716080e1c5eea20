"""Text streams of their own names: text-shift with domains and budgets chosen for a question."""

from __future__ import annotations

from typing import ClassVar

from clbench.config import setting
from clbench.errors import UserError
from clbench.stream import Training

from .text import TextShift
from .text_config import Budgets, Names, TextConfig, Tokens
from .text_domains import Library
from .text_years import year_slices

SMALL = Training(optimizer="adamw", lr=1e-3, weight_decay=0.1, batch_size=16, epochs=1.0, schedule="constant", clip=1.0)
"""For the model of about 0.85 M parameters below (clbench); weight decay and clipping as in `text.TRAINING`."""


class SmallConfig(TextConfig):
    """What the presets on real text have in common."""

    context: int = setting(128, "tokens a model sees at once", source="clbench", ge=1, le=1_048_576)
    upstream_tokens: Tokens | None = setting(
        3_200_000, "target tokens of the first domain; `tokens` are those of each later one", source="clbench"
    )


class SmallText(TextShift):
    """Text sets from disk, for a model of about 0.85 M parameters: width 128, 4 layers, 4 heads, context 128."""

    class Config(SmallConfig):
        pass

    training: ClassVar[Training] = SMALL
    model_options: ClassVar[str] = ",d=128,layers=4,heads=4"


class TextWeak(SmallText):
    """Upstream English novels, then arguments before the US Supreme Court: the same language, a weak shift.

    Twice as much upstream text as later text; both fit the sets, and so does the control `no_shift=true`.
    """

    class Config(SmallConfig):
        domains: Names = setting(
            ["english_novels", "law_scotus"], "domains in order (see text-shift)", source="clbench", min_length=1
        )
        tokens: Budgets = setting(
            1_600_000, "target tokens of each later domain, or a list (8M, 500k)", source="clbench"
        )


class TextStrong(SmallText):
    """Upstream English novels, then Python code: another vocabulary, layout and grammar, a strong shift.

    Twice as much upstream text as later text, as in text-weak, with which it has the upstream phase in common.
    """

    class Config(SmallConfig):
        domains: Names = setting(
            ["english_novels", "python_code"], "domains in order (see text-shift)", source="clbench", min_length=1
        )
        tokens: Budgets = setting(
            1_600_000, "target tokens of each later domain, or a list (8M, 500k)", source="clbench"
        )


class TextThree(SmallText):
    """Upstream English novels, then Python code, then Chinese poetry: two strong shifts one after another.

    The upstream phase is that of text-weak and text-strong; claims on repeated schedules need two switches.
    """

    class Config(SmallConfig):
        domains: Names = setting(
            ["english_novels", "python_code", "chinese_poetry"],
            "domains in order (see text-shift)",
            source="clbench",
            min_length=1,
        )
        tokens: Budgets = setting(
            1_000_000, "target tokens of each later domain, or a list (8M, 500k)", source="clbench"
        )


class TextSplit3(SmallText):
    """English novels in three equal parts without a shift: the control for two switches."""

    class Config(SmallConfig):
        domains: Names = setting(
            ["english_novels", "english_novels", "english_novels"],
            "domains in order (see text-shift)",
            source="clbench",
            min_length=1,
        )
        tokens: Budgets = setting(1_700_000, "target tokens of each part, or a list (8M, 500k)", source="clbench")
        upstream_tokens: Tokens | None = setting(
            None, "target tokens of the first part, where it differs", source="clbench"
        )


class TextLanguages(SmallText):
    """Novels and plays in one language after another: English, German, French, Russian, then Chinese poetry."""

    class Config(SmallConfig):
        domains: Names = setting(
            ["english_novels", "german_novels", "french_novels", "russian_drama", "chinese_poetry"],
            "domains in order (see text-shift)",
            source="clbench",
            min_length=1,
        )
        tokens: Budgets = setting(500_000, "target tokens of each later domain, or a list (8M, 500k)", source="clbench")


class TextCodeApis(SmallText):
    """Python code of one library after another: networkx, pip, werkzeug.

    The set python_code is cut by the repository its files come from: code inside three libraries, each with its own
    interfaces. For code that uses libraries, cut a set of one's own by what its files import most:
    `domains='mine[imports=numpy],mine[imports=torch]'`.
    """

    class Config(SmallConfig):
        domains: Names = setting(
            [
                "networkx=python_code[doc=networkx/*]",
                "pip=python_code[doc=pypa/*]",
                "werkzeug=python_code[doc=pallets/*]",
            ],
            "domains in order (see text-shift)",
            source="clbench",
            min_length=1,
        )
        tokens: Budgets = setting(
            600_000, "target tokens of each later library, or a list (8M, 500k)", source="clbench"
        )
        upstream_tokens: Tokens | None = setting(1_800_000, "target tokens of the first library", source="clbench")


class TextYears(SmallText):
    """A dated set in consecutive slices of years of about equal text, oldest first; each has its own evaluation set.

    The cross-slice matrix gives the in-distribution, backward and forward losses (TiC-LM, Li et al. 2025). Documents
    without a year are left out. Arguments before the US Supreme Court, 1955 to 2025, are the default: of the dated
    sets their slices have least text in common (see the stream's notes).
    """

    class Config(SmallConfig):
        source: str = setting(
            "law_scotus", "the dated set: its name, a path, or hf:OWNER/NAME (not with a slice)", source="clbench"
        )
        slices: int = setting(5, "how many slices", source="clbench", ge=1, le=1000)
        domains: Names = setting([], "domains in order instead of equal slices (see text-shift)", source="clbench")
        tokens: Budgets = setting(1_200_000, "target tokens of each slice, or a list (8M, 500k)", source="clbench")
        upstream_tokens: Tokens | None = setting(
            None, "target tokens of the first slice, where it differs", source="clbench"
        )

    def domains(self, library: Library) -> list[str]:
        if self.config.domains:
            return list(self.config.domains)
        place = self.config.source
        if place.startswith("hf:") or "[" in place:
            raise UserError(f"stream {self.name}: the slices of {place} must be named: domains='SET[2019],SET[2020]'")
        return year_slices(place, library.documents(place)[0], self.config.slices)
