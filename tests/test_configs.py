"""The recipes in configs/: complete, checked against what they configure, and their settings' source named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from clbench.cli import main
from clbench.cli.specify import specifications
from clbench.errors import UserError
from clbench.models import describe
from clbench.published import find_recipe, published, recipes
from clbench.registry import load_recipe, load_strategy
from clbench.schedules import find
from clbench.spec import read_spec_file

CONFIGS = Path(__file__).parents[1] / "configs"
RECIPES = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name != "suites")
CLASSES = {
    "split-cifar10": 10,
    "split-cifar100": 100,
    "split-imagenet-r": 200,
    "split-imagenet-r-pilot": 200,
    "split-cub200": 200,
    "split-cars196": 196,
}
WITHOUT_NUMBER = {"bvcl", "dkvb", "fecam", "finetune", "replay"}  # their papers' tables were not at hand


def test_they_are_package_data() -> None:
    from importlib.resources import files

    for name in ("replay/split-cifar100.yaml", "suites/tiny.yaml"):
        assert files("clbench.configs").joinpath(name).read_text() == (CONFIGS / name).read_text()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_a_recipe_is_valid_and_names_its_source(path: Path) -> None:
    [spec] = specifications({}, {}, [], [], path, None)
    settings = load_strategy(spec.strategy).Config(**spec.strategy_settings)
    recipe = load_recipe(spec.stream)
    stream = recipe(spec.stream, recipe.Config(**spec.stream_settings), order_seed=spec.order_seed)
    if spec.stream in CLASSES:
        assert sum(stream.sizes(CLASSES[spec.stream])) == CLASSES[spec.stream]
    if "schedule" in spec.strategy_settings:
        find(settings.schedule)
    assert spec.backbone is not None
    describe(spec.backbone)
    assert path.relative_to(CONFIGS).parts == (spec.strategy, f"{spec.stream}.yaml")
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("Source: " in line for line in comments)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_its_published_numbers_are_shares_of_a_known_metric(path: Path) -> None:
    numbers = published(read_spec_file(path), path.name)
    assert numbers or path.parent.name in WITHOUT_NUMBER
    for number in numbers:
        assert 0.1 < number.value < (10 if number.unit == "nats" else 1) and (
            number.std is None or 0 < number.std < 0.05
        )
        assert number.secondary or "third-party" not in number.source.split(";")[0]


def test_the_checkpoints_they_name_exist() -> None:
    from clbench.models.timm_backbone import prepare

    prepare()
    import timm

    named = {specifications({}, {}, [], [], path, None)[0].backbone or "" for path in RECIPES}
    names = {name.removeprefix("timm:").split("?")[0] for name in named if name.startswith("timm:")}
    assert len(names) >= 3
    assert all(timm.models.get_pretrained_cfg(name).hf_hub_id for name in names)


def test_published_numbers_are_no_part_of_a_specification(tmp_path: Path) -> None:
    text = (CONFIGS / "slca" / "split-cifar100.yaml").read_text()
    bare = tmp_path / "bare.yaml"
    bare.write_text(text.split("published:")[0])
    specs = [specifications({}, {}, [], [], path, None)[0] for path in (CONFIGS / "slca" / "split-cifar100.yaml", bare)]
    assert specs[0] == specs[1] and specs[0].hash() == specs[1].hash()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{metric: averge, value: 0.9, source: me}", "average"),
        ("{metric: average, value: 0.9}", "source"),
        ("{metric: average, value: 0.9, source: me, std_dev: 1}", "std_dev"),
        ("3", "list of entries"),
    ],
)
def test_a_wrong_published_entry_is_told_in_one_line(tmp_path: Path, entry: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"strategy: nmc\nstream: split-digits\npublished: [{entry}]\n")
    with pytest.raises(UserError, match=message) as caught:
        specifications({}, {}, [], [], path, None)
    assert "\n" not in str(caught.value)


def test_recipes_go_by_strategy_and_stream(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(recipes()) == {f"{path.parent.name}/{path.stem}" for path in RECIPES}
    assert specifications({}, {}, [], [], Path("slca/split-cifar100"), None)[0].strategy == "slca"
    assert find_recipe(str(RECIPES[0])) == RECIPES[0]
    with pytest.raises(UserError, match="slca/split-cifar100"):
        find_recipe("slca/split-cifar10")
    assert main(["show", "config", "slca/split-cifar100"]) == 0
    shown = capsys.readouterr().out
    assert "average: 91.53 ± 0.28 %" in shown and "tau: 0.1" in shown and "(secondary)" in shown
    assert main(["show", "config", "slca/split-cifar100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["published"][0]["value"] == 0.9153
    assert main(["list", "configs", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(RECIPES)


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
