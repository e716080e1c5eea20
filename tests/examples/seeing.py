"""A strategy that says which GPUs it may use."""

from __future__ import annotations

import os

from clbench.strategy import Strategy


class Sees(Strategy):
    """Finetuning that prints CUDA_VISIBLE_DEVICES."""

    def setup(self) -> None:
        print(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
