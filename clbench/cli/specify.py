"""From options and a config file to checked specifications, before anything slow is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clbench import catalogue, upstream
from clbench.budgets import EXAMPLE, budget_amount
from clbench.catalogue import Entry
from clbench.errors import UserError, did_you_mean
from clbench.published import find_recipe, published
from clbench.quantities import parse_seeds
from clbench.settings import Owner, check_schedule, check_settings, no_owner, owner_of, parse_value
from clbench.spec import RunSpec, make_spec, read_spec_file

MAPPINGS = ("strategy_settings", "stream_settings", "upstream_settings", "budget")


def specifications(
    options: dict[str, Any],
    shortcuts: dict[str, Any],
    assignments: list[str],
    budget: list[str],
    config: Path | None,
    seeds: str | None,
) -> list[RunSpec]:
    """One specification, or one per seed.

    options: RunSpec fields, None where not given. shortcuts: settings with an option of their own. assignments: the
    texts of --set. What the command line says wins over the config file. Raises UserError.
    """
    values = _from_file(_config_file(config)) if config else {}
    values |= {key: value for key, value in options.items() if value is not None}
    for key in ("strategy", "stream"):
        if not values.get(key):
            raise UserError(
                f"no {key} is named: clbench run STRATEGY STREAM, or --config FILE "
                f"(`clbench list {catalogue.PLURALS[key]}`)"
            )
    strategy = catalogue.find("strategy", str(values["strategy"]))
    stream = catalogue.find("stream", str(values["stream"]))
    values["upstream_settings"] = (values.get("upstream_settings") or {}) | for_upstream(assignments)
    for_strategy, for_stream = assign([text for text in assignments if not _is_upstreams(text)], strategy, stream)
    given = {key: value for key, value in shortcuts.items() if value is not None}
    if "schedule" in given:
        check_schedule(given["schedule"])
        for_strategy["schedule"] = given["schedule"]
    for_stream |= {key: given[key] for key in ("online", "scenario") if key in given}
    values["strategy_settings"] = (values.get("strategy_settings") or {}) | for_strategy
    values["stream_settings"] = (values.get("stream_settings") or {}) | for_stream
    values["budget"] = (values.get("budget") or {}) | parse_budget(budget)
    spec = make_spec(values)
    check_settings(strategy, spec.strategy_settings)
    check_settings(stream, spec.stream_settings)
    upstream.check_settings(spec.upstream, spec.upstream_settings)
    if spec.backbone:
        from clbench.models import describe

        describe(spec.backbone)
    if seeds is None:
        return [spec]
    if options.get("seed") is not None:
        raise UserError("--seed and --seeds are both given; use one of them")
    return [spec.model_copy(update={"seed": seed}) for seed in parse_seeds(seeds)]


def _config_file(config: Path) -> Path:
    """A file, or the recipe of this name. A missing YAML file is for the reader to report."""
    if config.is_file() or (config.suffix and config.parts[0] != "configs"):
        return config
    return find_recipe(str(config))


def _from_file(path: Path) -> dict[str, Any]:
    values = read_spec_file(path)
    published(values, f"config {path}")
    values.pop("published", None)
    for key, value in values.items():
        if key not in RunSpec.model_fields:
            raise UserError(f"config {path} has no key {key!r}{did_you_mean(str(key), RunSpec.model_fields)}")
        if key in MAPPINGS and not isinstance(value, (dict, type(None))):
            raise UserError(f"config {path}: {key} must hold `key: value` lines")
    return values


def assign(assignments: list[str], strategy: Entry, stream: Entry) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the strategy and of the stream from `KEY=VALUE` texts. Raises UserError for a key of neither, or of
    both."""
    found: dict[Owner, dict[str, Any]] = {"strategy": {}, "stream": {}}
    entries: dict[Owner, Entry] = {"strategy": strategy, "stream": stream}
    for text in assignments:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"--set {text!r}: write KEY=VALUE")
        try:
            owned = owner_of(key, strategy, stream, text)
        except UserError as error:
            raise UserError(f"--set {text}: {error}") from None
        if owned is None:
            raise no_owner(key, strategy, stream)
        owner, key = owned
        found[owner][key] = parse_value(value, entries[owner].settings.get(key), text)
    return found["strategy"], found["stream"]


def for_upstream(assignments: list[str]) -> dict[str, Any]:
    """Settings of the upstream's training from `upstream.KEY=VALUE` texts."""
    found = {}
    for text in filter(_is_upstreams, assignments):
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text!r}: write KEY=VALUE")
        value = "null" if value.strip().lower() == "none" else value
        found[key.strip().removeprefix(upstream.PREFIX)] = parse_value(value, None, text)
    return found


def _is_upstreams(text: str) -> bool:
    return text.strip().startswith(upstream.PREFIX)


def parse_budget(texts: list[str]) -> dict[str, float]:
    """`maf=full,seconds=90,memory=10MB`: limits by name, bytes for memory."""
    found: dict[str, float] = {}
    for part in (part for text in texts for part in text.split(",")):
        key, equals, limit = part.strip().partition("=")
        try:
            if not equals:
                raise ValueError
            found[key] = budget_amount(key, limit)
        except ValueError:
            raise UserError(f"--budget {part!r}: write {EXAMPLE}, with commas between") from None
    return found
