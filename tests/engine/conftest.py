"""Running and killing runs in children forked from this process, which has imported torch already."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from clbench.launch import resume_run, start_run
from clbench.registry import STRATEGIES, load_strategy, targets
from clbench.spec import make_spec

HERE = Path(__file__).parent
LONGEST = 300
TINY = {"steps": 4, "batch_size": 16}
TEXT = {
    "stream": "text-shift",
    "backbone": "byte-gpt?d=16,layers=1,ctx=16",
    "stream_settings": {"context": 16, "tokens": 3200, "eval_blocks": 16},
}


def classifies(strategy: str) -> bool:
    """Whether a strategy, if it is one with a name, works with images and their classes."""
    if strategy not in targets(STRATEGIES):
        return True
    objectives = load_strategy(strategy).needs.objectives
    return objectives is None or "classification" in objectives


def forked(work: Callable[[], Any], fault: str = "") -> int:
    """Exit status of a child doing the work; negative: the signal that ended it, an alarm's after five minutes."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LONGEST)
        if fault:
            os.environ["CLBENCH_FAULT"] = fault
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Runs:
    """Runs of one specification under one folder, each in a forked child with one thread."""

    def __init__(self, folder: Path, wholes: dict[str, Path]) -> None:
        self.folder = folder
        self.wholes = wholes

    def spec(self, strategy: str, stream: str = "split-digits", **fields: Any) -> Any:
        """A small run: three unequal tasks of digits, unless told otherwise; of text where images are refused."""
        fields = {"threads": 1, **fields}
        if stream == "split-digits" and not classifies(strategy):
            return make_spec({**fields, **TEXT, "strategy": strategy})
        if stream == "split-digits":
            fields = {"stream_settings": {"sizes": [3, 5, 2]}, **fields}
        return make_spec({"strategy": strategy, "stream": stream, **fields})

    def finish(self, name: str, spec: Any, fault: str = "", every: int | None = 3) -> Path:
        """Run to the end, or until the fault kills it; the run's folder."""
        out = self.folder / name
        status = forked(lambda: start_run(spec, out, checkpoint_every=every), fault)
        assert status == (-signal.SIGKILL if fault else 0), f"{name}: child ended with {status}"
        return next(out.glob("runs/*/*/*"))

    def whole(self, spec: Any) -> Path:
        """The folder of an uninterrupted run without checkpoints; read only, since it is made once for all tests."""
        key = spec.model_dump_json()
        if key not in self.wholes:
            self.wholes[key] = self.finish(f"whole-{len(self.wholes)}", spec, every=None)
        return self.wholes[key]

    fork = staticmethod(forked)

    def resume(self, folder: Path, fault: str = "") -> int:
        """Continue in a child; its exit status."""
        return forked(lambda: resume_run(folder, checkpoint_every=3), fault)


def result(folder: Path) -> dict[str, Any]:
    """What must be equal, bit for bit: the state's hash, the table, the metrics."""
    import pyarrow.parquet as pq

    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "completed"
    table = pq.read_table(folder / "evaluations.parquet").to_pylist()
    return {
        "state": record["state_hash"],
        "table": table,
        "metrics": record["metrics"],
        "diagnostics": record.get("diagnostics"),
        "steps": record["cost"]["steps"],
    }


@pytest.fixture(scope="session")
def packages() -> None:
    """Have the slow imports here, so that forked children need not do them."""
    from clbench.torchvision_schemas import prepare

    prepare()
    for name in ("open_clip", "peft", "timm"):
        import_module(name)


@pytest.fixture(scope="session")
def wholes() -> dict[str, Path]:
    """The folders of uninterrupted runs by specification."""
    return {}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wholes: dict[str, Path]) -> Runs:
    import torch

    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CLBENCH_TRACKING", "off")
    torch.set_num_threads(1)
    return Runs(tmp_path, wholes)


@pytest.fixture
def everything() -> str:
    """The strategy that uses every service."""
    return str(HERE / "everything.py")


@pytest.fixture
def own() -> Callable[[str], str]:
    """`file.py:Class` of one of the strategies for several devices."""
    return lambda name: f"{HERE / 'shared_losses.py'}:{name}"


@pytest.fixture
def outcome() -> Callable[[Path], dict[str, Any]]:
    return result
