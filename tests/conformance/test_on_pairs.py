"""Images with captions: probes find what is wrong there, the copies of a stream hold together, sound methods pass."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clbench.conformance import Finding, check
from clbench.conformance.altered import no_future, other_future, other_test_data
from clbench.conformance.kit import PAIRS, trial_on
from clbench.conformance.looks import PositionsLook
from clbench.conformance.needs import declared_needs, use
from clbench.conformance.probes import (
    Subject,
    future_tasks,
    prediction_order,
    predictions,
    resume,
    unread_test_data,
)
from clbench.conformance.trial import Look, first_run
from clbench.registry import load_recipe, load_strategy
from clbench.samples import Samples
from clbench.stream import Stream

BAD = Path(__file__).with_name("bad_on_pairs.py")
METHODS = ("zscl", "codyra", "ema-merge", "replay", "feedback")
Probe = Callable[[Subject], Finding]
FOUND: dict[str, tuple[Probe, str]] = {
    "HiddenEmbeddings": (
        lambda subject: declared_needs(subject, use(subject)),
        r"self\.state\.kept holds features of \d+ training samples in task 0",
    ),
    "HiddenImages": (
        lambda subject: declared_needs(subject, use(subject)),
        r"self\.kept holds samples of \d+ training samples in task 0",
    ),
    "EarlierSamples": (
        lambda subject: declared_needs(subject, use(subject)),
        r"self\.first holds samples of 48 training samples in task 1",
    ),
    "BatchWise": (lambda subject: prediction_order(subject, predictions(subject)), "computed over a test batch"),
    "Forgetful": (resume, r"not restored: self\.count \(keep it in self\.state\)"),
    "FutureData": (future_tasks, "^with other data and labels in the later tasks, "),
    "TestCaptions": (unread_test_data, "another final state: test data reach training"),
}


@pytest.fixture(scope="module", autouse=True)
def _imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What runs import is imported once, here, and not in every child."""
    first_run(trial_on("contrastive", "finetune", tmp_path_factory.mktemp("warm")), Look())


def subject_of(name: str, folder: Path) -> Subject:
    strategy = f"{BAD}:{name}"
    trial = trial_on("contrastive", strategy, folder)
    whole = trial.run(PositionsLook())
    assert not whole.error
    return Subject(trial, load_strategy(strategy).needs, whole)


@pytest.mark.parametrize("name", FOUND)
def test_a_probe_finds_what_is_wrong(name: str, tmp_path: Path) -> None:
    probe, evidence = FOUND[name]
    found = probe(subject_of(name, tmp_path))
    assert found.status == "fail" and re.search(evidence, found.evidence), found


def test_the_same_probes_pass_a_sound_method(tmp_path: Path) -> None:
    """Those of few runs; all of them in the whole checks below."""
    subject = subject_of("Sound", tmp_path)
    for name in ("EarlierSamples", "BatchWise", "TestCaptions"):
        found = FOUND[name][0](subject)
        assert found.status == "pass", found


# -- altered streams -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stream() -> Stream:
    recipe = load_recipe("fomo")
    return recipe("fomo", recipe.Config(**{**PAIRS, "mixture": [0.33, 0.34, 0.33]})).build()


def parts(stream: Stream) -> list[Samples]:
    assert stream.pretraining is not None and stream.mixture is not None and stream.mixture.pretraining is not None
    sets = [s.data for s in stream.eval_sets]
    return [*(task.train for task in stream.tasks), *sets, stream.pretraining, stream.mixture.pretraining]


@pytest.mark.parametrize("alter", [other_future, other_test_data])
def test_an_altered_stream_has_one_pool_and_leaves_the_other_alone(stream: Stream, alter: Any) -> None:
    before = stream.tasks[0].train.pool.labels.clone()
    assert len({id(part.pool) for part in parts(alter(stream))}) == 1
    assert torch.equal(stream.tasks[0].train.pool.labels, before)


def test_what_is_altered(stream: Stream) -> None:
    everything = torch.arange(len(stream.tasks[2].train))
    future, tests = other_future(stream), other_test_data(stream)
    assert torch.equal(future.tasks[2].train.raw(everything), 255 - stream.tasks[2].train.raw(everything))
    for index in (0, 1):
        assert torch.equal(future.tasks[index].train.labels, stream.tasks[index].train.labels)
    assert not torch.equal(tests.eval_sets[0].data.labels, stream.eval_sets[0].data.labels)
    assert future.pretraining is not None and stream.pretraining is not None
    assert torch.equal(future.pretraining.labels, stream.pretraining.labels)
    assert len(no_future(stream).tasks) == 2 and no_future(stream).captions == stream.captions


# -- whole checks ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", [*METHODS, f"{BAD}:Sound"])
def test_a_sound_method_passes(name: str) -> None:
    findings = list(check(name, "contrastive"))
    assert {finding.stream for finding in findings} == {"fomo"} and len(findings) == 10
    assert not [finding for finding in findings if finding.status == "fail"]
