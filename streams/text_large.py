"""Text streams for machines with a GPU, data from the Hugging Face hub and pretrained weights."""

from __future__ import annotations

from typing import ClassVar

from clbench.config import setting
from clbench.stream import Training

from .text import TextShift
from .text_config import Budgets, Names, TextConfig, Tokens

PYTHIA = Training(
    optimizer="adamw", lr=3e-4, weight_decay=0.1, batch_size=32, epochs=1.0, schedule="rewarm-cosine", clip=1.0
)
"""Peak rate of Gupta et al. 2023 and Ibrahim et al. 2024 for 410 M parameters; their batches are of 1104 blocks."""


class LargeConfig(TextConfig):
    """What the streams for Pythia have in common: its tokeniser, its context, about 100 M new tokens."""

    context: int = setting(2048, "tokens a model sees at once", source="arXiv 2403.08763", ge=1, le=1_048_576)
    tokenizer: str = setting(
        "hf:EleutherAI/pythia-410m", "`bytes`, or `hf:NAME` or `hf:FOLDER`", source="arXiv 2308.04014"
    )
    tokens: Budgets = setting(
        100_000_000, "target tokens of each later domain, or a list (8M, 500k)", source="clbench; the papers: 300B"
    )
    upstream_tokens: Tokens | None = setting(
        10_000_000, "target tokens of the first domain, which the model knows already", source="clbench"
    )


class PileSlimpajama(TextShift):
    """The Pile, then SlimPajama: the weak shift of Gupta et al. 2023 and Ibrahim et al. 2024, read from the hub.

    For Pythia, which has seen the Pile: its short first phase gives replay its text and the upstream its evaluation
    set. The two have much text in common (web, code, Wikipedia).
    """

    class Config(LargeConfig):
        domains: Names = setting(
            ["pile=hf:monology/pile-uncopyrighted", "slimpajama=hf:cerebras/SlimPajama-627B"],
            "domains in order (see text-shift)",
            source="arXiv 2403.08763",
            min_length=1,
        )

    training: ClassVar[Training] = PYTHIA
    model: ClassVar[str] = "hf:EleutherAI/pythia-410m"


class Medical(TextShift):
    """The Pile, then clinical guidelines: general text, then medicine, as Guo et al. 2024 study it, read from the hub.

    The paper picks 50B medical tokens out of RefinedWeb, which are not published; clinical guidelines stand in for
    them.
    """

    class Config(LargeConfig):
        domains: Names = setting(
            ["pile=hf:monology/pile-uncopyrighted", "guidelines=hf:epfl-llm/guidelines::clean_text"],
            "domains in order (see text-shift)",
            source="clbench; arXiv 2406.14833: medical text of RefinedWeb",
            min_length=1,
        )
        tokens: Budgets = setting(
            40_000_000, "target tokens of each later domain, or a list (8M, 500k)", source="clbench; the paper: 50B"
        )

    training: ClassVar[Training] = PYTHIA
    model: ClassVar[str] = "hf:EleutherAI/pythia-410m"
