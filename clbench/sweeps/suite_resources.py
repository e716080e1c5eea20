"""The resources that a suite asks for."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator

from clbench.config import Config
from clbench.quantities import UNITS, amount


class SuiteResources(Config):
    """`resources` of a suite. gpus: None where it says nothing; memory: bytes."""

    cpus: int = 1
    gpus: float | None = None
    memory: int | None = None

    @field_validator("memory", mode="before")
    @classmethod
    def _memory(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                value = int(amount(value, UNITS))
            except ValueError:
                raise ValueError("write bytes, or an amount such as 2GB") from None
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value <= 0):
            raise ValueError("write bytes, or an amount such as 2GB")
        return value

    @field_validator("cpus")
    @classmethod
    def _cpus(cls, value: int) -> int:
        if value < 1:
            raise ValueError("use 1 or more")
        return value

    @field_validator("gpus")
    @classmethod
    def _gpus(cls, value: float | None) -> float | None:
        if value is not None and (value < 0 or (value > 1 and value != int(value))):
            raise ValueError("use 0, a share below 1, or a whole number")
        return value
