"""Tables for the tests, made from a matrix or from one gap."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from clbench.table import EvaluationTable, Row

TableMaker = Callable[..., EvaluationTable]
TASK_LENGTH = 10


@pytest.fixture(scope="session")
def matrix_table() -> TableMaker:
    """matrix_table(R, initial=..., sizes=...): boundary rows, task t ending at step 10 (t + 1)."""

    def make(
        R: Sequence[Sequence[float | None]],
        initial: Sequence[float | None] = (),
        sizes: Sequence[int] | None = None,
    ) -> EvaluationTable:
        table = EvaluationTable()
        for tasks_seen, scores in enumerate([initial, *R]):
            for j, score in enumerate(scores):
                n = sizes[j] if sizes else None
                table.append(Row(TASK_LENGTH * tasks_seen, tasks_seen, f"set{j}", score, n=n, belongs_to=j))
        return table

    return make


@pytest.fixture(scope="session")
def gap_table() -> TableMaker:
    """gap_table(m0, start, steps, values, ...): task 0 ends at `start`, the old set is traced inside task 1."""

    def make(
        m0: float | None,
        start: int,
        steps: Sequence[int],
        values: Sequence[float | None],
        base: float | None = None,
        se: Sequence[float | None] | None = None,
        end: int | None = None,
        finished: bool = True,
    ) -> EvaluationTable:
        end = steps[-1] if end is None else end
        table = EvaluationTable()
        for tasks_seen, step in ((1, start), (2, end)) if finished else ((1, start),):
            for j, name in enumerate(("old", "new")):
                table.append(Row(step, tasks_seen, name, 1.0, belongs_to=j))
        table.append(Row(start, 1, "old", m0, belongs_to=0, kind="trace", base=base))
        for i, (step, value) in enumerate(zip(steps, values, strict=True)):
            error = se[i] if se else None
            table.append(Row(step, 1, "old", value, belongs_to=0, kind="trace", se=error, base=base))
        return table

    return make
