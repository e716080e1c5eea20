"""Finetuning: the empty strategy."""

from __future__ import annotations

from clbench.strategy import Strategy


class Finetune(Strategy):
    """Train on each task in turn, with nothing against forgetting: the lower reference.

    The loss is the objective's own over all outputs known so far. Toolboxes differ here: some train the outputs of
    the current task alone, some all outputs of the stream from its start.
    """
