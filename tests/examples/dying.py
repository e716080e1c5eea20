"""Strategies whose process does not survive them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from clbench.config import setting
from clbench.strategy import Strategy


class Dies(Strategy):
    """Finetuning that kills its process at a step, until it has done so often enough."""

    class Config(Strategy.Config):
        lives: str = setting("", "file that counts the deaths", source="a test")
        deaths: int = setting(1, "how often it dies", source="a test", ge=0)
        after: int = setting(2, "the step of each life", source="a test", ge=1)

    def setup(self) -> None:
        self._steps = 0

    def after_step(self, batch: Any) -> None:
        self._steps += 1
        file = Path(self.config.lives)
        died = file.stat().st_size if file.exists() else 0
        if self._steps == self.config.after and died < self.config.deaths:
            with file.open("a") as lives:
                lives.write("x")
            os.kill(os.getpid(), signal.SIGKILL)


class Exits(Strategy):
    """Finetuning that ends the interpreter."""

    def after_step(self, batch: Any) -> None:
        raise SystemExit(3)


class DiesInSetup(Strategy):
    """Never gets as far as a record."""

    def __init__(self, config: Any, services: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
