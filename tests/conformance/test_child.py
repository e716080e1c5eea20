"""Work in a child: its answer, its error, its end."""

from __future__ import annotations

import os
import sys
import time

import pytest

from clbench.conformance.child import ChildFailed, in_child
from clbench.engine.faults import fault_point
from clbench.errors import UserError


def test_it_answers_and_changes_nothing_here(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> dict[str, object]:
        os.environ["CLBENCH_CHILD"] = "1"
        print("aloud")
        sys.stderr.write("aloud")
        return {"large": "x" * 300_000, "list": [1, None]}

    assert in_child(work) == {"large": "x" * 300_000, "list": [1, None]}
    assert "CLBENCH_CHILD" not in os.environ
    assert capfd.readouterr() == ("", "")


def test_an_error_is_one_line() -> None:
    def wrong() -> None:
        raise UserError("this is wrong")

    with pytest.raises(ChildFailed, match=r"^this is wrong$"):
        in_child(wrong)
    with pytest.raises(ChildFailed, match=r"^ZeroDivisionError: division by zero$"):
        in_child(lambda: 1 / 0)
    with pytest.raises(ChildFailed, match=r"^the process ended with status 7$"):
        in_child(lambda: os._exit(7))


def test_a_fault_kills_it() -> None:
    def passes() -> str:
        for _ in range(3):
            fault_point("here")
        return "alive"

    assert in_child(passes, "here:3") is None
    assert in_child(passes, "here:4") == "alive"


def test_it_is_not_waited_for_for_ever() -> None:
    with pytest.raises(ChildFailed, match="still at work after 1 s"):
        in_child(lambda: time.sleep(60), seconds=1)
