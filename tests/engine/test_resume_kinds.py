"""Strategies that declare `resume="task"` or "none": what a checkpoint holds of them, and where they start again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from clbench.engine.reporter import Reporter
from clbench.errors import Interrupted
from clbench.launch import resume_run, start_run
from clbench.samples import Batch
from clbench.strategy import Needs, Strategy
from clbench.stream import Task

Outcome = Callable[[Path], dict[str, Any]]
SETTINGS = {"batch_size": 16, "steps": 6}


class ByTask(Strategy):
    """What it learns depends on a number that is counted in each task anew and saved nowhere."""

    needs = Needs(resume="task")

    def setup(self) -> None:
        self.steps = 0

    def begin_task(self, task: Task) -> None:
        self.steps = 0

    def loss(self, batch: Batch) -> Tensor:
        return self.objective.loss(self.model, batch) / (1 + self.steps)

    def after_step(self, batch: Batch) -> None:
        self.steps += 1


class Never(ByTask):
    """The number is counted over the whole run."""

    needs = Needs(resume="none")

    def begin_task(self, task: Task) -> None:
        pass


class Told(Reporter):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoint").glob("0*"))


@pytest.mark.parametrize(
    "fault",
    ["phase:9", "end_task:2"]
    + [pytest.param(f, marks=pytest.mark.slow) for f in ("evaluate:9", "begin_task:3", "phase:3")],
)
@pytest.mark.parametrize("name", ["ByTask", "Never"])
def test_a_killed_run_ends_as_the_whole_one(runs: Any, outcome: Outcome, name: str, fault: str) -> None:
    spec = runs.spec(f"{__file__}:{name}", strategy_settings=SETTINGS)
    whole = outcome(runs.whole(spec))
    folder = runs.finish("killed", spec, fault)
    assert bool(_checkpoints(folder)) == (name == "ByTask")
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole


def test_resuming_says_where_it_starts_again(runs: Any) -> None:
    for name, kept, place in (
        ("ByTask", "is saved between tasks only", "at task 1"),
        ("Never", "keeps nothing that can be saved", "from the beginning"),
    ):
        folder = runs.finish(name, runs.spec(f"{__file__}:{name}", strategy_settings=SETTINGS), "phase:9")
        told = Told()
        record = resume_run(folder, told, checkpoint_every=3)
        resume = name.replace("ByTask", "task").replace("Never", "none")
        assert told.notes == [f"{name} {kept} (resume: {resume}): the run starts again {place}"]
        assert record["warnings"] == [] and record["strategy"]["needs"]["resume"] == resume


@pytest.mark.parametrize(
    "name, way",
    [("ByTask", "continue from the last task's end"), ("Never", "start again from the beginning")],
)
def test_an_interrupted_run_says_how_it_goes_on(
    runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, way: str
) -> None:
    class Stopping(Reporter):
        def started(self, session: Any) -> None:
            self.session = session

        def stepped(self, task: int, step: int, length: int, loss: Tensor | None) -> None:
            self.session.interrupted = task == 1

    spec = runs.spec(f"{__file__}:{name}", strategy_settings=SETTINGS)
    with pytest.raises(Interrupted, match=f"interrupted; {way} with: clbench resume") as stopped:
        start_run(spec, tmp_path, Stopping())
    assert stopped.value.folder is not None
    told = Told()
    assert resume_run(stopped.value.folder, told)["status"] == "completed"
    assert told.notes[0].endswith("at task 1" if name == "ByTask" else "from the beginning")
