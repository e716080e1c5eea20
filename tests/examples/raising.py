"""A strategy that raises in the hook its settings name, and prints where it should not."""

from __future__ import annotations

from typing import Any

from clbench.config import setting
from clbench.strategy import Strategy


class Raising(Strategy):
    """Finetuning that raises in one hook."""

    class Config(Strategy.Config):
        hook: str = setting("", "the hook that raises; empty: none", source="a test")
        when: int = setting(1, "the first task it raises in", source="a test", ge=0)

    def _maybe(self, name: str) -> None:
        if self.config.hook == name and (name == "setup" or self._services.task >= self.config.when):
            raise ZeroDivisionError(f"no luck\nin {name}")

    def setup(self) -> None:
        print("a strategy that prints")
        self._maybe("setup")

    def build(self, task: Any) -> None:
        self._maybe("build")

    def begin_task(self, task: Any) -> None:
        self._maybe("begin_task")

    def phases(self, task: Any) -> list[Any]:
        self._maybe("phases")
        return super().phases(task)

    def loss(self, batch: Any) -> Any:
        self._maybe("loss")
        return super().loss(batch)

    def after_backward(self, batch: Any) -> None:
        self._maybe("after_backward")

    def after_step(self, batch: Any) -> None:
        self._maybe("after_step")

    def end_task(self, task: Any) -> None:
        self._maybe("end_task")

    def predict(self, inputs: Any) -> Any:
        self._maybe("predict")
        return super().predict(inputs)

    def deploy(self) -> None:
        self._maybe("deploy")
