"""`clbench cost`: what it prints, and that it leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import SMALL, Cli

COST = [word for word in SMALL if word != "--no-tracking"]


def test_the_text(cli: Cli) -> None:
    answer = cli("cost", "finetune", *COST, "--time")
    assert answer.code == 0 and answer.err == ""
    for text in (
        "finetune on split-digits, mlp, tuned: full",
        "activations",
        "FLOPs/step",
        "full fine-tuning",
        "0 task",
    ):
        assert text in answer.out, text
    assert "at the cost of full fine-tuning (maf=full): 15 steps a task" in answer.out
    assert "s of training here" in answer.out and "about 0 s" not in answer.out
    assert not Path("results").exists()


def test_json_under_a_budget(cli: Cli) -> None:
    answer = cli("cost", "finetune", *COST, "--tune", "head", "--budget", "maf=full", "--json")
    assert answer.code == 0 and answer.err == ""
    found = answer.json()
    assert found["memory_bytes"] == sum(found["memory"].values()) < found["full"]["memory_bytes"]
    assert found["memory_ratio"] == found["memory_bytes"] / found["full"]["memory_bytes"]
    for task, full, steps in zip(found["tasks"], found["full"]["tasks"], found["steps_at_full"], strict=True):
        share = full["phases"][0]["flops"] * full["phases"][0]["steps"]
        assert task["steps"] == steps == int(share // (task["phases"][0]["flops"] * found["memory_ratio"]))
    assert found["maf"] <= found["limits"]["maf"] and found["flops"] == sum(task["flops"] for task in found["tasks"])
    assert found["seconds_train"] is None
    assert not Path("results").exists()


def test_a_method_without_gradients(cli: Cli) -> None:
    found = cli("cost", "nmc", "split-digits", "--threads", "1", "--json").json()
    assert found["memory_bytes"] == 0 and found["memory_ratio"] == 1 and found["memory"] is None


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("ewc", *COST, "--budget", "maf=0.001x"), "budget maf=0.001: not one step of ewc fits into task 0"),
        (("ewc", *COST, "--budget", "maf=lots"), "--budget 'maf=lots': write flops=1e12, maf=full"),
        (("ewx", *COST), "unknown strategy 'ewx'"),
    ],
)
def test_mistakes_are_one_line(cli: Cli, words: tuple[str, ...], text: str) -> None:
    answer = cli("cost", *words)
    assert answer.code == 2 and text in answer.error()
