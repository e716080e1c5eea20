"""Commands that repeat runs: read back by the command line, they give the specification they were written from."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from clbench import catalogue
from clbench.catalogue import Setting
from clbench.cli.app import command
from clbench.command import repeat_command, repeat_commands, seed_list, value_text
from clbench.errors import UserError
from clbench.launch import Prepared
from clbench.quantities import parse_seeds
from clbench.record import read_record
from clbench.settings import parse_value
from clbench.spec import RunSpec, make_spec

TYPES = (
    "",
    "str",
    "str | None",
    "int",
    "float | None",
    "bool",
    "list[int]",
    "int | str",
    "Any",
    "Literal['none', 'a']",
)
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["none", "null", "~", "", " ", "true", "1e-06", "0x10", "2020-01-01", "it's", 'a "b"', "#", "a: b"]
    ),
    st.sampled_from(
        ["\x1b[31mred", "two\nlines", "\u202eevil", "a=b", "[1", "-1", "$HOME `id`", "!!str x", '!!str "x"']
    ),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))


def parsed(text: str, monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    """The specifications that a command line means."""
    found: list[RunSpec] = []

    def caught(specs: list[RunSpec], several: bool, handling: object) -> int:
        found.extend(specs)
        return 0

    monkeypatch.setattr("clbench.cli.execute.run_command", caught)
    name, *arguments = shlex.split(text)
    assert name == "clbench" and "\n" not in text and text.isprintable()
    root: Any = command()
    with root.make_context(name, arguments) as context:
        try:
            root.invoke(context)
        except typer.Exit as stop:
            assert stop.exit_code == 0
    return found


def resolved(spec: RunSpec) -> str:
    """The hash under which a run of the specification is recorded on a CPU."""
    full = Prepared(spec).spec
    quick = full.precision == "bf16"
    return full.model_copy(update={"channels_last": quick if full.channels_last is None else full.channels_last}).hash()


@settings(deadline=None, max_examples=100)
@given(data=st.data(), kind=st.sampled_from(TYPES))
def test_every_value_can_be_written_in_every_setting(data: st.DataObject, kind: str) -> None:
    only_text = kind.startswith("str")
    value = data.draw((TEXTS | st.none() if "None" in kind else TEXTS) if only_text else VALUES)
    setting = Setting("x", kind, None, False, False, "", "", {}) if kind else None
    text = value_text(value, setting)
    back = parse_value(text, setting, text)
    assert back == value and type(back) is type(value) and text.isprintable()
    assert shlex.split(shlex.join([text])) == [text]


def test_runs_are_repeated_by_their_commands(finished_runs: dict[tuple[str, int], Path], monkeypatch: Any) -> None:
    for folder in finished_runs.values():
        record = read_record(folder)
        for full in (False, True):
            (spec,) = parsed(repeat_command(record, full), monkeypatch)
            assert resolved(spec) == record["spec_hash"]
            assert (spec.device, spec.threads) == ("cpu", 1)


def test_the_command_is_short_and_says_what_was_chosen(make_record: Callable[..., Any]) -> None:
    record = make_record(**{"spec.seed": 3, "spec.strategy_settings.lr": 1e-06})
    text = repeat_command(record)
    assert text.startswith("clbench run finetune split-digits --set ")
    assert "--set lr=1.0e-06" in text and "--seed 3" in text and "data" not in text
    assert len(repeat_command(record, full=True)) > len(text)


@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_specifications_survive_the_round_trip(data: st.DataObject) -> None:
    values = {
        "strategy": "replay",
        "stream": "split-digits",
        "strategy_settings": data.draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "lr": st.floats(1e-9, 10) | st.none(),
                    "momentum": st.floats(0, 0.99),
                    "epochs": st.integers(1, 9),
                    "schedule": st.sampled_from(["constant", "cosine"]),
                    "memory_size": st.integers(1, 10**6),
                    "selection": st.sampled_from(["reservoir", "class-balanced"]),
                },
            )
        ),
        "stream_settings": data.draw(
            st.fixed_dictionaries({}, optional={"tasks": st.sampled_from([2, 5]), "online": st.booleans()})
        ),
        "seed": data.draw(st.integers(0, 2**32 - 1)),
        "order_seed": data.draw(st.integers(0, 9)),
        "head": data.draw(st.sampled_from(["linear", "cosine"])),
        "eval_grid": data.draw(st.sampled_from(["default", "full", "none", 20])),
        "precision": data.draw(st.sampled_from(["fp32", "bf16"])),
        "channels_last": data.draw(st.booleans()),
        "compile": data.draw(st.booleans()),
        "chosen_on": data.draw(st.sampled_from(["nothing", "validation", "test"])),
        "budget": data.draw(
            st.fixed_dictionaries({}, optional={key: st.floats(1e-9, 1e18) for key in ("flops", "seconds", "memory")})
        ),
        "threads": data.draw(st.integers(1, 64)),
        "device": "cpu",
    }
    try:
        full = Prepared(make_spec(values)).spec
    except UserError:  # a setting that this strategy lacks
        full = Prepared(make_spec(values | {"strategy_settings": {}})).spec
    with pytest.MonkeyPatch.context() as patch:
        (spec,) = parsed(repeat_command({"spec": full.shareable()}), patch)
    assert Prepared(spec).spec.model_copy(update={"channels_last": full.channels_last}).hash() == full.hash()
    assert spec.channels_last in (full.channels_last, None) and spec.threads == full.threads


def every_default() -> list[tuple[str, str]]:
    kinds: tuple[catalogue.Kind, ...] = ("strategy", "stream")
    found = [(kind, entry) for kind in kinds for entry in catalogue.entries(kind)]
    return [(kind, entry.name) for kind, entry in found if isinstance(entry, catalogue.Entry) and ":" not in entry.name]


@pytest.mark.parametrize(("kind", "name"), every_default())
def test_defaults_of_every_class_can_be_written_out(kind: catalogue.Kind, name: str) -> None:
    """So that `full` and the short form mean the same: no default changes when it is given explicitly."""
    from clbench.registry import load_recipe, load_strategy

    entry = catalogue.find(kind, name)
    config: Any = (load_strategy(name) if kind == "strategy" else load_recipe(name)).Config
    required = {key for key, setting in entry.settings.items() if setting.required}
    if required:
        pytest.skip(f"{name} has no default for {', '.join(required)}")
    before = config().model_dump(mode="json")
    texts = {key: value_text(value, entry.settings.get(key)) for key, value in before.items()}
    given = {key: parse_value(text, entry.settings.get(key), text) for key, text in texts.items()}
    assert json.dumps(config(**given).model_dump(mode="json")) == json.dumps(before)


def test_runs_of_a_row_share_a_command(make_record: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    records = [make_record(**{"spec.seed": seed, "spec.order_seed": order}) for seed, order in
               [(0, 0), (2, 0), (1, 0), (7, 0), (0, 5), (0, 0)]]  # fmt: skip
    commands = repeat_commands(records)
    assert len(commands) == 2
    assert (
        commands[0].endswith("--seeds 0-2,7") and "--order-seed 5" in commands[1] and "--seed" not in commands[1][-8:]
    )
    found = [spec for text in commands for spec in parsed(text, monkeypatch)]
    assert [(spec.seed, spec.order_seed) for spec in found] == [(0, 0), (1, 0), (2, 0), (7, 0), (0, 5)]


@given(st.lists(st.integers(0, 50), min_size=1, unique=True).map(sorted))
def test_lists_of_seeds_are_read_back(seeds: list[int]) -> None:
    assert parse_seeds(seed_list(seeds)) == seeds


def test_strategies_in_files_and_unknown_ones(
    make_record: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    record = make_record(**{"spec.strategy": "/somewhere/else/my method.py:Mine"})
    text = repeat_command(record)
    assert "'./my method.py:Mine'" in text and "somewhere" not in text
    assert "--set strategy.lr=" in text, "nothing is known of it: every setting is written, with its owner"
    monkeypatch.chdir(tmp_path)
    source = (
        "from clbench.strategy import Strategy\n"
        "class Mine(Strategy):\n    class Config(Strategy.Config):\n        word: str | None = None\n"
    )
    Path("my method.py").write_text(source)
    record = make_record(**{"spec.strategy": "my method.py:Mine"})
    record["spec"]["strategy_settings"] = {"word": "none"}
    (spec,) = parsed(repeat_command(record), monkeypatch)
    assert spec.strategy_settings["word"] == "none"
