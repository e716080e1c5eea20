"""Training from scratch: the reference for what a task's data alone can teach."""

from __future__ import annotations

import torch
from torch import Tensor

from clbench.phase import Phase
from clbench.strategy import Needs, Strategy
from clbench.stream import Task


class Scratch(Strategy):
    """Go back to the initial weights before every task, and train on that task alone: the reference for transfer.

    The score of task k after task k is what its data teach without the tasks before it; one run gives all of them. A
    method that learns task k better has transferred something to it, one that learns it worse has lost plasticity.
    Initial weights are those the run began with (pretrained ones, where the backbone has some); outputs that a task
    adds start as they were added. Each task has a new optimiser and the schedule of a first phase. Scores of earlier
    tasks mean nothing here.
    """

    needs = Needs()

    def setup(self) -> None:
        self.state.initial = {}

    def begin_task(self, task: Task) -> None:
        current = self.model.state_dict()
        self.state.initial = {name: _grown(self.state.initial.get(name), value) for name, value in current.items()}
        self.model.load_state_dict(self.state.initial)

    def phases(self, task: Task) -> list[Phase]:
        return [self.phase("scratch", task.train, optimizer_state="reset", schedule_phase=0)]


def _grown(initial: Tensor | None, current: Tensor) -> Tensor:
    """The initial value of a tensor that may have grown since: what was added keeps the value it was added with."""
    value = current.detach().clone()
    if initial is not None:
        value[tuple(slice(length) for length in initial.shape)] = torch.as_tensor(initial, device=value.device)
    return value
