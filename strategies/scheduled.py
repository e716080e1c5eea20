"""What the methods have in common that are a learning-rate schedule and nothing else."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from pydantic import model_validator

from clbench.errors import UserError
from clbench.phase import Phase
from clbench.schedules import find
from clbench.strategy import Strategy


class Scheduled(Strategy):
    """Finetuning under a schedule of its own; `Config.written` is that schedule as `--schedule` takes it."""

    class Config(Strategy.Config):
        @abstractmethod
        def written(self) -> str:
            """The schedule with these settings."""

        @model_validator(mode="after")
        def _fits(self) -> Scheduled.Config:
            try:
                find(self.written())
            except UserError as error:
                raise ValueError(str(error)) from None
            return self

    def phase(self, name: str, data: Any, **changes: Any) -> Phase:
        return super().phase(name, data, **{"schedule": self.config.written(), **changes})
