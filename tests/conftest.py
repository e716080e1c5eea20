"""Finished runs for the tests of what is done with them: made once, small, on one thread."""

from __future__ import annotations

import copy
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: workers share the cores
os.environ["CLBENCH_TRACKING"] = "off"

settings.register_profile("repeatable", derandomize=True)  # others: HYPOTHESIS_PROFILE=default
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

RUNS = (("finetune", 0), ("finetune", 1), ("replay", 0), ("replay", 1), ("nmc", 0))


@pytest.fixture(scope="session", autouse=True)
def small_models() -> Iterator[None]:
    """The digits with a small perceptron, and their pixels as features: most tests are about what is around a model."""
    from clbench.streams.split import SplitDigits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SplitDigits, "default_model", "mlp")
        patch.setattr(SplitDigits, "feature_model", "pixels")
        yield


@pytest.fixture(scope="session")
def published_sets() -> Any:
    """The module beside this file that writes small image sets in the form in which the real ones are published."""
    return _beside("published_sets")


@pytest.fixture(scope="session")
def pairs_stream() -> Any:
    """The module beside this file with a small stream of images with captions, and a model for it."""
    return _beside("pairs_stream")


def _beside(name: str) -> Any:
    spec = spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = sys.modules.setdefault(name, module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def finished_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with two runs of finetune and replay, and one of nmc, on the digits. Read only."""
    from clbench.launch import start_run
    from clbench.spec import make_spec

    results = tmp_path_factory.mktemp("finished") / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        for strategy, seed in RUNS:
            start_run(make_spec({"strategy": strategy, "stream": "split-digits", "seed": seed, "threads": 1}), results)
    return results


@pytest.fixture(scope="session")
def finished_runs(finished_results: Path) -> dict[tuple[str, int], Path]:
    """(strategy, seed) -> the folder of its run."""
    folders = sorted(finished_results.glob("runs/*/*/*"), key=lambda folder: folder.stat().st_mtime_ns)
    records = {folder: json.loads((folder / "record.json").read_text()) for folder in folders}
    return {(record["strategy"]["name"], record["spec"]["seed"]): folder for folder, record in records.items()}


@pytest.fixture
def run_copy(finished_runs: dict[tuple[str, int], Path], tmp_path: Path) -> Callable[[str, int], Path]:
    """Makes a copy of a finished run, in a results folder of the test's own, to be changed."""

    def make(strategy: str, seed: int) -> Path:
        source = finished_runs[strategy, seed]
        target = tmp_path / "results" / "runs" / source.parts[-3] / source.parts[-2] / source.name
        shutil.copytree(source, target)
        return target

    return make


@pytest.fixture
def make_record(finished_runs: dict[tuple[str, int], Path]) -> Callable[..., dict[str, Any]]:
    """Makes the record of a real run with some of its leaves changed: make_record(**{"spec.seed": 3})."""
    original = json.loads((finished_runs["finetune", 0] / "record.json").read_text())

    def make(**leaves: Any) -> dict[str, Any]:
        record = copy.deepcopy(original)
        for path, value in leaves.items():
            *parents, last = path.split(".")
            place = record
            for parent in parents:
                place = place[parent]
            place[last] = value
        return record

    return make
