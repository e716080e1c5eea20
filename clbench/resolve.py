"""A specification in full: every setting of strategy and stream, and what the stream recommends where nobody says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench import upstream
from clbench.config import parse_config
from clbench.engine.hooks import check_declaration, check_tuning
from clbench.errors import UserError
from clbench.record import strategy_label
from clbench.registry import absolute_file, load_recipe, load_strategy
from clbench.spec import RunSpec

if TYPE_CHECKING:
    from clbench.strategy import Strategy
    from clbench.stream import Recipe, Stream


@dataclass(frozen=True)
class Parts:
    """The classes a specification names, and their settings, checked. Raises UserError when made by `parts_of`."""

    strategy: type[Strategy]
    recipe: type[Recipe]
    strategy_config: Any
    stream_config: Any


def parts_of(spec: RunSpec) -> Parts:
    """Load the strategy and the recipe, and check the settings given for them."""
    recipe, strategy = load_recipe(spec.stream), load_strategy(spec.strategy)
    stream_config = parse_config(recipe.Config, spec.stream_settings, f"stream {spec.stream}")
    config = parse_config(strategy.Config, spec.strategy_settings, f"strategy {spec.strategy}")
    return Parts(strategy, recipe, config, stream_config)


def build_stream(spec: RunSpec, parts: Parts) -> Stream:
    """The stream, its data read. Raises UserError."""
    root = Path(spec.data_root) if spec.data_root else None
    name = strategy_label(spec.stream)
    stream = parts.recipe(name, parts.stream_config, order_seed=spec.order_seed, data_root=root).build()
    names = [eval_set.name for eval_set in stream.eval_sets]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise UserError(f"{stream.name}: two of its evaluation sets are called {twice!r}; call one of them otherwise")
    return stream


def in_full(spec: RunSpec, parts: Parts, stream: Stream) -> RunSpec:
    """The specification with nothing left open but what is the machine's; fills `parts.strategy_config` as well.

    Of the stream, its data are not needed. Raises UserError where the strategy cannot work on it.
    """
    check_declaration(parts.strategy, stream)
    config = parts.strategy_config
    for name in type(config).model_fields:
        if getattr(config, name) is None and hasattr(stream.training, name):
            setattr(config, name, getattr(stream.training, name))
    check_tuning(parts.strategy, config, spec.tune)
    reads = parts.strategy.reads(config)
    if reads == "features" and stream.objective == "contrastive":
        raise UserError(
            f"strategy {parts.strategy.__name__} reads features of a frozen backbone and has no use for captions: "
            f"it does not work on {stream.name}, a contrastive stream"
        )
    backbone = spec.backbone or (stream.feature_model if reads == "features" else stream.default_model)
    spec = spec.model_copy(update=upstream.in_full(spec, backbone, stream.training))
    upstream.check_strategy(spec, parts.strategy.__name__, parts.strategy.adopts, reads, config)
    return spec.model_copy(
        update={
            "strategy_settings": config.model_dump(mode="json"),
            "stream_settings": parts.stream_config.model_dump(mode="json"),
            "backbone": backbone,
            "strategy": absolute_file(spec.strategy),
            "stream": absolute_file(spec.stream),
        }
    )
