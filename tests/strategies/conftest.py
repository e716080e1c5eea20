"""Running strategies through the engine on small jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from clbench.engine.reporter import Reporter
from clbench.engine.session import Session
from clbench.launch import Prepared
from clbench.run import run
from clbench.spec import make_spec

IMAGES = {"stream": "split-digits", "backbone": "mlp:32x1", "stream_settings": {"train_per_class": 30}}
Drive = Callable[..., Session]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def drive(tmp_path: Path) -> Drive:
    """`drive(strategy, settings, job=TEXT, stop_at=7, folder=...)`: the session afterwards.

    `job` holds further entries of the specification. Evaluations inside tasks are off unless it says otherwise.
    """
    numbers = count()

    def driven(
        strategy: str,
        settings: dict[str, Any] | None = None,
        *,
        job: dict[str, Any] = IMAGES,
        stop_at: int | None = None,
        folder: Path | None = None,
        **more: Any,
    ) -> Session:
        values = {"strategy": strategy, "strategy_settings": settings or {}, "eval_grid": "none", "threads": 1}
        folder = folder or tmp_path / f"run{next(numbers)}"
        folder.mkdir(exist_ok=True)
        built = Prepared(make_spec({**values, **job, **more}))
        session = built.session(folder, Stopper(stop_at), None)
        try:
            run(session)
        finally:
            session.close()
        return session

    return driven


class Stopper(Reporter):
    """Interrupts the run after some steps, as Ctrl-C does."""

    def __init__(self, stop_at: int | None) -> None:
        self.left = stop_at

    def started(self, session: Session) -> None:
        self.session = session

    def stepped(self, task: int, step: int, length: int, loss: Any) -> None:
        if self.left is not None:
            self.left -= 1
            self.session.interrupted = self.left == 0


@pytest.fixture
def final() -> Callable[[Session, str], float]:
    """The mean over all sets of the primary metric at the last boundary."""

    def value(session: Session) -> float:
        table = session.table.table
        rows = [r for r in table if r.kind == "boundary" and r.metric == session.objective.primary]
        last = max(r.tasks_seen for r in rows)
        values = [r.value for r in rows if r.tasks_seen == last]
        return sum(values) / len(values)

    return value
