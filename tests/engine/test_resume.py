"""SIGKILL anywhere, resume, and every byte is that of the uninterrupted run."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clbench.launch import start_run
from clbench.registry import STRATEGIES, load_strategy, targets

pytestmark = pytest.mark.usefixtures("packages")

Outcome = Callable[[Path], dict[str, Any]]

FAULTS = [
    "initial:1",
    "begin_task:2",
    "phase-begin:3",
    "phase:2",
    "phase:7",
    "phase:19",
    "evaluate:2",
    "evaluate:9",
    "end_task:2",
    "batches:4",
    "checkpoint:5",
    "checkpoint-rename:6",
]
BUILT_IN = sorted(name for name, target in targets(STRATEGIES).items() if target.startswith("clbench."))
SETTINGS = {"batch_size": 16, "steps": 5}
COMMON = ("phase:9", "end_task:2")  # every other strategy meets one of them in the quick suite
FIRST_TASK_ONLY = ("frozen",)
EACH = 6  # of the kinds of faults every strategy meets one in so many, each the next ones


def small(name: str) -> dict[str, Any]:
    """Settings that make a run of this strategy short, and a model it works with."""
    kind = load_strategy(name)
    wanted = {
        "batch_size": 64,
        "steps": 6,
        "passes": 2,
        "memory_size": 40,
        "observe_every": 2,
        "codebooks": 8,
        "key_epochs": 1,
    }
    settings = {key: value for key, value in wanted.items() if key in kind.Config.model_fields}
    if name in FIRST_TASK_ONLY:
        settings["steps"] *= 4
    stream = {"sizes": [3, 5, 2], **kind.checked_on}
    return {"strategy_settings": settings, "backbone": kind.checked_with or None, "stream_settings": stream}


@pytest.mark.parametrize("fault", FAULTS)
def test_everything_survives_every_fault(runs: Any, outcome: Outcome, everything: str, fault: str) -> None:
    spec = runs.spec(everything, strategy_settings=SETTINGS)
    whole = outcome(runs.whole(spec))
    folder = runs.finish("killed", spec, fault)
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole


def test_killed_twice(runs: Any, outcome: Outcome, everything: str) -> None:
    spec = runs.spec(everything, strategy_settings=SETTINGS)
    whole = outcome(runs.whole(spec))
    folder = runs.finish("killed", spec, "phase:8")
    assert runs.resume(folder, "phase:11") < 0
    assert runs.resume(folder, "end_task:1") < 0
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        pytest.param(name, COMMON[i // 2 % 2], marks=() if i % 2 == 0 else pytest.mark.slow)
        for i, name in enumerate(BUILT_IN)
    ],
)
def test_every_strategy_resumes(runs: Any, outcome: Outcome, name: str, fault: str) -> None:
    spec = runs.spec(name, **small(name))
    folder = runs.finish("killed", spec, fault)
    assert runs.resume(folder) == 0
    assert outcome(folder) == outcome(runs.whole(spec))


def others(number: int) -> list[str]:
    """The kinds of faults that a strategy meets in the slow suite."""
    return sorted({COMMON[(number // 2 + 1) % 2], *FAULTS[number % EACH :: EACH]})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fault"),
    [(name, f) for i, name in enumerate(BUILT_IN) for f in others(i)],
)
def test_every_strategy_survives_faults_of_all_kinds(runs: Any, outcome: Outcome, name: str, fault: str) -> None:
    spec = runs.spec(name, **small(name))
    status = runs.fork(lambda: start_run(spec, runs.folder, checkpoint_every=3), fault)
    if status == 0:
        pytest.skip(f"{name} never passes {fault}")
    assert status == -signal.SIGKILL
    folder = next(runs.folder.glob("runs/*/*/*"))
    assert runs.resume(folder) == 0
    assert outcome(folder) == outcome(runs.whole(spec))


def test_a_damaged_checkpoint_is_passed_over(runs: Any, outcome: Outcome, everything: str) -> None:
    spec = runs.spec(everything, strategy_settings=SETTINGS)
    whole = outcome(runs.whole(spec))
    folder = runs.finish("killed", spec, "phase:15")
    newest = sorted((folder / "checkpoint").iterdir())[-1] / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-9])
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole
    assert "is damaged" in json.loads((folder / "record.json").read_text())["warnings"][0]


@pytest.mark.parametrize("grid", ["none", "full", "1", "3"])
def test_continual_evaluation_does_not_touch_training(runs: Any, outcome: Outcome, everything: str, grid: str) -> None:
    default = outcome(runs.finish("default", runs.spec(everything, strategy_settings=SETTINGS), every=None))
    other = outcome(runs.finish("other", runs.spec(everything, strategy_settings=SETTINGS, eval_grid=grid), every=None))
    assert other["state"] == default["state"]
    boundary = [row for row in default["table"] if row["kind"] == "boundary"]
    assert [row for row in other["table"] if row["kind"] == "boundary"] == boundary
    assert len(other["table"]) != len(default["table"])


def test_seeds_matter(runs: Any, outcome: Outcome, everything: str) -> None:
    a = outcome(runs.finish("a", runs.spec(everything, strategy_settings=SETTINGS, seed=0), every=None))
    b = outcome(runs.finish("b", runs.spec(everything, strategy_settings=SETTINGS, seed=1), every=None))
    assert a["state"] != b["state"]


def test_a_changed_strategy_is_refused(runs: Any, everything: str, tmp_path: Path) -> None:
    from clbench.errors import UserError
    from clbench.launch import resume_run

    copy = tmp_path / "mine.py"
    copy.write_text(Path(everything).read_text())
    folder = runs.finish("killed", runs.spec(str(copy), strategy_settings=SETTINGS), "phase:9")
    copy.write_text(copy.read_text() + "\n# changed\n")
    with pytest.raises(UserError, match="the strategy's source changed; start afresh with"):
        resume_run(folder)


@pytest.mark.parametrize("what", ["package torch", "threads"])
def test_changed_conditions_are_refused(runs: Any, everything: str, what: str) -> None:
    from clbench.errors import UserError
    from clbench.launch import resume_run

    folder = runs.finish("killed", runs.spec(everything, strategy_settings=SETTINGS), "phase:9")
    record = json.loads((folder / "record.json").read_text())
    if what == "threads":
        record["environment"]["threads"] = 7
    else:
        record["environment"]["versions"]["torch"] = "1.0"
    (folder / "record.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=f"{what} was .* start afresh"):
        resume_run(folder)


def test_a_run_in_use_is_refused(runs: Any, everything: str) -> None:
    import fcntl

    from clbench.errors import UserError
    from clbench.launch import resume_run

    folder = runs.finish("killed", runs.spec(everything, strategy_settings=SETTINGS), "phase:9")
    with (folder / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="in use by another process"):
            resume_run(folder)
