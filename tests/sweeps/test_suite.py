"""Suites: what a file expands to, who overrides whom, and one line for every mistake."""

from __future__ import annotations

import subprocess
import sys
from math import prod
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clbench.catalogue import find
from clbench.errors import UserError
from clbench.settings import check_settings
from clbench.spec import RunSpec
from clbench.sweeps.suite import MOST_RUNS, Suite, find_suite, packaged_suites, read_suite


@pytest.fixture
def suite(tmp_path: Path) -> Any:
    """`suite("runs: ...")`: the suite of that text."""

    def read(text: str, name: str = "mine.yaml") -> Suite:
        (tmp_path / name).write_text(text)
        return read_suite(tmp_path / name)

    return read


AXES = {
    "strategies": st.lists(st.sampled_from(["replay", "ewc", "finetune", "si"]), min_size=1, max_size=3, unique=True),
    "streams": st.lists(st.sampled_from(["split-digits", "rotated-digits"]), min_size=1, max_size=2, unique=True),
    "seeds": st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
    "order_seeds": st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
}
GRIDS = {
    "lr": st.lists(st.sampled_from([0.1, 0.05, 1e-3]), min_size=1, max_size=2, unique=True),
    "train_per_task": st.lists(st.integers(10, 90), min_size=1, max_size=2, unique=True),
    "precision": st.lists(st.sampled_from(["fp32", "bf16"]), min_size=1, max_size=2, unique=True),
}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.fixed_dictionaries(AXES), st.fixed_dictionaries({}, optional=GRIDS))
def test_an_entry_is_the_product_of_its_axes(
    suite: Any, axes: dict[str, list[Any]], grid: dict[str, list[Any]]
) -> None:
    text = yaml.safe_dump({"runs": [{**axes, "grid": grid}]})
    found = suite(text)
    assert len(found.runs) == prod(len(values) for values in (*axes.values(), *grid.values()))
    assert len({run.spec.hash() for run in found.runs}) == len(found.runs)
    assert [run.spec for run in suite(text).runs] == [run.spec for run in found.runs]
    for run in found.runs:
        RunSpec(**run.spec.model_dump())
        check_settings(find("strategy", run.spec.strategy), run.spec.strategy_settings)
        check_settings(find("stream", run.spec.stream), run.spec.stream_settings)


def test_seeds_change_fastest_and_strategies_slowest(suite: Any) -> None:
    found = suite(
        "runs: [{strategies: [ewc, si], stream: split-digits, seeds: 0-1, order_seeds: [0, 5], grid: {lr: [1, 2]}}]"
    )
    keys = [
        (run.spec.strategy, run.spec.strategy_settings["lr"], run.spec.order_seed, run.spec.seed) for run in found.runs
    ]
    assert keys == [(s, lr, o, r) for s in ("ewc", "si") for lr in (1, 2) for o in (0, 5) for r in (0, 1)]


@pytest.mark.parametrize(
    ("written", "seeds"),
    [("3", [3]), ("0-2", [0, 1, 2]), ("[0, 3]", [0, 3]), ("[0-1, 7]", [0, 1, 7]), ("'0,4'", [0, 4])],
)
def test_seeds_can_be_written_in_several_ways(suite: Any, written: str, seeds: list[int]) -> None:
    found = suite(f"runs: [{{strategy: nmc, stream: split-digits, seeds: {written}}}]")
    assert [run.spec.seed for run in found.runs] == seeds


def test_settings_go_to_whom_they_belong(suite: Any) -> None:
    found = suite(
        "runs: [{strategy: replay, stream: split-digits, memory_size: 7, train_per_task: 20, strategy.lr: 1e-3, "
        "stream_settings: {tasks: 2}, chosen_on: validation, budget: {memory: 10MB, seconds: 2min}}]"
    )
    spec = found.runs[0].spec
    assert spec.strategy_settings == {"memory_size": 7, "lr": 0.001}
    assert spec.stream_settings == {"train_per_task": 20, "tasks": 2}
    assert (spec.chosen_on, spec.budget) == ("validation", {"memory": 1e7, "seconds": 120})


LAYERS = """
defaults: {stream: split-digits, seeds: 0-2, epochs: 1, lr: 0.1, extends: common, resources: {cpus: 2, memory: 1GB}}
blocks:
  common: {lr: 0.5, momentum: 0.5, batch_size: 4}
  small: {extends: smaller, epochs: 3, batch_size: 6}
  smaller: {epochs: 2, batch_size: 5, train_per_task: 10}
runs:
  - {strategy: replay}
  - {strategy: replay, extends: small, batch_size: 7, seed: 9, resources: {cpus: 1}}
"""


def test_entries_lie_over_blocks_and_blocks_over_defaults(suite: Any) -> None:
    runs = suite(LAYERS).runs
    assert [run.spec.seed for run in runs] == [0, 1, 2, 9]
    first, last = runs[0], runs[-1]
    assert first.spec.strategy_settings == {"lr": 0.1, "momentum": 0.5, "batch_size": 4, "epochs": 1}
    assert first.spec.stream_settings == {}
    assert last.spec.strategy_settings == {"lr": 0.1, "momentum": 0.5, "batch_size": 7, "epochs": 3}
    assert last.spec.stream_settings == {"train_per_task": 10}
    assert (first.resources.cpus, first.resources.memory) == (2, 10**9)
    assert (last.resources.cpus, last.resources.memory) == (1, 10**9)


def test_a_value_replaces_a_grid_and_the_other_way_round(suite: Any) -> None:
    runs = suite(
        "defaults: {stream: split-digits, grid: {lr: [1, 2]}, epochs: 4}\n"
        "runs: [{strategy: ewc, lr: 3, grid: {epochs: [5, 6]}}, {strategy: si, strategy.lr: 7}]"
    ).runs
    assert [run.spec.strategy_settings for run in runs] == [
        {"lr": 3, "epochs": 5},
        {"lr": 3, "epochs": 6},
        {"epochs": 4, "lr": 7},
    ]


def test_a_default_is_for_those_who_have_it(suite: Any) -> None:
    runs = suite(
        "defaults: {epochs: 2, memory_size: 9, stream: split-digits}\nruns: [{strategies: [nmc, ewc, replay]}]"
    ).runs
    assert [run.spec.strategy_settings for run in runs] == [{}, {"epochs": 2}, {"epochs": 2, "memory_size": 9}]


def test_a_suite_extends_another(suite: Any) -> None:
    suite("defaults: {stream: split-digits, epochs: 1}\nblocks: {b: {lr: 1}}\nruns: [{strategy: ewc}]", "base.yaml")
    same = suite("extends: base.yaml\ndefaults: {epochs: 5, seeds: 0-1}")
    assert [(run.spec.strategy, run.spec.strategy_settings, run.spec.seed) for run in same.runs] == [
        ("ewc", {"epochs": 5}, 0),
        ("ewc", {"epochs": 5}, 1),
    ]
    other = suite("extends: base.yaml\nruns: [{strategy: si, extends: b}]")
    assert [(run.spec.strategy, run.spec.strategy_settings) for run in other.runs] == [("si", {"epochs": 1, "lr": 1})]


def test_a_file_strategy_is_sought_beside_the_suite(suite: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from clbench.strategy import Strategy\n\n\nclass Mine(Strategy):\n    'Nothing new.'\n"
    )
    found = suite("runs: [{strategy: './mine.py:Mine', stream: split-digits, lr: 0.5}]")
    assert found.runs[0].spec.strategy == f"{tmp_path}/mine.py:Mine"


def test_runs_that_stand_twice_are_run_once_and_said(suite: Any) -> None:
    found = suite(
        "runs:\n- {strategy: nmc, stream: split-digits, seeds: [0, 0, 1]}\n- {strategy: nmc, stream: split-digits}"
    )
    assert [run.spec.seed for run in found.runs] == [0, 1]
    assert found.notes == (
        "runs entry 1: 1 run stands twice, and will be run once",
        "runs entry 2: 1 run stands in runs entry 1 too, and will be run once",
    )


ENTRY = "strategy: replay, stream: split-digits"
MISTAKES = {
    "": "expected `key: value` lines",
    "runs:\n\t- a": "line 2: found character '\\t'",
    "name: x": "no runs",
    "runs: []": "runs must be a list",
    "runs: [replay]": "runs entry 1: expected `key: value` lines",
    "run: []": "no key 'run' here; did you mean runs?",
    f"seeds: 0-3\nruns: [{{{ENTRY}}}]": "no key 'seeds' here; it belongs into defaults, or an entry of runs",
    f"runs: [{{{ENTRY}, memory_siz: 3}}]": "entry 1: neither strategy replay nor stream split-digits has a setting "
    "'memory_siz'; did you mean memory_size",
    f"runs: [{{name: first, {ENTRY}, lr: [1, 2]}}]": "entry 1 (first): strategy replay: lr=[1, 2]: Input should be a "
    "valid number; for a run with each of them, write grid: {lr: [...]}",
    f"runs: [{{{ENTRY}, memory_size: many}}]": "memory_size='many'",
    f"runs: [{{{ENTRY}, memory_size: 0}}]": "greater than or equal to 1",
    f"runs: [{{{ENTRY}, lr: .inf}}]": "inf is no value",
    f"runs: [{{{ENTRY}, schedule: cosin}}]": "unknown schedule 'cosin'; did you mean cosine",
    f"runs: [{{{ENTRY}, backbone: slim-resnet19}}]": "unknown model 'slim-resnet19'; did you mean slim-resnet18?",
    f"runs: [{{{ENTRY}, chosen_on: tset}}]": "chosen_on='tset'",
    f"runs: [{{{ENTRY}, threads: 2}}]": "resources: {cpus: N}",
    f"runs: [{{{ENTRY}, resources: {{cpu: 2}}}}]": "did you mean cpus",
    f"runs: [{{{ENTRY}, resources: {{memory: lots}}}}]": "2GB",
    f"runs: [{{{ENTRY}, budget: {{seconds: never}}}}]": "budget seconds",
    f"runs: [{{{ENTRY}, grid: {{lr: []}}}}]": "lr is empty: there is nothing to run",
    f"runs: [{{{ENTRY}, grid: {{lr: 1}}}}]": "must be a list of values",
    f"runs: [{{{ENTRY}, seeds: 5-1}}]": "write 0-4",
    f"runs: [{{{ENTRY}, seeds: -1}}]": "not -1",
    f"runs: [{{{ENTRY}, seeds: 0-999, order_seeds: 0-999}}]": f"1,000,000 runs or more; the limit is {MOST_RUNS:,}",
    f"runs: [{{{ENTRY}, strategy: ewc}}]": "line 1: the key 'strategy' is given twice",
    f"runs: [{{{ENTRY}, strategies: [ewc]}}]": "strategy is given twice; give it once, as strategy or strategies",
    f"runs: [{{{ENTRY}, memory_size: 2020-01-01}}]": "read as a date",
    f"runs: [{{{ENTRY}, extends: smal}}]\nblocks: {{small: {{}}}}": "no block 'smal'; did you mean small?",
    "runs: [{strategy: reply, stream: split-digits}]": "unknown strategy 'reply'; did you mean replay?",
    "runs: [{strategy: nmc, stream: split-digit}]": "unknown stream 'split-digit'; did you mean split-digits",
    "runs: [{strategy: ./none.py, stream: split-digits}]": "none.py",
    "runs: [{strategy: nmc}]": "no stream; write stream: NAME",
    "runs: [{strategies: [], stream: split-digits}]": "the list of strategies is empty",
    f"defaults: {{epoch: 3}}\nruns: [{{{ENTRY}}}]": "defaults: no strategy or stream of the suite has a setting "
    "'epoch'; did you mean epochs",
    f"blocks: {{a: {{extends: b}}, b: {{extends: [c]}}, c: {{extends: a}}}}\nruns: [{{{ENTRY}}}]": "a -> b -> c -> a",
    f"extends: bad.yaml\nruns: [{{{ENTRY}}}]": "bad.yaml -> bad.yaml",
    f"extends: none.yaml\nruns: [{{{ENTRY}}}]": "no such file",
    f"defaults: &x {{lr: 1}}\nruns: [{{{ENTRY}}}, *x]": "line 2: *x: anchors are not used",
    "runs: " + "[" * 3000: "nested too deeply",
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.items())
def test_a_mistake_is_one_line_with_file_and_place(suite: Any, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        suite(text, "bad.yaml")
    assert message in str(caught.value)
    assert str(tmp_path / "bad.yaml") in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_blocks_that_multiply_end_in_an_error(suite: Any) -> None:
    blocks = {f"b{i}": {"extends": [f"b{i + 1}"] * 2} for i in range(60)} | {"b60": {"epochs": 1}}
    with pytest.raises(UserError, match="more than 100 blocks"):
        suite(yaml.safe_dump({"blocks": blocks, "runs": [{"strategy": "nmc", "stream": "split-digits"}]}))


def test_a_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    for content in (b"\xff\xfe\x00runs", b"\x00", b"#" * 1_000_001):
        (tmp_path / "binary.yaml").write_bytes(content)
        with pytest.raises(UserError, match=r"binary\.yaml"):
            read_suite(tmp_path / "binary.yaml")
    with pytest.raises(UserError, match="is a folder"):
        read_suite(tmp_path)
    with pytest.raises(UserError, match="no such suite"):
        read_suite(tmp_path / "none.yaml")


def test_packaged_suites_are_found_by_name_and_valid() -> None:
    assert {"tiny", "vision"} <= packaged_suites().keys()
    for name, path in packaged_suites().items():
        assert find_suite(name) == path
        found = read_suite(name)
        assert found.runs and not found.notes and found.name == name
    with pytest.raises(UserError, match="did you mean tiny"):
        find_suite("tinny")


def test_reading_a_suite_imports_nothing_heavy() -> None:
    code = (
        "import sys; from clbench.sweeps.suite import read_suite; read_suite('tiny');"
        "print([name for name in ('torch', 'numpy', 'scipy', 'pandas', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
