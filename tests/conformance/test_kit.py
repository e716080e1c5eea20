"""Each bad strategy fails its probe and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from clbench.conformance import Finding, check

HERE = Path(__file__).parent
BAD = {
    "Chance": ("determinism", "the tables differ|the final states differ"),
    "Hashed": ("determinism", "the tables differ|the final states differ"),
    "ClassBuffer": ("declared needs", r"ClassBuffer\.kept holds samples of \d+ training samples"),
    "Forgetful": ("resume", r"not restored: self\.count \(keep it in self\.state\)"),
    "UndeclaredMemory": ("declared needs", "keeps samples in a memory without declaring it"),
    "HiddenSamples": ("declared needs", r"self\.state\.kept holds samples of \d+ training samples in task 0"),
    "SamplesOnTheSide": ("declared needs", r"self\.kept holds samples of \d+ training samples"),
    "HiddenFeatures": ("declared needs", r"self\.state\.kept holds features of \d+ training samples in task 0"),
    "EqualTasks": ("unequal tasks", "a class is in no task"),
    "BatchWise": ("prediction order", "computed over a test batch"),
    "AllOutputs": ("classes seen", "after task 0 predict gives 10 columns; 3 classes were seen"),
    "FutureData": ("future tasks", "^with other data and labels in the later tasks, "),
    "NumberOfTasks": ("future tasks", "without the later tasks, .* rows"),
    "TestLabels": ("test data", "another final state: test data reach training"),
    "CountingPredictions": ("continual evaluation", "off: another final state"),
    "HiddenGradients": ("gradient free", "gradients are computed"),
    "AtBoundaries": ("between boundaries", "declare predicts_between_boundaries=False"),
    "NeedsTheTask": ("task id at test", "unexpected keyword argument 'task'"),
}
QUICK = ("UndeclaredMemory",)


def checked(name: str) -> list[Finding]:
    return list(check(f"{HERE / 'bad_strategies.py'}:{name}"))


def failures(findings: list[Finding]) -> dict[str, str]:
    return {f.probe: f.evidence for f in findings if f.status == "fail"}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in BAD]
)
def test_a_bad_strategy_fails_its_probe_alone(name: str) -> None:
    import re

    probe, evidence = BAD[name]
    found = failures(checked(name))
    assert list(found) == [probe], found
    assert re.search(evidence, found[probe]), found[probe]
    assert "\n" not in found[probe]


@pytest.mark.parametrize("name", ["Sound", pytest.param("SoundMemory", marks=pytest.mark.slow)])
def test_a_sound_strategy_passes(name: str) -> None:
    findings = checked(name)
    assert {f.status for f in findings} == {"pass", "skip"}, [f for f in findings if f.status not in ("pass", "skip")]
    assert [f.probe for f in findings if f.status == "skip"] == ["task id at test"]


@pytest.mark.slow
def test_what_is_declared_and_not_used_is_a_warning() -> None:
    warned = [f for f in checked("UnusedNeeds") if f.status == "warn"]
    assert [f.probe for f in warned] == ["declared needs"]
    assert warned[0].evidence == "declared and not used: knows_horizon, stores_samples"
