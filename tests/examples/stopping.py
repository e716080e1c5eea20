"""Strategies to be interrupted: one presses Ctrl-C itself, one is slow enough for somebody else to."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from clbench.config import setting
from clbench.strategy import Strategy


class PressesCtrlC(Strategy):
    """Finetuning that interrupts itself after some steps."""

    class Config(Strategy.Config):
        after: int = setting(3, "steps", source="a test", ge=1)

    def setup(self) -> None:
        self.state.steps = 0

    def after_step(self, batch: Any) -> None:
        self.state.steps += 1
        if self.state.steps == self.config.after:
            os.kill(os.getpid(), signal.SIGINT)


class Slow(Strategy):
    """Finetuning that sleeps after each step, and says on stdout when it has begun."""

    class Config(Strategy.Config):
        seconds: float = setting(0.05, "of sleep", source="a test", ge=0)

    def after_step(self, batch: Any) -> None:
        print("step", flush=True)
        time.sleep(self.config.seconds)
