"""What is said about upstreams: on the command line, in suites, in specifications and on boards."""

from __future__ import annotations

import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from clbench.cli.specify import specifications
from clbench.command import repeat_command
from clbench.errors import UserError
from clbench.spec import RunSpec, make_spec
from clbench.stream import Training
from clbench.sweeps.suite import read_suite
from clbench.upstream import in_full, same_for_all

NAMES = {"strategy": "finetune", "stream": "split-digits"}


def specified(*assignments: str, **options: Any) -> RunSpec:
    return specifications({**NAMES, **options}, {}, list(assignments), [], None, None)[0]


def filled(training: Training | None = None, **fields: Any) -> RunSpec:
    spec = make_spec({**NAMES, **fields})
    return spec.model_copy(update=in_full(spec, "mlp", training or Training()))


def test_its_settings_stand_beside_the_strategys() -> None:
    spec = specified("lr=0.2", "upstream.lr=0.1", "upstream.clip=none", upstream="shared")
    assert spec.upstream_settings == {"lr": 0.1, "clip": None}
    assert spec.strategy_settings == {"lr": 0.2}


@pytest.mark.parametrize(
    ("assignment", "upstream", "message"),
    [
        ("upstream.lr=0.1", None, "settings go with upstream=shared"),
        ("upstream.lr=0.1", "given", "settings go with upstream=shared"),
        ("upstream.rate=0.1", "shared", "upstream has no setting 'rate'"),
        ("upstream.lr=-1", "shared", "upstream: lr=-1"),
        ("upstream.lr", "shared", "write KEY=VALUE"),
        ("upstream.schedule=sawtooth", "shared", "unknown schedule"),
    ],
)
def test_mistakes_on_the_command_line(assignment: str, upstream: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        specified(assignment, upstream=upstream)


def test_what_is_left_open_is_the_streams_but_for_a_constant_rate() -> None:
    training = Training(optimizer="adamw", lr=0.5, schedule="constant", batch_size=7)
    found = filled(training, upstream="shared", upstream_settings={"lr": 0.1}).upstream_settings
    assert (found["optimizer"], found["lr"], found["batch_size"]) == ("adamw", 0.1, 7)
    assert found["schedule"] == "warmup-cosine"
    linear = filled(Training(schedule="linear"), upstream="shared").upstream_settings
    assert linear["schedule"] == "linear"
    chosen = filled(training, upstream="shared", upstream_settings={"schedule": "constant"}).upstream_settings
    assert chosen["schedule"] == "constant"
    assert in_full(filled(training, upstream="shared"), "mlp", Training(lr=9.0))["upstream_settings"]["lr"] == 0.5


def test_hashes_tell_upstreams_apart(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"other" if name == "c" else b"same")
    a, b, c = (filled(upstream=str(tmp_path / f"{name}.safetensors")) for name in ("a", "b", "c"))
    shared = filled(upstream="shared")
    assert a.hash() == b.hash() != c.hash()  # the weights count, not where they lie
    assert (
        len(
            {
                make_spec(NAMES).hash(),
                a.hash(),
                c.hash(),
                shared.hash(),
                filled(Training(lr=1.0), upstream="shared").hash(),
            }
        )
        == 5
    )
    assert make_spec(a.shareable()).hash() == a.hash()
    assert str(tmp_path) not in str(a.shareable())


def test_boards_go_by_what_taught_the_first_task(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"bytes")
    kinds = [make_spec(NAMES), filled(upstream="shared"), filled(Training(lr=1.0), upstream="shared")]
    kinds.append(filled(upstream=str(tmp_path)))
    assert len({same_for_all(spec.shareable()) for spec in kinds}) == 4
    other_seed = filled(upstream="shared", seed=3).shareable()
    assert same_for_all(other_seed) == same_for_all(kinds[1].shareable())
    old = kinds[0].shareable()
    del old["upstream"], old["upstream_settings"]  # records of before
    assert same_for_all(old) is None


def test_the_command_that_repeats_a_run_names_it() -> None:
    spec = filled(upstream="shared", upstream_settings={"lr": 0.125})
    words = shlex.split(repeat_command({"spec": {**spec.shareable(), "channels_last": None}}))
    options = {"upstream": words[words.index("--upstream") + 1]}
    given = [text for word, text in pairwise(words) if word == "--set" and "upstream." in text]
    again = specified(*given, **options)
    assert (
        filled(**again.model_dump(include={"upstream", "upstream_settings"})).hash()
        == filled().model_copy(update={"upstream": "shared", "upstream_settings": spec.upstream_settings}).hash()
    )
    assert "upstream.lr=0.125" in given and "upstream.steps=null" not in given


def test_suites(tmp_path: Path) -> None:
    """Of defaults, a run that learns its first task itself takes no settings of an upstream."""
    (tmp_path / "suite.yaml").write_text(
        "defaults: {upstream: shared, upstream.lr: 0.1, stream: split-digits}\n"
        "runs:\n"
        "- {strategy: finetune, grid: {upstream.epochs: [1, 2]}}\n"
        "- {strategy: replay, upstream: own}\n"
    )
    found = [(run.spec.upstream, run.spec.upstream_settings) for run in read_suite(tmp_path / "suite.yaml").runs]
    assert found == [("shared", {"lr": 0.1, "epochs": 1}), ("shared", {"lr": 0.1, "epochs": 2}), ("own", {})]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("upstream: shared, upstream.rate: 1", "upstream has no setting 'rate'"),
        ("upstream.lr: 0.1", "settings go with upstream=shared"),
        ("upstream: shared, upstream_settings: {lr: -1}", "lr=-1"),
    ],
)
def test_mistakes_in_suites(tmp_path: Path, entry: str, message: str) -> None:
    (tmp_path / "suite.yaml").write_text(f"runs: [{{strategy: finetune, stream: split-digits, {entry}}}]\n")
    with pytest.raises(UserError, match=f"runs entry 1.*{message}"):
        read_suite(tmp_path / "suite.yaml")
