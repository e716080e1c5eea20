"""`clbench list` and `show`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from clbench.catalogue import entries
from clbench.cli.listing import page
from clbench.cli.text import reflowed
from clbench.errors import UserError

from .conftest import Cli, example


@pytest.mark.parametrize("kind, known", [
    ("strategies", "finetune"), ("streams", "split-digits"), ("schedules", "cosine"), ("models", "slim-resnet18"),
])  # fmt: skip
def test_lists(cli: Cli, kind: str, known: str) -> None:
    rows = cli("list", kind, "--json").json()
    named = {row["name"]: row["summary"] for row in rows}
    assert known in named and all(named.values())
    assert all("\n" not in summary for summary in named.values())
    text = cli("list", kind)
    assert text.code == 0 and text.err == ""
    lines = text.out.splitlines()
    assert len(lines) == len(rows)
    assert [line.split()[0] for line in lines] == [row["name"].split()[0] for row in rows]


def test_strategies_tell_what_they_need(cli: Cli) -> None:
    rows = {row["name"]: row for row in cli("list", "strategies", "--json").json()}
    assert rows["joint"]["needs"]["sees_all_data"] is True and rows["finetune"]["needs"]["sees_all_data"] is False
    assert rows["nmc"]["inputs"] == "features"


def test_show_a_strategy(cli: Cli) -> None:
    shown = cli("show", "strategy", "ewc", "--json").json()
    settings = {setting["name"]: setting for setting in shown["settings"]}
    assert settings["gamma"]["range"] == ">= 0, <= 1" and settings["gamma"]["default"] == 1.0
    assert settings["lr"]["default"] is None and settings["ewc_lambda"]["source"]
    text = cli("show", "strategy", "ewc").out
    assert "Kirkpatrick" in text and "task_boundaries" in text
    assert "gamma = 1.0" in text and settings["gamma"]["source"] in text


def test_show_a_stream(cli: Cli) -> None:
    settings = {s["name"]: s for s in cli("show", "stream", "split-cifar100", "--json").json()["settings"]}
    assert settings["tasks"]["default"] == 10
    text = cli("show", "stream", "split-cifar100").out
    assert "CIFAR-100" in text and "tasks = 10" in text and "needs" not in text


def test_show_a_schedule(cli: Cli) -> None:
    shown = cli("show", "schedule", "infinite", "--json").json()
    parameters = {parameter["name"]: parameter for parameter in shown["parameters"]}
    assert parameters["constant"]["default"] == 0.55 and "1.65e-4 of 3e-4" in parameters["constant"]["source"]
    assert [piece["piece"] for piece in shown["composed"]["later"]] == ["hold"]
    text = cli("show", "schedule", "wsd:shape=linear,rewarm=no").out
    assert "Hägele" in text and "later phases: hold(value=1.0); linear(frm=1.0, to=0.1) over 0.1" in text
    assert max(map(len, text.splitlines())) <= 120
    wrong = cli("show", "schedule", "infinit")
    assert wrong.code == 2 and "did you mean infinite" in wrong.err


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("kind", ["strategy", "stream"])
def test_every_page_fits_the_terminal(
    kind: Literal["strategy", "stream"], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for entry in entries(kind):
        assert not isinstance(entry, UserError)
        lines = page(entry)
        assert max(map(len, lines[:-1])) <= columns, entry.name  # the last line names a file
        assert entry.doc.split() == " ".join(lines).removeprefix(f"{entry.name}: ").split()[: len(entry.doc.split())]


def test_items_hang_and_indented_lines_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    doc = "Two items come\nhere:\n- the first of\n  these items\n- a second\nand words.\n\n    a = b    +   c + d + e"
    assert reflowed(doc) == [
        "  Two items come here:",
        "  - the first of these",
        "    items",
        "  - a second",
        "  and words.",
        "",
        "      a = b    +   c + d + e",
    ]


def test_show_a_file(cli: Cli) -> None:
    text = cli("show", "strategy", example("raising.py")).out
    assert "Finetuning that raises in one hook." in text and "hook = " in text


def test_show_a_metric(cli: Cli) -> None:
    text = cli("show", "metric", "forgetting").out
    assert "formula" in text and "Avalanche" in text
    shown = cli("show", "metric", "forgetting", "--json").json()
    assert shown["name"] == "forgetting" and shown["text"] in text and shown["summary"]


def test_a_broken_entry_is_left_out_with_a_word(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import clbench.catalogue

    (tmp_path / "brokenmod.py").write_text("class X(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    names = {"bad": "brokenmod:X", "finetune": "clbench.strategies.finetune:Finetune"}
    monkeypatch.setattr(clbench.catalogue, "targets", lambda group: names)
    monkeypatch.setattr(clbench.catalogue, "families", lambda group: {})
    answer = cli("list", "strategies", "--json")
    assert answer.code == 0 and [row["name"] for row in answer.json()] == ["finetune"]
    assert "left out" in answer.err and "brokenmod.py:1" in answer.err
