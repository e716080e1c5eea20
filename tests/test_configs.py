"""The recipes in configs/: complete, checked against what they configure, and their settings' source named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from clbench.cli import main
from clbench.cli.specify import specifications
from clbench.registry import load_recipe, load_strategy

CONFIGS = Path(__file__).parents[1] / "configs"
RECIPES = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name != "suites")


def test_they_are_package_data() -> None:
    from importlib.resources import files

    for name in ("replay/split-cifar100.yaml", "suites/tiny.yaml"):
        assert files("clbench.configs").joinpath(name).read_text() == (CONFIGS / name).read_text()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_a_recipe_is_valid_and_names_its_source(path: Path) -> None:
    [spec] = specifications({}, {}, [], [], path, None)
    load_strategy(spec.strategy).Config(**spec.strategy_settings)
    load_recipe(spec.stream).Config(**spec.stream_settings)
    assert path.relative_to(CONFIGS).parts == (spec.strategy, f"{spec.stream}.yaml")
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("Source: " in line for line in comments)


@pytest.mark.slow  # half a minute goes into decoding the images
def test_a_recipe_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = os.environ.get("CLBENCH_DATA")
    if root is None or not (Path(root) / "images" / "cifar100").is_dir():
        pytest.skip("CLBENCH_DATA names no folder with images/cifar100")
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    small = ["train_per_class=4", "test_per_class=2", "batch_size=16"]
    arguments = ["run", "--config", str(CONFIGS / "replay" / "split-cifar100.yaml"), "--json", "--threads", "1"]
    arguments += ["--out", str(tmp_path), *(word for text in small for word in ("--set", text))]
    assert main(arguments) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["status"] == "completed"
    settings = record["spec"]["strategy_settings"]
    assert (settings["memory_size"], settings["lr"], settings["batch_size"]) == (500, 0.1, 16)
    assert len(record["metrics"]["matrix"]["rows"]) == 10
