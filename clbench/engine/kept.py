"""Data of tasks that a strategy keeps to read again: earlier tasks' training data, validation data for selection."""

from __future__ import annotations

from clbench.errors import UserError
from clbench.samples import Samples
from clbench.stream import Stream


class Kept:
    """A stream's data as a strategy may read them again, and which of them count as stored."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._train = self._validation = False

    def earlier(self, task: int) -> dict[str, Samples]:
        """Training data of the tasks before this one, by name."""
        self._train = True
        return {t.name: t.train for t in self.stream.tasks[: max(0, task)]}

    def selection(self, task: int) -> dict[str, Samples]:
        """Validation data of the tasks up to this one, by name. Raises UserError where any task has none."""
        self._validation = True
        found = {t.name: t.validation for t in self.stream.tasks if t.validation is not None and len(t.validation)}
        if len(found) < len(self.stream.tasks):
            missing = next(t.name for t in self.stream.tasks if t.name not in found)
            raise UserError(
                f"the mixture is chosen by validation data, and stream {self.stream.name} keeps none of task "
                f"{missing}: --set validation=0.05 keeps some"
            )
        return {t.name: found[t.name] for t in self.stream.tasks[: task + 1]}

    def bytes(self, task: int) -> int:
        """Bytes of what was asked for, of the tasks up to this one, inputs and labels."""
        done = self.stream.tasks[: task + 1]
        samples = [t.train for t in done if self._train]
        samples += [t.validation for t in done if self._validation and t.validation is not None]
        return sum(_bytes(each) for each in samples)


def _bytes(samples: Samples) -> int:
    pool = samples.pool
    return sum(rows[:1].numel() * rows.element_size() for rows in (pool.inputs, pool.labels)) * len(samples)
