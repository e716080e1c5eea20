"""Settings of the text streams, and the phases that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from clbench.config import setting
from clbench.quantities import UNITS, amount
from clbench.stream import Recipe

from .text_sources import Domain, parse_domain, split_list


def _items(value: Any) -> Any:
    """`a,b` as a list."""
    return split_list(value) if isinstance(value, str) else value


def _number(value: Any) -> Any:
    """`8M` as 8000000."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, str):
        return value
    number = amount(value, UNITS)
    if not number.is_integer():
        raise ValueError(f"{value} is not a whole number of tokens")
    return int(number)


def _numbers(value: Any) -> Any:
    """`8M`, or `8M,4M` as a list."""
    if isinstance(value, str) and "," in value:
        return [_number(item) for item in split_list(value)]
    return [_number(item) for item in value] if isinstance(value, list) else _number(value)


LATER = {"drift": 0.25, "upstream_tokens": None, "no_shift": False}

Names = Annotated[list[str], BeforeValidator(_items)]
Tokens = Annotated[int, BeforeValidator(_number)]
Budgets = Annotated[int | list[int], BeforeValidator(_numbers)]


@dataclass(frozen=True)
class TextPhase:
    """One phase: what it is called, what it trains on, and how many target tokens of it (0: all)."""

    name: str
    domain: Domain
    tokens: int


class TextConfig(Recipe.Config):
    domains: Names = setting(
        ["prose", "code", "cipher"],
        "domains in order: generated (prose, prose2, code, math, cipher, month1 to month6), sets, paths, "
        "hf:OWNER/NAME, slices SET[1990-1999] and mixtures A+B; one named again goes on with further text",
        source="clbench",
        min_length=1,
    )
    probes: Names = setting([], "domains that are evaluated and never trained on", source="clbench")
    kappa: float = setting(1.0, "share of the alphabet that the domain `cipher` permutes", source="clbench", ge=0, le=1)
    drift: float = setting(
        0.25,
        "share of the facts that change from one of the generated months to the next",
        source="clbench",
        ge=0,
        le=1,
    )
    context: int = setting(64, "tokens a model sees at once", source="clbench", ge=1, le=1_048_576)
    tokenizer: str = setting("bytes", "`bytes`, or `hf:NAME` or `hf:FOLDER` (transformers)", source="clbench")
    tokens: Budgets = setting(
        150_000,
        "target tokens to train on in each domain, or a list, one number a domain (8M, 500k); 0: all there are",
        source="clbench",
    )
    upstream_tokens: Tokens | None = setting(
        None, "target tokens of the first domain; the numbers of `tokens` are then the later ones'", source="clbench"
    )
    no_shift: bool = setting(
        False, "the control: later phases go on with the first domain; theirs are probes", source="clbench"
    )
    eval_blocks: int = setting(256, "blocks of each evaluation set", source="clbench", ge=1)
    validation: float = setting(
        0.0, "share of the training documents kept for choosing hyper-parameters", source="clbench", ge=0, le=0.5
    )

    @model_serializer(mode="wrap")
    def _without_idle_settings(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A stream that uses none of the later settings has the specification of those made before they were."""
        idle = {name for name, value in LATER.items() if type(self).model_fields[name].default == value}
        return {key: value for key, value in serialize(self).items() if key not in idle or value != LATER[key]}

    @field_validator("domains", "probes")
    @classmethod
    def _readable(cls, names: list[str]) -> list[str]:
        for name in names:
            parse_domain(name)
        return names

    @model_validator(mode="after")
    def _fit(self) -> TextConfig:
        if self.domains:
            plan(self, self.domains)
        return self


def plan(config: TextConfig, domains: Sequence[str]) -> tuple[list[TextPhase], list[Domain]]:
    """The phases in the order of `domains`, and the probes. Raises ValueError where the settings do not fit."""
    chosen = [parse_domain(text) for text in domains]
    probes = [parse_domain(text) for text in config.probes]
    if config.no_shift:
        probes = [*(domain for domain in dict.fromkeys(chosen) if domain != chosen[0]), *probes]
        chosen = [chosen[0]] * len(chosen)
    if len(set(probes)) < len(probes):
        raise ValueError("a probe is named twice")
    both = [domain.name for domain in probes if domain in chosen]
    if both:
        raise ValueError(f"{both[0]} is both a domain to train on and a probe")
    phases = [
        TextPhase(_numbered(domain.name, chosen[: i + 1].count(domain)), domain, tokens)
        for i, (domain, tokens) in enumerate(zip(chosen, _budgets(config, len(chosen)), strict=True))
    ]
    names = [phase.name for phase in phases] + [domain.name for domain in probes]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two domains would be called {name}; give one a name: OTHER={name}")
    for phase in phases:
        if 0 < phase.tokens < config.context:
            raise ValueError(f"tokens={phase.tokens} is less than one block of context={config.context}")
        if phase.tokens == 0 and chosen.count(phase.domain) > 1:
            raise ValueError(f"{phase.domain.name} has several phases; give each a number of tokens, not 0")
        if phase.tokens == 0 and len(set(phase.domain.shares)) > 1:
            raise ValueError(f"{phase.domain.name} is mixed in given shares; give it a number of tokens, not 0")
    return phases, probes


def _budgets(config: TextConfig, phases: int) -> list[int]:
    """Target tokens of each phase."""
    upstream = [] if config.upstream_tokens is None else [config.upstream_tokens]
    later = phases - len(upstream)
    tokens = config.tokens if isinstance(config.tokens, list) else [config.tokens] * later
    if len(tokens) != later:
        whose = "domains after the first" if upstream else "domains"
        raise ValueError(f"tokens has {len(tokens)} numbers for {later} {whose}; give one, or one for each")
    budgets = [*upstream, *tokens]
    if min(budgets) < 0:
        raise ValueError(f"{min(budgets)} tokens; use 0 (all there are) or more")
    return budgets


def _numbered(name: str, time: int) -> str:
    return name if time == 1 else f"{name}.{time}"
