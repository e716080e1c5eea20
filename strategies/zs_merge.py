"""ZS-merge: every task from theta0, a running merge deployed."""

from __future__ import annotations

from clbench.config import setting

from .ema_merge import EMAMerge
from .merging import Init


class ZSMerge(EMAMerge):
    """Train every task from the initial weights, and deploy a moving average of the results (ZS-merge).

    Roth et al. 2024 (arXiv 2408.14471), there `zs_paint`: the rule of EMA-merge, but theta_t is always trained from
    theta0. A class that comes again is learned anew, too. It is meant for models that can classify at theta0: what a
    head's new rows have learned fits the features of their own task's end. Two copies of the weights are kept.
    """

    class Config(EMAMerge.Config):
        init: Init = setting("theta0", "weights a task is trained from", source="arXiv 2408.14471")
