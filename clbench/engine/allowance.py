"""From a specification's budget to the steps of every task, before anything is trained."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from clbench.budgets import SHARED_OUT, Allowance, RunCost, allow
from clbench.engine.measuring import measure_run
from clbench.record import strategy_label
from clbench.strategy import Strategy

if TYPE_CHECKING:
    from clbench.spec import RunSpec
    from clbench.stream import Stream

AS_THE_METHOD = ("optimizer", "momentum", "batch_size")
"""Settings that decide what a step of full fine-tuning needs; how many passes it makes is the stream's to say."""


def allowance_of(spec: RunSpec, stream: Stream, strategy: type[Strategy], config: Any) -> Allowance | None:
    """None where the budget shares nothing out. Raises UserError where a task cannot have a step."""
    if not any(key in spec.budget for key in SHARED_OUT):
        return None
    cost = measure_run(spec, stream, strategy, config)
    full = full_fine_tuning(spec, stream, strategy, config, cost)
    return allow(spec.budget, cost, full, strategy_label(spec.strategy), longest(stream, config))


def full_fine_tuning(spec: RunSpec, stream: Stream, strategy: type[Strategy], config: Any, cost: RunCost) -> RunCost:
    """The cost of plain training of the same model, all of it, with the method's optimiser and batch size, for as many
    passes as the stream recommends. cost: the method's own, which is taken where the method is this training."""
    training = stream.training
    values = {name: getattr(training, name) for name in Strategy.Config.model_fields if hasattr(training, name)}
    values |= {name: getattr(config, name) for name in AS_THE_METHOD if getattr(config, name, None) is not None}
    plain = Strategy.Config(**values)
    if spec.tune == "full" and _is_empty(strategy) and config == plain:
        return cost
    return measure_run(spec.model_copy(update={"tune": "full"}), stream, Strategy, plain)


def _is_empty(strategy: type[Strategy]) -> bool:
    """Whether a class adds nothing to `Strategy`, as finetune does not."""
    own = strategy.__mro__[: strategy.__mro__.index(Strategy)]
    return all(name.startswith("__") for kind in own for name in vars(kind))


def longest(stream: Stream, config: Any) -> list[int] | None:
    """The most steps of each task where its data may be seen once."""
    if not stream.single_pass:
        return None
    size = getattr(config, "batch_size", None) or stream.training.batch_size
    return [max(1, math.ceil(len(task.train) / size)) for task in stream.tasks]
