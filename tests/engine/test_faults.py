"""What goes wrong in a run ends in one line, with everything kept that was there."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest

from clbench.errors import ClbenchError, Interrupted, RunFailed, UserError
from clbench.launch import resume_run, start_run
from clbench.record import read_record
from clbench.table import EvaluationTable

HEADER = """
from __future__ import annotations
import torch
from clbench.strategy import Needs, Strategy

class Mine(Strategy):
"""
SHORT = {"steps": 6, "batch_size": 16}
Outcome = Callable[[Path], dict[str, Any]]


@pytest.fixture
def mine(tmp_path: Path) -> Callable[[str], str]:
    """Write a strategy from the body of its class; `file.py:Mine`."""

    def write(body: str) -> str:
        path = tmp_path / "mine.py"
        path.write_text(HEADER + indent(dedent(body), "    "))
        return f"{path}:Mine"

    return write


def failed(spec: Any, out: Path, kind: type[ClbenchError] = RunFailed) -> tuple[str, Path, dict[str, Any]]:
    """The one line a run ends with, its folder and its record."""
    with pytest.raises(kind) as error:
        start_run(spec, out)
    assert type(error.value).exit_code == kind.exit_code
    message = str(error.value)
    assert "\n" not in message
    folder = next(out.glob("runs/*/*/*"))
    return message, folder, read_record(folder)


HOOKS = {
    "setup": "def setup(self):\n    {fault}",
    "build": "def build(self, task):\n    if task.index == 1:\n        {fault}",
    "begin_task": "def begin_task(self, task):\n    if task.index == 1:\n        {fault}",
    "phases": "def phases(self, task):\n    if task.index == 1:\n        {fault}\n    return super().phases(task)",
    "train.begin": """
def phases(self, task):
    return [self.phase("train", task.train, begin=self.start if task.index else None)]
def start(self):
    {fault}""",
    "train.data": """
def phases(self, task):
    return [self.phase("train", self.draw if task.index else task.train)]
def draw(self):
    {fault}""",
    "loss": "def loss(self, batch):\n    if batch.labels.max() > 2:\n        {fault}\n    return super().loss(batch)",
    "after_backward": "def after_backward(self, batch):\n    if batch.labels.max() > 2:\n        {fault}",
    "after_step": "def after_step(self, batch):\n    if batch.labels.max() > 2:\n        {fault}",
    "end_task": "def end_task(self, task):\n    if task.index == 1:\n        {fault}",
    "predict": """
def predict(self, inputs):
    if self.model.n_classes > 3:
        {fault}
    return self.model(inputs)""",
    "deploy": "def deploy(self):\n    if self.model.n_classes > 3:\n        {fault}",
}


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_that_raises_is_named_and_the_table_is_kept(
    runs: Any, mine: Callable[[str], str], tmp_path: Path, name: str
) -> None:
    body = HOOKS[name].format(fault="raise ValueError('two\\nlines')")
    message, folder, record = failed(runs.spec(mine(body), strategy_settings=SHORT), tmp_path / "out")
    where = "" if name == "setup" else " in task 1"
    assert message == f"strategy Mine raised in {name}{where}: ValueError: two lines"
    assert (record["status"], record["error"]) == ("failed", message)
    assert "Traceback" in (folder / "log.txt").read_text()
    if name != "setup":
        table = EvaluationTable.read(folder / "evaluations.parquet")
        assert {0, 1} <= {row.tasks_seen for row in table if row.kind == "boundary"}
        assert record["metrics"]["matrix"]["eval_sets"] == ["task0", "task1", "task2"]


def test_an_error_of_the_system_in_a_hook_is_the_strategys(
    runs: Any, mine: Callable[[str], str], tmp_path: Path
) -> None:
    spec = runs.spec(mine("def end_task(self, task):\n    open('/does/not/exist')"), strategy_settings=SHORT)
    message, _, _ = failed(spec, tmp_path / "out")
    assert message.startswith("strategy Mine raised in end_task in task 0: FileNotFoundError: ")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("def phases(self, task):\n    pass", "strategy Mine: phases returned NoneType, not a list of Phase"),
        (
            "def phases(self, task):\n    return [task.train]",
            "strategy Mine: phases returned list, not a list of Phase",
        ),
        (
            "def loss(self, batch):\n    return super().loss(batch).detach()",
            "the run failed with RuntimeError: element 0 of tensors does not require grad",
        ),
    ],
)
def test_what_a_hook_returns_is_checked(
    runs: Any, mine: Callable[[str], str], tmp_path: Path, body: str, expected: str
) -> None:
    message, _, record = failed(runs.spec(mine(body), strategy_settings=SHORT), tmp_path / "out")
    assert message.startswith(expected)
    assert (record["status"], record["error"]) == ("failed", message)


def test_state_that_cannot_be_saved_is_one_line(runs: Any, mine: Callable[[str], str], tmp_path: Path) -> None:
    spec = runs.spec(mine("def setup(self):\n    self.state.model = object()"), strategy_settings=SHORT)
    message, _, record = failed(spec, tmp_path / "out")
    assert "model is a object: state holds tensors, numbers, strings, lists, dicts, memories" in message
    assert record["status"] == "failed"


# -- divergence --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_not_finite_stops_the_run(
    runs: Any, mine: Callable[[str], str], tmp_path: Path, value: str
) -> None:
    body = f"""
        def setup(self):
            self.state.steps = 0
        def loss(self, batch):
            self.state.steps += 1
            return super().loss(batch) * (float("{value}") if self.state.steps == 9 else 1)
    """
    spec = runs.spec(mine(body), strategy_settings=SHORT, eval_grid="1")
    message, folder, record = failed(spec, tmp_path / "out")
    assert message == "the loss is not finite in task 1, phase 'train', step 2: try a lower --set lr=..."
    assert (record["status"], record["error"]) == ("diverged", message)
    assert record["cost"]["steps"] == 8
    table = EvaluationTable.read(folder / "evaluations.parquet")
    after = [row for row in table if row.step > 8]
    assert {row.step for row in after} == {9} and all(math.isnan(row.value or 0.0) for row in after)
    assert all(math.isfinite(row.value) for row in table if row.step <= 8 and row.value is not None)
    assert [(gap["eval_set"], gap["status"]) for gap in record["metrics"]["gap"]] == [("task0", "diverged")]


# -- disks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a small tmpfs is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True, capture_output=True)


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    runs: Any, outcome: Outcome, everything: str, small_disk: Path
) -> None:
    spec = runs.spec(everything, strategy_settings=SHORT)
    whole = outcome(runs.whole(spec))
    with pytest.raises(RunFailed, match=r"^cannot write .*: the disk is full: free some space$"):
        start_run(spec, small_disk, checkpoint_every=1)
    folder = next(small_disk.glob("runs/*/*/*"))
    whole_ones = sorted(p.name for p in (folder / "checkpoint").iterdir())
    assert whole_ones
    assert not any(name.startswith(".") for name in whole_ones)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    resume_run(folder)
    assert outcome(folder) == whole


@pytest.mark.parametrize("limit", [30_000, 120_000])
def test_a_file_that_may_not_grow_is_one_line(
    runs: Any, outcome: Outcome, everything: str, tmp_path: Path, limit: int
) -> None:
    """The limit on file sizes stands for a full disk where none can be made."""
    spec = runs.spec(everything, strategy_settings=SHORT)
    whole = outcome(runs.whole(spec))

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            start_run(spec, tmp_path / "out", checkpoint_every=3)
        except RunFailed as error:
            os._exit(0 if "larger than is allowed" in str(error) and "\n" not in str(error) else 3)

    assert runs.fork(limited) == 0
    folder = next((tmp_path / "out").glob("runs/*/*/*"))
    assert read_record(folder)["status"] == "failed"
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole


def test_an_output_folder_that_cannot_be_written(runs: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spec = runs.spec("finetune", strategy_settings=SHORT)
    with pytest.raises(UserError, match=r"^cannot write .*: a part of the path is a file: choose another --out$"):
        start_run(spec, tmp_path / "file" / "results")
    if Path("/sys/kernel").is_dir():
        with pytest.raises(
            UserError, match=r"^cannot write /sys/kernel/.*: (no permission|the file system is read-only)"
        ):
            start_run(spec, Path("/sys/kernel"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_without_permission(runs: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o555)
    with pytest.raises(UserError, match="no permission to write there: choose another --out"):
        start_run(runs.spec("finetune", strategy_settings=SHORT), tmp_path / "out")


# -- checkpoints -------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_another_format_is_refused_and_kept(runs: Any, everything: str) -> None:
    from clbench.files import checksum

    folder = runs.finish("killed", runs.spec(everything, strategy_settings=SHORT), "phase:9")
    for place in (folder / "checkpoint").iterdir():
        state = json.loads((place / "state.json").read_text())
        (place / "state.json").write_text(json.dumps({**state, "format": 99}))
        sums = json.loads((place / "checksums.json").read_text())
        sums["state.json"] = checksum(place / "state.json")
        (place / "checksums.json").write_text(json.dumps(sums))
    before = sorted((folder / "checkpoint").rglob("*"))
    with pytest.raises(UserError, match=r"has format 99, this version of clbench reads format 1: .* start afresh"):
        resume_run(folder)
    assert sorted((folder / "checkpoint").rglob("*")) == before


# -- interruptions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["phase:5:interrupt", "end_task:2:interrupt", "evaluate:6:interrupt"])
def test_ctrl_c_saves_and_the_run_goes_on_later(runs: Any, outcome: Outcome, everything: str, fault: str) -> None:
    spec = runs.spec(everything, strategy_settings=SHORT)
    whole = outcome(runs.whole(spec))
    out = runs.folder / "interrupted"

    def interrupted() -> None:
        try:
            start_run(spec, out)
        except Interrupted as stopped:
            folder = next(out.glob("runs/*/*/*"))
            said = f"interrupted; continue with: clbench resume {folder}"
            os._exit(0 if str(stopped) == said and stopped.exit_code == 130 else 3)

    assert runs.fork(interrupted, fault) == 0
    folder = next(out.glob("runs/*/*/*"))
    assert read_record(folder)["status"] == "interrupted"
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole


def test_a_second_ctrl_c_stops_at_once(
    runs: Any, mine: Callable[[str], str], outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = """
        def after_step(self, batch):
            import os, signal
            if os.environ.get("CTRL_C") and batch.labels.max() > 2:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
    """
    spec = runs.spec(mine(body), strategy_settings=SHORT)
    whole = outcome(runs.whole(spec))
    monkeypatch.setenv("CTRL_C", "1")
    with pytest.raises(
        Interrupted, match="interrupted at once; continue from the last checkpoint with: clbench resume"
    ):
        start_run(spec, tmp_path / "out", checkpoint_every=4)
    monkeypatch.delenv("CTRL_C")
    folder = next((tmp_path / "out").glob("runs/*/*/*"))
    assert read_record(folder)["status"] == "interrupted"
    assert runs.resume(folder) == 0
    assert outcome(folder) == whole
