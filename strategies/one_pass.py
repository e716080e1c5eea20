"""What methods have in common that read the frozen features of each sample once and train nothing."""

from __future__ import annotations

from clbench.config import Config as Settings
from clbench.config import setting
from clbench.phase import Phase
from clbench.strategy import Needs, Strategy
from clbench.stream import Task


class OnePass(Strategy):
    """One pass over a task's frozen features without gradients; `after_step` takes a batch up."""

    class Config(Settings):
        """Settings of the pass."""

        batch_size: int | None = setting(
            512, "samples read per step (of no influence but rounding)", source="clbench: large, for speed", ge=1
        )

    needs = Needs(task_boundaries=False, gradient_free=True, objectives=("classification",))
    inputs = "features"

    def phases(self, task: Task) -> list[Phase]:
        size = self.config.batch_size
        return [Phase("read", task.train, "plain", epochs=1, batch_size=size, shuffle=False, optimizer=None)]
