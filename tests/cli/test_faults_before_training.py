"""What cannot go well in a later task is refused before the first: one line, code 2, no run and no upstream left."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Cli

SMALL = {
    "domains": "prose,cipher",
    "context": "16",
    "tokens": "2400",
    "eval_blocks": "24",
    "validation": "0.1",
    "batch_size": "8",
    "lr": "0.003",
}
SHORT_LATER = "tokens=[4800, 800]"
DECAY = ["--schedule", "wsd:warmup=2,decay=30"]
SHARED = ["--upstream", "shared"]
REPLAY = ["replay", "memory=domains"]

CASES = {
    "slice": (["stability-gap", "slices={prsoe: 1, web: 3}", "substitute=web"], [], ["'prsoe'", "mean prose"]),
    "slice that comes later": (
        ["stability-gap", "slices={code: 1, web: 3}", "substitute=web", "domains=prose,cipher,code"],
        [],
        ["slices", "'code'", "prose"],
    ),
    "slice alone": (["stability-gap", "slices={prose: 1}"], [], ["slices and substitute", "together"]),
    "substitute": (["stability-gap", "slices={prose: 1, web: 3}", "substitute=wbe"], [], ["'wbe'", "mean web"]),
    "shares below 0": (["stability-gap", "slices={prose: -1, web: 3}", "substitute=web"], [], ["-1.0", "0 or more"]),
    "shares of nan": (["stability-gap", "slices={prose: .nan, web: 3}", "substitute=web"], [], ["finite"]),
    "adjacency, too small": (["skill-it", "adjacency=[[1]]"], [], ["2 rows of 2", "[1]"]),
    "adjacency, too large": (["skill-it", "adjacency=[[1,0,1],[0,1,1],[1,1,1]]"], [], ["2 rows of 2", "[3, 3, 3]"]),
    "adjacency, not square": (["skill-it", "adjacency=[[1,0],[0]]"], [], ["2 rows of 2", "[2, 1]"]),
    "adjacency, empty": (["skill-it", "adjacency=[]"], [], ["2 rows of 2", "[]"]),
    "adjacency, negative": (["skill-it", "adjacency=[[1,0],[-1,1]]"], [], ["adjacency", "negative"]),
    "adjacency, nan": (["skill-it", "adjacency=[[1,0],[.nan,1]]"], [], ["adjacency.1.0=nan", "finite"]),
    "floor": (["skill-it", "floor=0.5", "domains=prose,cipher,code"], [], ["floor of 0.5", "3 domains"]),
    "no validation data": (["skill-it", "validation=0"], [], ["validation", "keeps none"]),
    "share above 1": ([*REPLAY, "share=1.5"], [], ["share=1.5", "less than 1"]),
    "share below 0": ([*REPLAY, "share=-0.1"], [], ["share=-0.1", "0"]),
    "share of nan": ([*REPLAY, "share=.nan"], [], ["share=nan", "finite"]),
    "all of it replayed": ([*REPLAY, "share=1", "budget=additive"], [], ["share=1", "less than 1"]),
    "rule": ([*REPLAY, "rule=tci"], [], ["rule='tci'", "'tic'"]),
    "order": ([*REPLAY, "order=inorder"], [], ["order='inorder'", "'in_order'"]),
    "one task": ([*REPLAY, "domains=prose"], [], ["memory=domains", "one task"]),
    "infinite rate": (["finetune", "lr=.inf"], [], ["lr=inf", "finite"]),
    "warm-up": (["finetune"], ["--schedule", "rewarm-cosine:warmup=500"], ["warm-up of 500", "19"]),
    "warm-up of a later task": (
        ["finetune", SHORT_LATER],
        ["--schedule", "wsd:warmup=12,rewarm=yes"],
        ["warm-up of 12", "phase 1", "7"],
    ),
    "decay of a later task": (["finetune", SHORT_LATER], DECAY, ["decay=30", "phase 1", "7"]),
    "decay of a later task that is mixed": ([*REPLAY, SHORT_LATER], DECAY, ["decay=30", "phase 1", "13"]),
    "decay of a subset's passes": (["stability-gap", "passes=2"], DECAY, ["decay=30", "phase 1", "4"]),
    "decay of the upstream": (
        ["finetune", "tokens=[800, 4800]", "upstream.schedule=wsd:warmup=2,decay=30"],
        [],
        ["decay=30", "phase 0", "7"],
    ),
    "anneal inside the warm-up": (
        ["finetune", "anneal=0.9"],
        ["--schedule", "rewarm-cosine:warmup=0.5"],
        ["anneal of 17", "10"],
    ),
    "anneal of all": (["finetune", "anneal=0.99", "steps=2"], [], ["anneal=0.99", "2 steps"]),
    "length of the run": (REPLAY, ["--schedule", "one-cosine"], ["one-cosine", "task 1"]),
}


def command(arguments: list[str], options: list[str]) -> list[str]:
    strategy, *given = arguments
    values = SMALL | dict(word.split("=", 1) for word in given)
    sets = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    model = ["--backbone", "byte-gpt?d=16,layers=1,ctx=16", "--threads", "1", "--no-tracking"]
    return ["run", strategy, "text-shift", *sets, *model, *options]


@pytest.mark.parametrize("arguments, options, words", CASES.values(), ids=CASES.keys())
def test_before_an_upstream_is_trained(
    cli: Cli, tmp_path: Path, arguments: list[str], options: list[str], words: list[str]
) -> None:
    """A run of its own would begin with the same checks: training of the upstream is what would come first here."""
    answer = cli(*command(arguments, [*options, *SHARED]))
    assert answer.code == 2
    line = answer.error()
    for word in words:
        assert word in line
    assert not list((tmp_path / "results").glob("runs/*/*/*"))
    assert not list((tmp_path / "cache" / "upstream").glob("*"))


@pytest.mark.parametrize("case", ["slice", "adjacency, too small", "decay of a later task", "anneal of all"])
def test_before_the_first_task(cli: Cli, tmp_path: Path, case: str) -> None:
    arguments, options, words = CASES[case]
    answer = cli(*command(arguments, options))
    assert answer.code == 2 and all(word in answer.error() for word in words)
    assert not list((tmp_path / "results").glob("runs/*/*/*"))


def test_n_grams_of_images(cli: Cli) -> None:
    answer = cli("run", "stability-gap", "split-digits", "--set", "quality=ngram", "--no-tracking")
    assert answer.code == 2 and "quality=random" in answer.error()
