"""The live line: what it says, how rarely it is drawn, and that it is not there without a terminal."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clbench.cli import display
from clbench.cli.display import Display, LiveDisplay, duration, make_display
from clbench.table import Row


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(display, "time", clock)
    return clock


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    return Terminal()


def session(tasks: int = 4) -> Any:
    task = SimpleNamespace(train=range(100))
    return SimpleNamespace(
        folder="folder",
        stream=SimpleNamespace(tasks=[task] * tasks),
        objective=SimpleNamespace(primary="accuracy"),
        resumed_at=SimpleNamespace(task=-1),
    )


class CountedLoss:
    reads = 0

    def __float__(self) -> float:
        CountedLoss.reads += 1
        return 0.5


def test_it_shows_where_the_run_is(clock: Clock, terminal: Terminal) -> None:
    with redirect_stderr(terminal), make_display("finetune on digits", quiet=False) as shown:
        assert isinstance(shown, LiveDisplay)
        shown.started(session())
        shown.stage(1, "train")
        rows = [
            Row(5, 1, name, value, belongs_to=owner, metric=metric)
            for name, value, owner, metric in (
                ("a", 0.25, 0, "accuracy"),
                ("b", 0.75, 1, "accuracy"),
                ("later", 0.0, 3, "accuracy"),
                ("held out", 0.0, None, "accuracy"),
                ("a", 9.0, 0, "loss"),
            )
        ]
        shown.evaluated(rows)
        clock.now += 10
        shown.stepped(1, 40, 80, torch.tensor(1.25))
        shown.note("a note")
    text = terminal.getvalue()
    assert "finetune on digits" in text and "task 2/4" in text and "train step 40/80" in text
    assert "loss 1.250" in text and "accuracy 0.500 (2 sets seen)" in text
    assert "17 s left" in text, "3/8 of the work took 10 s"
    assert "clbench: a note" in text


def test_it_is_drawn_five_times_a_second_and_reads_the_loss_only_then(clock: Clock, terminal: Terminal) -> None:
    with redirect_stderr(terminal), make_display("x", quiet=False) as shown:
        shown.started(session())
        before = CountedLoss.reads
        for step in range(1000):
            clock.now += 0.001
            shown.stepped(0, step, 1000, CountedLoss())  # type: ignore[arg-type]
        assert 4 <= CountedLoss.reads - before <= 5


def test_without_a_terminal_only_notes(capsys: pytest.CaptureFixture[str]) -> None:
    with make_display("x", quiet=False) as shown:
        assert type(shown) is Display
        shown.started(session())
        shown.stepped(0, 1, 2, torch.tensor(1.0))
        shown.note("a note")
    assert capsys.readouterr().err == "clbench: a note\n"


def test_quiet_on_a_terminal(terminal: Terminal) -> None:
    with redirect_stderr(terminal), make_display("x", quiet=True) as shown:
        shown.started(session())
    assert terminal.getvalue() == ""


def test_durations() -> None:
    assert [duration(s) for s in (0.2, 59.4, 60, 185, 7800)] == ["0 s", "59 s", "1:00", "3:05", "2:10:00"]
