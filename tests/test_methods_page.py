"""docs/methods.md: up to date, and made of nothing but recipes, records and the marks of tests that run."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import yaml

from clbench.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def generator() -> Any:
    spec = spec_from_file_location("generate_methods", ROOT / "docs" / "generate_methods.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules.setdefault(spec.name, module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(generator: Any) -> None:
    assert generator.TARGET.read_text(encoding="utf-8") == generator.page(), "run: python docs/generate_methods.py"


def test_every_method_has_a_row_and_what_was_not_run_says_so(generator: Any) -> None:
    from clbench.registry import STRATEGIES, targets

    rows = {line.split("`")[1]: line for line in generator.page().splitlines() if line.startswith("| [`")}
    assert set(rows) >= {name for name, target in targets(STRATEGIES).items() if target.startswith("clbench.")}
    assert "91.53 ± 0.28 (last)" in rows["slca"] and "not run: needs weights" in rows["slca"]


def write_test(folder: Path, decorators: str, name: str = "test_it") -> Path:
    (folder / "tests").mkdir(exist_ok=True)
    (folder / "tests" / "test_some.py").write_text(
        f"import pytest\n\n\n{decorators}\ndef {name}() -> None:\n    pass\n"
    )
    return folder / "tests"


def test_properties_are_those_of_the_marks(generator: Any, tmp_path: Path) -> None:
    marks = '@pytest.mark.parametrize("x", [1])\n@pytest.mark.oracle("a", "one")\n@pytest.mark.oracle("b", "two")'
    found = generator.properties(write_test(tmp_path, marks), {"a", "b"})
    assert {name: [(p.text, p.test) for p in each] for name, each in found.items()} == {
        "a": [("one", "tests/test_some.py")],
        "b": [("two", "tests/test_some.py")],
    }


@pytest.mark.parametrize(
    ("decorators", "name", "message"),
    [
        ('@pytest.mark.oracle("c", "one")', "test_it", "no strategy"),
        ('@pytest.mark.oracle("a")', "test_it", "write @pytest"),
        ('@pytest.mark.oracle("a", PROPERTY)', "test_it", "write @pytest"),
        ('@pytest.mark.oracle("a", "one")', "helper", "always runs"),
        ('@pytest.mark.skip\n@pytest.mark.oracle("a", "one")', "test_it", "always runs"),
        ('@pytest.mark.oracle("a", "one")\n@pytest.mark.xfail(reason="wrong")', "test_it", "always runs"),
    ],
)
def test_a_claim_that_no_test_backs_is_refused(
    generator: Any, tmp_path: Path, decorators: str, name: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        generator.properties(write_test(tmp_path, decorators, name), {"a", "b"})


def test_own_numbers_are_those_of_the_records(generator: Any, finished_results: Path, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "some").symlink_to(finished_results)
    own = generator.own_numbers(tmp_path / "results")
    (group, values), *others = own["finetune"].items()
    assert group[0] == "split-digits" and len(values) == 2 and not others
    assert generator._mean([0.5, 0.7]) == "60.0 ± 14.1 (2 runs)"
    assert generator._mean([0.5, None]) == "50.0 (2 runs, 1 of them diverged and left out)"
    assert generator._mean([None]) == "diverged (1 run)"


def test_a_recipe_that_was_run_is_no_longer_called_missing(generator: Any, tmp_path: Path) -> None:
    folder = tmp_path / "configs" / "nmc"
    folder.mkdir(parents=True)
    recipe = {"strategy": "nmc", "stream": "split-digits", "backbone": "pixels"}
    (folder / "split-digits.yaml").write_text(yaml.safe_dump(recipe))
    recipes = generator.recipe_numbers(tmp_path / "configs")["nmc"]
    assert generator._own_cell(recipes, {}) == ["recipe split-digits: not run"]
    ran = generator._own_cell(recipes, {("split-digits", "pixels", "", ""): [0.9]})
    assert ran == ["split-digits, pixels: 90.0 (1 run)"]
    varied = generator._own_cell(recipes, {("split-digits", "pixels", "50 images a class", "k=2"): [0.9]})
    assert varied == ["split-digits, pixels, 50 images a class, k=2: 90.0 (1 run)"]
